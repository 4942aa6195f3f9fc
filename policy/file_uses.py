"""Which inputs of a class name files, by its description. Trusts ComfyUI's description of its classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from policy.catalogue import DYNAMIC_TYPES, InputSpec, NodeClass, expand_inputs
from policy.namespace import ROOT
from policy.salt import is_core


class FileUse(Enum):
    """What an input does with the file that it names."""

    READ = "reads a file"
    LISTED = "reads a file of ComfyUI's own list"
    FOLDER = "reads a folder"
    OBJECT_OF_PATHS = "an object whose texts name files"
    DISPLAY_ONLY = "hands a path to the web UI and reads nothing"
    PREFIX = "writes files that begin with this"
    PREFIX_NAME = "writes files that begin with this, in a folder of another input"
    FOLDER_TO_WRITE = "writes files into this folder"
    ID = "reads bytes that were put under this id"


_KNOWN: Final[Mapping[tuple[str, str], FileUse]] = {
    ("LoadLatent", "latent"): FileUse.READ,
    ("Load3D", "model_file"): FileUse.READ,
    ("Load3DAdvanced", "model_file"): FileUse.READ,
    ("Load3DAnimation", "model_file"): FileUse.READ,
    ("Preview3D", "model_file"): FileUse.DISPLAY_ONLY,
    ("Preview3DAnimation", "model_file"): FileUse.DISPLAY_ONLY,
    ("GeminiInputFiles", "file"): FileUse.LISTED,
    ("OpenAIInputFiles", "file"): FileUse.LISTED,
    ("LoadImageDataSetFromFolder", "folder"): FileUse.FOLDER,
    ("LoadImageTextDataSetFromFolder", "folder"): FileUse.FOLDER,
    ("LoadVideoDataSetFromFolder", "folder"): FileUse.FOLDER,
    ("LoadVideoTextDataSetFromFolder", "folder"): FileUse.FOLDER,
    ("LoadImageSetFromFolderNode", "folder"): FileUse.FOLDER,
    ("LoadImageTextSetFromFolderNode", "folder"): FileUse.FOLDER,
    ("LoadTrainingDataset", "folder_name"): FileUse.FOLDER,
}
_UPLOAD_MARKS = ("image_upload", "animated_image_upload", "video_upload", "audio_upload", "file_upload", "image_folder")
_FILE_TYPES = frozenset({"WEBCAM", "AUDIO_RECORD"})
_BUNDLE_TYPES = frozenset({"LOAD_3D", "LOAD_3D_ANIMATION"})
_MEDIA = re.compile(
    r"(?i).*\.(png|jpe?g|webp|gif|bmp|tiff?|avif|mp4|webm|mov|mkv|avi|m4v|wav|mp3|flac|ogg|opus|m4a|txt|pdf|latent)"
)
# Names that classes from outside ComfyUI give to texts with a path.
_PATH_NAME = re.compile(r"(?:.*_)?(?:path|file|filename|filepath|dir|directory|folder|subfolder|foldername)")
_FOLDER_NAME = re.compile(r"(?:.*_)?(?:path|dir|directory|folder|subfolder|foldername|folder_name)")


def file_inputs(node_class: NodeClass, given: Mapping[str, Any] | None = None) -> dict[str, FileUse]:
    """The inputs of a class that name files. given: a node's inputs, which decide what dynamic ones there are."""
    return uses_of(node_class, node_class.inputs if given is None else declared_inputs(node_class, given))


def uses_of(node_class: NodeClass, specs: Mapping[str, InputSpec]) -> dict[str, FileUse]:
    """specs: what a node of the class declares."""
    uses = {name: use for name, spec in specs.items() if (use := _use_of(node_class, spec)) is not None}
    if FileUse.FOLDER_TO_WRITE in uses.values():
        # SECURITY: with a folder of its own beside it the prefix is a bare name (test_names_that_mean_something_else_upstream_are_refused).
        uses = {name: FileUse.PREFIX_NAME if use is FileUse.PREFIX else use for name, use in uses.items()}
    return uses


def declared_inputs(node_class: NodeClass, given: Mapping[str, Any]) -> Mapping[str, InputSpec]:
    """The inputs that a node with these ones declares."""
    if any(spec.type in DYNAMIC_TYPES for spec in node_class.inputs.values()):
        return expand_inputs(node_class, given)
    return node_class.inputs


def _use_of(node_class: NodeClass, spec: InputSpec) -> FileUse | None:
    name = spec.name.rpartition(".")[2]
    known = _KNOWN.get((node_class.name, spec.name))
    if known is not None:
        return known
    if spec.type in _BUNDLE_TYPES:
        # The viewport of ComfyUI's own previews is a camera; no file in it is read (nodes_load_3d.py).
        return None if is_core(node_class) and name == "viewport_state" else FileUse.OBJECT_OF_PATHS
    if spec.type in _FILE_TYPES or any(spec.options.get(mark) for mark in _UPLOAD_MARKS) or _asks_for_files(spec):
        return FileUse.READ
    if "STRING" in spec.type.split(","):
        return use_of_text(node_class, name)
    if spec.choices is not None and not is_core(node_class):
        return _use_of_choices(spec.choices)
    return None


def _asks_for_files(spec: InputSpec) -> bool:
    remote = spec.options.get("remote")
    route = remote.get("route") if isinstance(remote, Mapping) else None
    return isinstance(route, str) and "/internal/files" in route


def use_of_text(node_class: NodeClass, name: str) -> FileUse | None:
    if name == "filename_prefix":
        return FileUse.PREFIX
    if node_class.is_output_node:
        if name == "prefix":
            return FileUse.PREFIX
        if name == "folder_name" or (not is_core(node_class) and _FOLDER_NAME.fullmatch(name)):
            return FileUse.FOLDER_TO_WRITE
    if is_core(node_class) or not _PATH_NAME.fullmatch(name):
        return None
    return FileUse.FOLDER if _FOLDER_NAME.fullmatch(name) else FileUse.READ


def _use_of_choices(choices: tuple[Any, ...]) -> FileUse | None:
    """Choices that are a listing of ComfyUI's folders, in a class from outside ComfyUI; an empty list may be one."""
    texts = [choice for choice in choices if isinstance(choice, str)]
    if any(text == ROOT or text.startswith((f"{ROOT}/", f"{ROOT}\\")) for text in texts):
        is_folders = not any(_MEDIA.fullmatch(text) for text in texts)
        return FileUse.FOLDER if is_folders else FileUse.READ
    if not choices or any(_MEDIA.fullmatch(text) for text in texts):
        return FileUse.READ
    return None
