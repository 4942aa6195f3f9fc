"""What ComfyUI can run, read from its /object_info: classes, their inputs and outputs. A value; proxy/catalogue.py keeps it fresh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One declared input of a class.

    type: ComfyUI's word ("INT", "IMAGE", "COMBO", …). choices: of a combo, else None. options: the spec's second part (min, image_upload, …).
    """

    name: str
    type: str
    choices: tuple[Any, ...] | None
    options: Mapping[str, Any]
    is_required: bool


@dataclass(frozen=True, slots=True)
class NodeClass:
    name: str
    inputs: Mapping[str, InputSpec]
    hidden: frozenset[str]
    outputs: tuple[Any, ...]
    is_output_node: bool
    is_api_node: bool
    python_module: str
    display_name: str
    document: Mapping[str, Any]
    """As ComfyUI describes it; never changed."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    classes: Mapping[str, NodeClass] = field(default_factory=lambda: MappingProxyType({}))

    def get(self, class_type: str) -> NodeClass | None:
        return self.classes.get(class_type)


def read_catalogue(document: Any) -> Catalogue:
    """Reads the answer of /object_info. An entry that is not understood is left out, so its class is unknown and refused."""
    if not isinstance(document, dict):
        return Catalogue()
    classes = {}
    for name, entry in document.items():
        node_class = _read_class(name, entry)
        if node_class is not None:
            classes[name] = node_class
    return Catalogue(MappingProxyType(classes))


def _read_class(name: str, entry: Any) -> NodeClass | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("input"), dict):
        return None
    inputs: dict[str, InputSpec] = {}
    for section in ("required", "optional"):
        declared = entry["input"].get(section) or {}
        if not isinstance(declared, dict):
            return None
        for input_name, spec in declared.items():
            read = _read_input(input_name, spec, section == "required")
            if read is None:
                return None
            inputs[input_name] = read
    hidden = entry["input"].get("hidden") or {}
    outputs = entry.get("output") or ()
    return NodeClass(
        name=name,
        inputs=MappingProxyType(inputs),
        hidden=frozenset(hidden),
        outputs=tuple(outputs) if isinstance(outputs, list | tuple) else (),
        is_output_node=entry.get("output_node") is True,
        # Not every class that calls a paid service carries the flag, but all of them ask for its token (comfy_api_nodes).
        is_api_node=entry.get("api_node") is True or "auth_token_comfy_org" in hidden,
        python_module=str(entry.get("python_module", "")),
        display_name=str(entry.get("display_name", name)),
        document=entry,
    )


def _read_input(name: str, spec: Any, is_required: bool) -> InputSpec | None:
    if not isinstance(spec, list) or not spec:
        return None
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    kind = spec[0]
    choices: tuple[Any, ...] | None = None
    if isinstance(kind, list):
        kind, choices = "COMBO", tuple(kind)
    elif kind == "COMBO" and isinstance(options.get("options"), list):
        choices = tuple(options["options"])
    if not isinstance(kind, str):
        return None
    return InputSpec(name, kind, choices, MappingProxyType(options), is_required)
