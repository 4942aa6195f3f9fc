"""What ComfyUI can do: permitted classes with the tenant's own file lists; models and features without what tells of the server."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from policy.call import ClientReply, Opaque, UpstreamCall
from policy.catalogue import DYNAMIC_TYPES, NodeClass
from policy.file_uses import FileUse, file_inputs
from policy.makers import without_maker
from policy.namespace import ROOT, check_path
from policy.narrowing import narrow_class
from policy.rule_context import RuleContext, RuleInput
from policy.salt import is_core
from policy.violation import Reason, Violation

# Not models: source files of the server, its configuration, and data sets that tenants saved.
HIDDEN_FOLDERS: Final = frozenset({"custom_nodes", "datasets", "configs"})

ACCOUNT_SCRIPT: Final = "/gate/account.js"

_SYSTEM_KEYS = (
    "os",
    "ram_total",
    "ram_free",
    "comfyui_version",
    "required_frontend_version",
    "installed_templates_version",
    "required_templates_version",
    "comfy_package_versions",
    "python_version",
    "pytorch_version",
    "embedded_python",
    "deploy_environment",
)
_DEVICE_KEYS = ("name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free")
_MODEL_KEYS = ("name", "pathIndex", "modified", "created", "size")
_IMAGES = r"png|jpe?g|webp|gif|bmp|tiff?|avif"
_SOUND = r"mp4|webm|mov|mkv|avi|m4v|wav|mp3|flac|ogg|opus|m4a|aac"
_EXTENSIONS = {
    "image_upload": re.compile(rf"(?i).*\.(?:{_IMAGES})"),
    "animated_image_upload": re.compile(rf"(?i).*\.(?:{_IMAGES})"),
    "video_upload": re.compile(r"(?i).*\.(?:mp4|webm|mov|mkv|avi|m4v|gif)"),
    "audio_upload": re.compile(rf"(?i).*\.(?:{_SOUND})"),
    "file_upload": re.compile(r"(?i)3d/.*\.(?:gltf|glb|obj|fbx|stl|spz|splat|ply|ksplat)"),
}
_LATENTS = re.compile(r"(?i).*\.latent")


def describe_all(request: RuleInput) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """GET /object_info, and of one class: the permitted classes, tightened by the policy, with the tenant's own files in their lists.

    Of one class it is the same, of which the class is picked: one that is not permitted is `{}`, as one that is not there.
    """
    context = request.context
    for node_class in context.catalogue.classes.in_turn(context.policy.permits):
        document = narrow_class(node_class, context.policy)
        yield node_class.name, describe_class(replace(node_class, document=document), context)


def describe_class(node_class: NodeClass, context: RuleContext) -> Mapping[str, Any]:
    """One class as the tenant sees it. What the catalogue holds is never changed: it is shared by all."""
    entry = node_class.document
    if not is_core(node_class) or any(spec.type in DYNAMIC_TYPES for spec in node_class.inputs.values()):
        # Lists in inputs that are not understood may hold other tenants' folders.
        entry = _without_tenants(entry)
    uses = file_inputs(node_class)
    if not uses:
        return entry
    sections = dict(entry["input"])
    for section in ("required", "optional"):
        declared = sections.get(section)
        if isinstance(declared, Mapping):
            sections[section] = {
                input_name: _describe_input(spec, uses.get(input_name), input_name, node_class, context)
                for input_name, spec in declared.items()
            }
    return {**entry, "input": sections}


def _without_tenants(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_tenants(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_tenants(item) for item in value if not _is_in_tenants(item)]
    return value


def _is_in_tenants(value: Any) -> bool:
    return isinstance(value, str) and value.replace("\\", "/").partition("/")[0] == ROOT


def _describe_input(spec: Any, use: FileUse | None, name: str, node_class: NodeClass, context: RuleContext) -> Any:
    if use is None or node_class.inputs[name].choices is None:
        return spec
    known = node_class.inputs[name]
    if use is FileUse.FOLDER:
        choices = list_folders(context.files.input)
    elif use is FileUse.LISTED:
        choices = [choice for choice in known.choices or () if choice in context.shared_inputs]
    else:
        choices = [choice for choice in known.choices or () if choice in ("none", "None")]
        choices += _list_files(node_class.name, known.options, context)
    if isinstance(spec[0], list):
        return [choices, *spec[1:]]
    return [spec[0], {**known.options, "options": choices}]


def _list_files(class_name: str, options: Mapping[str, Any], context: RuleContext) -> list[str]:
    """Names as ComfyUI lists them: those in the root, models in 3d/, sorted; the shared ones among them."""
    if options.get("image_folder") == "output":
        return []  # web UIs ask /internal/files/output for these
    mark = next((mark for mark in _EXTENSIONS if options.get(mark)), None)
    pattern = _LATENTS if class_name == "LoadLatent" else _EXTENSIONS.get(mark or "")
    if class_name.startswith("Load3D"):
        pattern = _EXTENSIONS["file_upload"]
    is_deep = pattern is _EXTENSIONS["file_upload"]
    shared = [path for path in context.shared_inputs if not path.endswith("/")]
    return sorted(
        path
        for path in {*context.files.input, *shared}
        if (is_deep or "/" not in path or path in shared) and (pattern is None or pattern.fullmatch(path))
    )


def list_folders(paths: Iterable[str]) -> list[str]:
    """All folders above these files."""
    folders: set[str] = set()
    for path in paths:
        parts = path.split("/")[:-1]
        folders.update("/".join(parts[:end]) for end in range(1, len(parts) + 1))
    return sorted(folders)


def list_files(value: Any, request: RuleInput) -> Any:
    """GET /internal/files/{directory_type}: the tenant's own, newest first. 0.3.64 lists bare names, later versions mark them."""
    kind = request.call.parameters["directory_type"]
    listed = value if isinstance(value, list) else []
    is_marked = all(isinstance(name, str) and name.endswith(f" [{kind}]") for name in listed)
    files = request.context.files
    names = {"input": files.input, "output": files.output}.get(kind, ())
    # What another ComfyUI has made lies in its folder as what the first has made does in the tenant's.
    bare = without_maker if request.context.is_placed else str
    own = [name for name in names if "/" not in bare(name) and not name.startswith(".")]
    if kind == "input":
        own += [name for name in request.context.shared_inputs if "/" not in name and name not in own]
    return [f"{name} [{kind}]" for name in own] if is_marked else own


