"""Classes that ComfyUI runs and the stand-in does not: they are listed and validated, and fail when they run."""

from __future__ import annotations

from typing import Any

from standin.folders import Folders
from standin.nodes.loading import PictureReader
from standin.nodes.runner import Context, Outcome, Runner


class Unavailable(Runner):
    def run(self, context: Context, *args: Any, **inputs: Any) -> Outcome:
        class_type = context.prompt[context.node_id]["class_type"]
        raise RuntimeError(f"{class_type} does not run in the stand-in for ComfyUI")


class LoadVideo(Unavailable):
    validated = ("file",)

    @classmethod
    def validate(cls, folders: Folders, file: str) -> bool | str:
        return folders.has_annotated(file) or f"Invalid video file: {file}"


class LoadAudio(Unavailable):
    validated = ("audio",)

    @classmethod
    def validate(cls, folders: Folders, audio: str) -> bool | str:
        return folders.has_annotated(audio) or f"Invalid audio file: {audio}"


class Load3D(Unavailable):
    # ComfyUI's validator takes **kwargs: it switches the checks of every input off, and blames every input.
    validated = ("model_file", "image", "width", "height")

    @classmethod
    def validate(cls, folders: Folders, model_file: str, **others: Any) -> bool | str:
        if not model_file or model_file == "none" or folders.has_annotated(model_file):
            return True
        return f"Invalid 3D model file: {model_file}"


class WebcamCapture(PictureReader):
    def run(self, context: Context, *args: Any, **inputs: Any) -> Outcome:
        return Unavailable(self.folders).run(context, **inputs)


RUNNERS: dict[str, type[Runner]] = {
    "LoadVideo": LoadVideo,
    "LoadAudio": LoadAudio,
    "Load3D": Load3D,
    "WebcamCapture": WebcamCapture,
}
