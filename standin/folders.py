"""ComfyUI's directories and the rules for names in them (folder_paths.py of 0.33), holes included.

The checks guard a root folder only; nothing here separates one client's subfolder from another's.
"""

from __future__ import annotations

import mimetypes
import os
import shutil
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

WEIGHTS = frozenset({".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"})
LEGACY_KINDS = {"unet": "diffusion_models", "clip": "text_encoders"}
# In the order of GET /models. Folder names below models/ that differ from the kind are spelled out.
MODEL_KINDS: dict[str, tuple[str, ...]] = {
    "checkpoints": ("checkpoints",),
    "configs": ("configs",),
    "loras": ("loras",),
    "vae": ("vae",),
    "text_encoders": ("text_encoders", "clip"),
    "diffusion_models": ("unet", "diffusion_models"),
    "clip_vision": ("clip_vision",),
    "style_models": ("style_models",),
    "embeddings": ("embeddings",),
    "diffusers": ("diffusers",),
    "vae_approx": ("vae_approx",),
    "controlnet": ("controlnet", "t2i_adapter"),
    "gligen": ("gligen",),
    "upscale_models": ("upscale_models",),
    "latent_upscale_models": ("latent_upscale_models",),
    "custom_nodes": (),
    "datasets": (),
    "hypernetworks": ("hypernetworks",),
    "photomaker": ("photomaker",),
    "classifiers": ("classifiers",),
    "model_patches": ("model_patches",),
    "audio_encoders": ("audio_encoders",),
    "background_removal": ("background_removal",),
    "frame_interpolation": ("frame_interpolation",),
    "geometry_estimation": ("geometry_estimation",),
    "optical_flow": ("optical_flow",),
    "detection": ("detection",),
}
EXTENSIONS: dict[str, frozenset[str]] = {
    "configs": frozenset({".yaml"}),
    "diffusers": frozenset({"folder"}),
    "custom_nodes": frozenset(),
    "datasets": frozenset(),
    "classifiers": frozenset({""}),
}
# Folders below output/ that are model roots too, so that what is saved there can be loaded.
SAVED_MODELS = {"checkpoints": "checkpoints", "text_encoders": "clip", "vae": "vae"} | {
    kind: kind for kind in ("diffusion_models", "loras")
}


def is_within(directory: str, target: str) -> bool:
    """Whether `target` really lies in `directory`, symlinks followed."""
    try:
        directory, target = os.path.realpath(directory), os.path.realpath(target)
        return os.path.commonpath((directory, target)) == directory
    except ValueError:
        return False


def keep_content_types(names: Iterable[str], wanted: Collection[str]) -> list[str]:
    kept = []
    for name in names:
        extension = name.rsplit(".", 1)[-1]
        kind = {"webp": "image", "fbx": "model"}.get(extension)
        kind = kind or (mimetypes.guess_type(name, strict=False)[0] or "").split("/")[0]
        if kind in wanted:
            kept.append(name)
    return kept


@dataclass(frozen=True)
class SavePlace:
    folder: str
    stem: str
    counter: int
    subfolder: str


