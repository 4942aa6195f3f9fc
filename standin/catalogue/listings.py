"""Combo options that are directory listings, as ComfyUI makes them: files of the root folder only, not of subfolders."""

from __future__ import annotations

import os
from collections.abc import Callable

from standin.folders import Folders, keep_content_types

MODEL_3D_EXTENSIONS = (".gltf", ".glb", ".obj", ".fbx", ".stl", ".spz", ".splat", ".ply", ".ksplat")


def _root_files(folders: Folders) -> list[str]:
    return [name for name in os.listdir(folders.input) if os.path.isfile(os.path.join(folders.input, name))]


def input_images(folders: Folders) -> list[str]:
    return sorted(keep_content_types(_root_files(folders), {"image"}))


def input_videos(folders: Folders) -> list[str]:
    return sorted(keep_content_types(_root_files(folders), {"video"}))


def input_sounds(folders: Folders) -> list[str]:
    return sorted(keep_content_types(_root_files(folders), {"audio", "video"}))


def input_documents(folders: Folders) -> list[str]:
    return sorted(name for name in _root_files(folders) if name.lower().endswith((".txt", ".pdf")))


def input_models_3d(folders: Folders) -> list[str]:
    found = []
    for folder, _, names in os.walk(os.path.join(folders.input, "3d")):
        relative = os.path.relpath(folder, folders.input)
        found += [os.path.join(relative, name) for name in names if name.lower().endswith(MODEL_3D_EXTENSIONS)]
    return ["none", *sorted(found)]


def input_folders(folders: Folders) -> list[str]:
    return folders.input_subfolders()


def vae_names(folders: Folders) -> list[str]:
    return [*folders.model_files("vae"), "pixel_space"]


def model_files(kind: str) -> Callable[[Folders], list[str]]:
    def listing(folders: Folders) -> list[str]:
        return folders.model_files(kind)

    return listing
