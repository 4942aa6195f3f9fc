"""Nodes that write files or show results."""

from __future__ import annotations

import json
import os
import random
import string
import time
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from standin.events import Preview
from standin.folders import Folders
from standin.nodes.loading import inside
from standin.nodes.runner import Context, Outcome, Pictures, Runner


class SaveImage(Runner):
    def run(self, context: Context, images: Pictures, filename_prefix: str = "ComfyUI") -> Outcome:
        return save_pictures(context, images, filename_prefix, "output", compress_level=4)


def save_pictures(context: Context, images: Pictures, prefix: str, kind: str, *, compress_level: int) -> Outcome:
    width, height = images[0].size
    place = context.folders.save_place(prefix, context.folders.by_type(kind) or "", width, height)
    saved = []
    for number, image in enumerate(images):
        name = f"{place.stem.replace('%batch_num%', str(number))}_{place.counter + number:05}_.png"
        image.save(os.path.join(place.folder, name), pnginfo=embedded(context), compress_level=compress_level)
        saved.append({"filename": name, "subfolder": place.subfolder, "type": kind})
    return Outcome((images,), {"images": saved})


class PreviewImage(Runner):
    """The stem's five letters are drawn once per object, and the object outlives the prompt: names can be counted."""

    def __init__(self, folders: Folders) -> None:
        super().__init__(folders)
        letters = "".join(random.choices(string.ascii_lowercase, k=5))  # noqa: S311 - guessable upstream too
        self._prefix = f"ComfyUI_temp_{letters}"

    def run(self, context: Context, images: Pictures) -> Outcome:
        return save_pictures(context, images, self._prefix, "temp", compress_level=1)


def embedded(context: Context) -> PngInfo:
    """The text chunks of a saved PNG: the whole prompt, and what the client sent as extra_pnginfo."""
    info = PngInfo()
    info.add_text("prompt", json.dumps(context.prompt))
    extra = context.extra_data.get("extra_pnginfo")
    if extra is not None:
        for name in extra:
            info.add_text(name, json.dumps(extra[name]))
    return info


class SaveImageWebsocket(Runner):
    has_fingerprint = True

    @classmethod
    def fingerprint(cls, folders: Folders, **values: Any) -> Any:
        return time.time()

    def run(self, context: Context, images: Pictures) -> Outcome:
        for number, image in enumerate(images):
            context.progress(number, len(images), Preview("PNG", image, None))
        return Outcome()


class SaveText(Runner):
    def run(self, context: Context, text: str, filename_prefix: str, format: str) -> Outcome:
        place = self.folders.save_place(filename_prefix, self.folders.output, 1, 1)
        name = f"{place.stem}_{place.counter:05}.{format}"
        content = text
        if format == "json":
            try:
                content = json.dumps(json.JSONDecoder().decode(text), indent=2, ensure_ascii=False)
            except json.JSONDecodeError:
                content = text
        Path(place.folder, name).write_text(content, encoding="utf-8")
        return Outcome(
            (text,), {"text": [text], "files": [{"filename": name, "subfolder": place.subfolder, "type": "output"}]}
        )


class SaveImageDataSetToFolder(Runner):
    """`filename_prefix` is a bare name."""

    def run(
        self,
        context: Context,
        images: list[Pictures],
        folder_name: list[str],
        filename_prefix: list[str],
        mode: list[str],
        texts: list[str] | None = None,
    ) -> Outcome:
        folder = inside(self.folders.output, folder_name[0])
        if os.path.basename(filename_prefix[0]) != filename_prefix[0]:
            raise ValueError("filename_prefix must be a bare name")
        os.makedirs(folder, exist_ok=True)
        pictures: list[Image.Image] = [picture for batch in images for picture in batch]
        for index, picture in enumerate(pictures):
            if mode[0] == "overwrite":
                name = f"{filename_prefix[0]}_{index:05d}.png"
            else:
                counter = self.folders.save_place(filename_prefix[0], folder).counter
                name = f"{filename_prefix[0]}_{counter:05}_{index:05d}.png"
            picture.save(os.path.join(folder, name))
            if texts and index < len(texts):
                Path(folder, name.replace(".png", ".txt")).write_text(texts[index], encoding="utf-8")
        return Outcome()


RUNNERS: dict[str, type[Runner]] = {
    "SaveImage": SaveImage,
    "PreviewImage": PreviewImage,
    "SaveImageWebsocket": SaveImageWebsocket,
    "SaveText": SaveText,
    "SaveImageDataSetToFolder": SaveImageDataSetToFolder,
    "SaveImageTextDataSetToFolder": SaveImageDataSetToFolder,
}
