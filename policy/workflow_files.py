"""Which inputs of a class name files, and how they are written into the tenant's namespace. Trusts ComfyUI's description of its classes.

What names a file must be a literal: a linked value is not known before the job runs (comfyui-api: D.1, D.2, C.5, C.6).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from policy.catalogue import DYNAMIC_TYPES, InputSpec, NodeClass, expand_inputs
from policy.class_plan import takes_any_literal
from policy.namespace import ROOT, Folder, check_file_name, is_path, is_shared, read_path, split_annotation, split_path
from policy.path_texts import check_text, rewrite_texts
from policy.rule_context import RuleContext
from policy.salt import is_core, needs_salt, salt_nodes
from policy.texts import Texts, fill_dates
from policy.violation import Reason, Violation
from policy.workflow import is_link


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
_NO_FILE = frozenset({"none", "None"})


def file_inputs(node_class: NodeClass, given: Mapping[str, Any] | None = None) -> dict[str, FileUse]:
    """The inputs of a class that name files. given: a node's inputs, which decide what dynamic ones there are."""
    specs = node_class.inputs if given is None else declared_inputs(node_class, given)
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
        return _use_of_text(node_class, name)
    if spec.choices is not None and not is_core(node_class):
        return _use_of_choices(spec.choices)
    return None


def _asks_for_files(spec: InputSpec) -> bool:
    remote = spec.options.get("remote")
    route = remote.get("route") if isinstance(remote, Mapping) else None
    return isinstance(route, str) and "/internal/files" in route


def _use_of_text(node_class: NodeClass, name: str) -> FileUse | None:
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


def rewrite_nodes(nodes: Mapping[str, Mapping[str, Any]], context: RuleContext) -> dict[str, dict[str, Any]]:
    """The workflow as ComfyUI gets it: every file in the tenant's namespace, every node that needs it salted.

    Raises Violation(policy-violation) with all offending nodes.
    """
    rewritten: dict[str, dict[str, Any]] = {}
    node_errors: dict[str, Any] = {}
    classes: dict[str, NodeClass] = {}
    needing: list[str] = []
    own: list[str] = []
    texts = Texts(nodes, context.catalogue)
    for node_id, node in nodes.items():
        node_class = context.catalogue.get(node["class_type"])
        if node_class is None:  # judged before, with the same catalogue
            raise Violation(Reason.POLICY_VIOLATION, "This workflow has a class that is not known.", node["class_type"])
        uses = file_inputs(node_class, node["inputs"])
        inputs, errors = _rewrite_inputs(node_class, node["inputs"], uses, texts, context)
        if errors:
            node_errors[node_id] = {"errors": errors, "dependent_outputs": [], "class_type": node_class.name}
        classes[node_id] = node_class
        rewritten[node_id] = {**node, "inputs": inputs}
        if needs_salt(node_class, bool(uses)):
            needing.append(node_id)
        if inputs != node["inputs"]:
            own.append(node_id)
    if node_errors:
        named = ", ".join(f"node {node_id}: {entry['errors'][0]['details']}" for node_id, entry in node_errors.items())
        message = "The workflow names files in a way that is not accepted: see the nodes."
        raise Violation(Reason.POLICY_VIOLATION, message, named[:500], node_errors=node_errors)
    salt_nodes(rewritten, needing, own, classes.__getitem__, context.names.tenant)
    return rewritten