def files_of(request: RuleInput) -> UpstreamCall:
    """ComfyUI is asked too: it knows which directories there are, and its answer tells how this version writes names."""
    kind = request.call.parameters["directory_type"]
    return UpstreamCall("GET", (Opaque("internal"), Opaque("files"), Opaque(kind)))


def system_stats(value: Any, request: RuleInput) -> Any:
    """Versions, memory and devices; no command line."""
    value = value if isinstance(value, dict) else {}
    system = value.get("system") if isinstance(value.get("system"), dict) else {}
    devices = value.get("devices") if isinstance(value.get("devices"), list) else []
    return {
        "system": {key: system[key] for key in _SYSTEM_KEYS if key in system} | {"argv": []},
        "devices": [
            {key: device[key] for key in _DEVICE_KEYS if key in device}
            for device in devices
            if isinstance(device, dict)
        ],
    }


def features(value: Any, request: RuleInput) -> Any:
    return features_to_client(value)


def features_to_client(value: Any) -> dict[str, Any]:
    """Without the asset store and ComfyUI-Manager, which tenants do not have."""
    if not isinstance(value, dict):
        return {}
    kept = {key: item for key, item in value.items() if key != "extension"}
    return kept | {"assets": False} if "assets" in kept else kept


def extensions(value: Any, request: RuleInput) -> Any:
    """GET /extensions: the scripts that the web UI loads, and the gate's own where it is wanted.

    It lies under /gate/, which never leads to ComfyUI: no pack can stand in its place.
    """
    listed = [path for path in (value if isinstance(value, list) else []) if path != ACCOUNT_SCRIPT]
    return [*listed, ACCOUNT_SCRIPT] if request.context.has_account_menu else listed


