"""Nodes that read files: pictures from input, output and temp, folders of pictures, and models by name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, ImageSequence

from standin.folders import Folders, is_within
from standin.nodes.runner import Context, Outcome, Pictures, Runner

EMPTY_MASK_SIZE = (64, 64)
DATASET_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")


class PictureReader(Runner):
    """Checks and fingerprints of every class with an `image` input that names a file."""

    validated = ("image",)
    has_fingerprint = True

    @classmethod
    def validate(cls, folders: Folders, image: str) -> bool | str:
        return folders.has_annotated(image) or f"Invalid image file: {image}"

    @classmethod
    def fingerprint(cls, folders: Folders, image: str, **others: Any) -> Any:
        return hashlib.sha256(Path(folders.resolve(image)).read_bytes()).hexdigest()


class LoadImage(PictureReader):
    def run(self, context: Context, image: str) -> Outcome:
        return Outcome(read_picture(self.folders.resolve(image)))


class LoadImageMask(PictureReader):
    def run(self, context: Context, image: str, channel: str) -> Outcome:
        pictures, masks = read_picture(self.folders.resolve(image))
        if channel == "alpha":
            return Outcome((masks,))
        return Outcome(([each.getchannel(channel[0].upper()) for each in pictures],))


def read_picture(path: str) -> tuple[Pictures, Pictures]:
    """All frames as RGB, and their masks (what is transparent is white)."""
    pictures, masks = [], []
    with Image.open(path) as opened:
        for frame in _frames(opened):
            pictures.append(frame.convert("RGB"))
            has_alpha = "A" in frame.getbands()
            masks.append(ImageOps.invert(frame.getchannel("A")) if has_alpha else Image.new("L", EMPTY_MASK_SIZE, 0))
    return pictures, masks


def _frames(opened: Image.Image) -> Iterator[Image.Image]:
    size = None
    for frame in ImageSequence.Iterator(opened):
        upright = ImageOps.exif_transpose(frame)
        size = size or upright.size
        if upright.size == size:
            yield upright.copy()


class LoadImageDataSetFromFolder(Runner):
    def run(self, context: Context, folder: str) -> Outcome:
        path = inside(self.folders.input, folder)
        names = [name for name in os.listdir(path) if name.lower().endswith(DATASET_EXTENSIONS)]
        if not names:
            raise ValueError("No valid images found in input")
        pictures = []
        for name in names:
            with Image.open(os.path.join(path, name)) as opened:
                pictures.append([opened.convert("RGB")])
        return Outcome((pictures,))


def inside(root: str, folder_name: str) -> str:
    path = os.path.abspath(os.path.join(root, folder_name))
    if not is_within(root, path):
        raise ValueError(f"Invalid folder name {folder_name!r}: resolves outside of {root}")
    return path


@dataclass(frozen=True)
class Model:
    """An opaque stand-in for weights: only its name is known."""

    kind: str
    name: str


class CheckpointLoaderSimple(Runner):
    def run(self, context: Context, ckpt_name: str) -> Outcome:
        require_model(self.folders, "checkpoints", ckpt_name)
        return Outcome(tuple(Model(kind, ckpt_name) for kind in ("MODEL", "CLIP", "VAE")))


class LoraLoader(Runner):
    def run(
        self, context: Context, model: Model, clip: Model, lora_name: str, strength_model: float, strength_clip: float
    ) -> Outcome:
        require_model(self.folders, "loras", lora_name)
        return Outcome(tuple(Model(each.kind, f"{each.name}+{lora_name}") for each in (model, clip)))


def require_model(folders: Folders, kind: str, name: str) -> None:
    if folders.model_path(kind, name) is None:
        raise FileNotFoundError(f"Model in folder '{kind}' with filename '{name}' not found.")


RUNNERS: dict[str, type[Runner]] = {
    "LoadImage": LoadImage,
    "LoadImageMask": LoadImageMask,
    "LoadImageOutput": LoadImage,
    "LoadImageDataSetFromFolder": LoadImageDataSetFromFolder,
    "CheckpointLoaderSimple": CheckpointLoaderSimple,
    "LoraLoader": LoraLoader,
}