class Folders:
    def __init__(self, base: Path) -> None:
        self.base = os.path.abspath(base)
        self.input = os.path.join(self.base, "input")
        self.output = os.path.join(self.base, "output")
        self.temp = os.path.join(self.base, "temp")
        self.user = os.path.join(self.base, "user")
        self.models: dict[str, list[str]] = {}
        for kind, names in MODEL_KINDS.items():
            roots = [os.path.join(self.base, "models", name) for name in names] or [os.path.join(self.base, kind)]
            if kind in SAVED_MODELS:
                roots.append(os.path.join(self.output, SAVED_MODELS[kind]))
            self.models[kind] = roots

    def create(self) -> None:
        for folder in (self.input, self.output, self.temp, self.user, os.path.join(self.input, "3d")):
            os.makedirs(folder, exist_ok=True)
        for roots in self.models.values():
            os.makedirs(roots[0], exist_ok=True)

    def empty_temp(self) -> None:
        shutil.rmtree(self.temp, ignore_errors=True)
        os.makedirs(self.temp, exist_ok=True)

    def by_type(self, name: object) -> str | None:
        roots = {"input": self.input, "output": self.output, "temp": self.temp}
        return roots.get(name) if isinstance(name, str) else None

    def split_annotation(self, name: str) -> tuple[str, str | None]:
        """`x.png [output]` -> (`x.png`, output root). One character before the bracket goes too, whatever it is."""
        for kind in ("output", "input", "temp"):
            if name.endswith(f"[{kind}]"):
                return name[: -len(kind) - 3], self.by_type(kind)
        return name, None

    def resolve(self, annotated_name: str) -> str:
        """The path that a LoadX input names; ValueError outside of its root."""
        name, root = self.split_annotation(annotated_name)
        path = os.path.abspath(os.path.join(root or self.input, name))
        if not is_within(root or self.input, path):
            raise ValueError(f"Invalid file path: {name!r}")
        return path

    def has_annotated(self, annotated_name: str) -> bool:
        try:
            return os.path.exists(self.resolve(annotated_name))
        except ValueError:
            return False

    def input_subfolders(self) -> list[str]:
        found = [os.path.relpath(folder, self.input) for folder, _, _ in os.walk(self.input)]
        return sorted(name for name in found if name != ".")

    def model_roots(self, kind: str) -> list[str] | None:
        return self.models.get(LEGACY_KINDS.get(kind, kind))

    def model_files(self, kind: str) -> list[str]:
        kind = LEGACY_KINDS.get(kind, kind)
        extensions = EXTENSIONS.get(kind, WEIGHTS)
        names: set[str] = set()
        for root in self.models[kind]:
            for folder, subfolders, files in os.walk(root, followlinks=True):
                subfolders[:] = [name for name in subfolders if name != ".git"]
                for name in files:
                    if not extensions or os.path.splitext(name)[1].lower() in extensions:
                        names.add(os.path.relpath(os.path.join(folder, name), root))
        return sorted(names)

    def model_path(self, kind: str, name: str) -> str | None:
        relative = os.path.relpath(os.path.join("/", name), "/")
        for root in self.model_roots(kind) or []:
            path = os.path.join(root, relative)
            if os.path.isfile(path):
                return path
        return None

    def save_place(self, prefix: str, root: str, width: int = 0, height: int = 0) -> SavePlace:
        """Where a save node writes; the counter is one above the highest in that folder.

        Raises RuntimeError, with absolute paths in its message, when the prefix leaves `root`.
        """
        prefix = _fill_tokens(prefix, width, height)
        subfolder, stem = os.path.split(os.path.normpath(prefix))
        folder = os.path.join(root, subfolder)
        if not is_within(root, folder):
            raise OutsideOutput(
                "**** ERROR: Saving image outside the output folder is not allowed."
                f"\n full_output_folder: {os.path.abspath(folder)}\n         output_dir: {root}"
            )
        if not os.path.exists(folder):
            os.makedirs(folder, exist_ok=True)
        counters = [_counter_of(name, len(os.path.basename(prefix)), stem) for name in os.listdir(folder)]
        return SavePlace(folder, stem, max((c for c in counters if c is not None), default=0) + 1, subfolder)


class OutsideOutput(Exception):
    """A filename_prefix leaves the output folder. ComfyUI raises a bare Exception, whose name clients get to see."""


def _fill_tokens(prefix: str, width: int, height: int) -> str:
    if "%" not in prefix:
        return prefix
    now = time.localtime()
    values = {"width": str(width), "height": str(height), "year": str(now.tm_year)}
    parts = {"month": now.tm_mon, "day": now.tm_mday, "hour": now.tm_hour, "minute": now.tm_min, "second": now.tm_sec}
    values |= {name: f"{value:02}" for name, value in parts.items()}
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _counter_of(name: str, stem_length: int, stem: str) -> int | None:
    head, rest = name[: stem_length + 1], name[stem_length + 1 :]
    if head[:-1] != stem or head[-1:] != "_":
        return None
    digits = rest.split(".")[0].split("_")[0]
    try:
        return int(digits)
    except ValueError:
        return 0