def model_folders(value: Any, request: RuleInput) -> Any:
    """GET /models: names of folders."""
    return [name for name in (value if isinstance(value, list) else []) if name not in HIDDEN_FOLDERS]


def described_model_folders(value: Any, request: RuleInput) -> Any:
    """GET /experiment/models: without the server's paths."""
    return [
        {key: folder[key] for key in ("name", "extensions") if key in folder} | {"folders": []}
        for folder in (value if isinstance(value, list) else [])
        if isinstance(folder, dict) and folder.get("name") not in HIDDEN_FOLDERS
    ]


def described_models(value: Any, request: RuleInput) -> Any:
    """GET /experiment/models/{folder}."""
    return [
        {key: model[key] for key in _MODEL_KEYS if key in model}
        for model in (value if isinstance(value, list) else [])
        if isinstance(model, dict)
    ]


def all_of(values: Sequence[Any]) -> list[Any]:
    """Of lists of names, or of what has names, each name once."""
    found: dict[str, Any] = {}
    for value in values:
        for item in value if isinstance(value, list) else ():
            name = item.get("name") if isinstance(item, dict) else item
            if isinstance(name, str):
                found.setdefault(name, item)
    return list(found.values())


def first_of(values: Sequence[Any]) -> Any:
    return values[0] if values else {}


def folder_paths(value: Any, request: RuleInput) -> Any:
    """GET /internal/folder_paths: which folders of models there are, for the web UI's hint on a missing model; not where they lie."""
    return {
        name: [f"models/{name}"] for name in (value if isinstance(value, dict) else {}) if name not in HIDDEN_FOLDERS
    }


def models_in(request: RuleInput) -> UpstreamCall | ClientReply:
    """GET /models/{folder}: a folder that ComfyUI lists and the gate hides is empty, since clients ask for all that they know."""
    if request.call.parameters["folder"] in HIDDEN_FOLDERS:
        return ClientReply(body=[])
    return in_model_folder(request)


def in_model_folder(request: RuleInput) -> UpstreamCall:
    """Any route below a model folder: `folder` (and what follows it) goes on as it is, unless it is no folder of models."""
    call = request.call
    folder = call.parameters["folder"]
    if folder in HIDDEN_FOLDERS:
        raise Violation(Reason.NOT_FOUND, "There is no such folder of models.")
    check_path(folder)
    if "filename" in call.parameters:
        check_path(call.parameters["filename"])
    return UpstreamCall(call.method, tuple(map(Opaque, call.segments)))


def model_preview(request: RuleInput) -> UpstreamCall:
    """GET /experiment/models/preview/…: of several ComfyUIs, of the first that runs the caller's jobs."""
    call, comfyuis = in_model_folder(request), request.context.comfyuis
    if comfyuis is None:
        return call
    if not comfyuis:
        raise Violation(Reason.NOT_FOUND, "There is no such folder of models.")
    return replace(call, comfyui=comfyuis[0].name)


def view_metadata(request: RuleInput) -> UpstreamCall:
    """GET /view_metadata/{folder_name}: what stands in a model's header."""
    call = request.call
    folder = call.parameters["folder_name"]
    filename = call.first("filename")
    if folder in HIDDEN_FOLDERS or filename is None:
        raise Violation(Reason.NOT_FOUND, "There is no such model.")
    check_path(folder)
    check_path(filename)
    return UpstreamCall("GET", (Opaque("view_metadata"), Opaque(folder)), (("filename", Opaque(filename)),))