def _rewrite_inputs(
    node_class: NodeClass,
    given: Mapping[str, Any],
    uses: Mapping[str, FileUse],
    texts: Texts,
    context: RuleContext,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The inputs with names of files in the tenant's namespace, and what is wrong with them."""
    inputs = dict(given)
    errors = []
    declared = declared_inputs(node_class, given)
    for name, value in given.items():
        try:
            use = uses.get(name) if name in declared else _use_of_undeclared(node_class, name, value)
            if use is not None:
                text = _follow(value, use, texts)
                inputs[name] = _rewrite(text, use, node_class.inputs.get(name), context)
            elif name not in declared or _is_untold(node_class, declared[name]):
                inputs[name] = _rewrite_untold(value, texts, context)
            elif not is_core(node_class):
                _check_told(value, texts, context)
        except _FileRefused as refused:
            errors.append(refused.describe(name))
    return inputs, errors


def _use_of_undeclared(node_class: NodeClass, name: str, value: Any) -> FileUse | None:
    """What an undeclared text names, by the name of its input; a link is refused there as in a declared one."""
    if type(value) is str or is_link(value):
        return _use_of_text(node_class, name.rpartition(".")[2])
    return None


def _is_untold(node_class: NodeClass, spec: InputSpec) -> bool:
    """Whether a class from outside declares this input and does not say what it is: ComfyUI hands it any literal."""
    return not is_core(node_class) and takes_any_literal(spec)


def _rewrite_untold(value: Any, texts: Texts, context: RuleContext) -> Any:
    """SECURITY: a text is judged whether it stands here or comes by a link to constants
    (test_texts.py::test_a_text_that_comes_by_a_link_into_an_undeclared_input_is_judged)."""
    text = texts.follow(value) if is_link(value) else None
    given = value if text is None else text
    if is_link(given):
        return value
    try:
        judged = rewrite_texts(given, context.names, lambda name: _name_to_upstream(name, context))
    except Violation as violation:
        raise _FileRefused("file-input-refused", violation.message) from None
    return value if judged == given else judged


def _check_told(value: Any, texts: Texts, context: RuleContext) -> None:
    """A text of a class from outside, or one that a link to constants brings it."""
    text = texts.follow(value) if is_link(value) else value
    if type(text) is str:
        try:
            check_text(text, context.names)
        except Violation as violation:
            raise _FileRefused("file-input-refused", violation.message) from None


def _follow(value: Any, use: FileUse, texts: Texts) -> Any:
    """The text that a link to constants brings, so that it can be judged; any other value as it is."""
    if not is_link(value) or use is FileUse.DISPLAY_ONLY:
        return value
    text = texts.follow(value)
    return value if text is None else text


class _FileRefused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def describe(self, input_name: str) -> dict[str, Any]:
        return {
            "type": self.code,
            "message": self.message,
            "details": f"{input_name}: {self.message}",
            "extra_info": {"input_name": input_name},
        }


def _rewrite(value: Any, use: FileUse, spec: InputSpec | None, context: RuleContext) -> Any:
    if isinstance(value, list):
        if use is FileUse.DISPLAY_ONLY:
            return value
        raise _FileRefused(
            "file-input-linked",
            "A file must be named here by a literal, or by a link to constants and their concatenation.",
        )
    if use is FileUse.OBJECT_OF_PATHS and isinstance(value, dict) and "__value__" not in value:
        return {key: _rewrite_bundled(item, context) for key, item in value.items()}
    if not isinstance(value, str):
        raise _FileRefused("file-input-malformed", "A file must be named here by a text.")
    try:
        return _rewrite_text(value, use, spec, context)
    except Violation as violation:
        raise _FileRefused("file-input-refused", violation.message) from None


def _rewrite_bundled(item: Any, context: RuleContext) -> Any:
    """Objects, lists and numbers in a bundle describe cameras and models; every text names a file."""
    if not isinstance(item, str):
        return item
    return _rewrite(item, FileUse.READ, None, context)


def _rewrite_text(value: str, use: FileUse, spec: InputSpec | None, context: RuleContext) -> str:
    names = context.names
    if use in (FileUse.PREFIX, FileUse.PREFIX_NAME):
        prefix = fill_dates(value, context.now)
        if not names.read(prefix):
            prefix = _default_prefix(spec)
        if use is FileUse.PREFIX:
            return names.prefix_to_upstream(prefix)
        check_file_name(prefix)
        return split_path(names.prefix_to_upstream(prefix))[1]
    if use in (FileUse.FOLDER, FileUse.FOLDER_TO_WRITE):
        folder = names.folder_to_upstream(value)
        raw = "/".join(read_path(value))
        is_shared_folder = use is FileUse.FOLDER and is_shared(f"{raw}/", context.shared_inputs)
        return raw if is_shared_folder and is_path(raw) else folder
    choices = (spec.choices if spec else None) or ()
    if value == "" or (value in _NO_FILE and (value in choices or not choices)):
        return value
    rewritten = _name_to_upstream(value, context)
    if use is FileUse.LISTED and rewritten not in choices:
        raise Violation(
            Reason.NAME_REFUSED,
            "This node reads only what lies in ComfyUI's own input folder, so tenants can use it with shared inputs only.",
        )
    return rewritten


def _default_prefix(spec: InputSpec | None) -> str:
    """What the class itself says, for a prefix that names nothing."""
    default = spec.options.get("default") if spec else None
    return default if isinstance(default, str) and default else "ComfyUI"


def _name_to_upstream(value: str, context: RuleContext) -> str:
    """`name`, `folder/name` or `name [output]`; also as the workflow in a saved picture has it, with the tenant's own root."""
    bare, folder = split_annotation(value)
    path = context.names.readable_to_upstream(
        bare, folder or Folder.INPUT, context.shared_inputs, context.jobs.has_temp_file
    )
    return f"{path} [{folder}]" if folder else path
