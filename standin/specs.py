"""How a node class describes itself: the facts behind GET /object_info, and their two wire shapes.

Old-style classes (ComfyUI calls them V1) and new-style ones (V3) are written differently on the wire; both are kept.
Titles, types, limits and defaults are those of ComfyUI 0.33.0; tooltips and descriptions are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from standin.folders import Folders

Listing = Callable[[Folders], list[str]]
AUTOGROW = "COMFY_AUTOGROW_V3"
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"


@dataclass(frozen=True)
class Input:
    kind: str
    options: Mapping[str, Any] | None = None
    choices: list[str] | Listing | None = None

    def describe(self, folders: Folders, *, is_new_style: bool) -> list[Any]:
        if self.choices is None:
            if self.options is None and not is_new_style:
                return [self.kind]
            return [self.kind, dict(self.options or {})]
        choices = self.choices(folders) if callable(self.choices) else list(self.choices)
        if is_new_style:
            return ["COMBO", {"multiselect": False, "options": choices, **(self.options or {})}]
        return [choices] if self.options is None else [choices, dict(self.options)]


def typed(kind: str, **options: Any) -> Input:
    return Input(kind, options or None)


def choice(choices: list[str] | Listing, **options: Any) -> Input:
    return Input("COMBO", options or None, choices)


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    name: str
    title: str
    category: str
    module: str
    is_new_style: bool = False
    required: Mapping[str, Input] = field(default_factory=dict)
    optional: Mapping[str, Input] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    output_names: tuple[str, ...] | None = None
    output_is_list: tuple[bool, ...] | None = None
    output_matchtypes: tuple[str, ...] | None = None
    is_output: bool = False
    takes_lists: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_api: bool = False
    has_intermediate_output: bool = False
    essentials: str | None = None

    def inputs(self, folders: Folders) -> dict[str, dict[str, Any]]:
        """The input table as ComfyUI's validation sees it: part, name, then [type, options]."""
        table: dict[str, dict[str, Any]] = {}
        for part, entries in (("required", self.required), ("optional", self.optional)):
            if entries or part == "required":
                table[part] = {k: v.describe(folders, is_new_style=self.is_new_style) for k, v in entries.items()}
        if self.hidden:
            table["hidden"] = {k: [k.upper()] if self.is_new_style else k.upper() for k in self.hidden}
        return table

    def describe(self, folders: Folders) -> dict[str, Any]:
        """The class's value in GET /object_info."""
        inputs = self.inputs(folders)
        info: dict[str, Any] = {
            "input": inputs,
            "input_order": {part: list(entries) for part, entries in inputs.items()},
            "is_input_list": self.takes_lists,
            "output": list(self.outputs),
            "output_is_list": list(self.output_is_list or [False] * len(self.outputs)),
            "output_name": list(self.output_names or self.outputs),
            "name": self.name,
            "display_name": self.title,
            "description": "",
            "python_module": self.module,
            "category": self.category,
            "output_node": self.is_output,
            "has_intermediate_output": self.has_intermediate_output,
        }
        return info | (self._new_style_flags() if self.is_new_style else self._old_style_flags())

    def _new_style_flags(self) -> dict[str, Any]:
        return {
            "output_tooltips": [None] * len(self.outputs),
            "output_matchtypes": list(self.output_matchtypes) if self.output_matchtypes else None,
            "deprecated": self.is_deprecated,
            "experimental": self.is_experimental,
            "dev_only": False,
            "api_node": self.is_api,
            "price_badge": None,
            "search_aliases": None,
            "essentials_category": self.essentials,
        }

    def _old_style_flags(self) -> dict[str, Any]:
        flags: dict[str, Any] = {"search_aliases": []}
        if self.is_deprecated:
            flags["deprecated"] = True
        if self.is_experimental:
            flags["experimental"] = True
        if self.essentials:
            flags["essentials_category"] = self.essentials
        return flags


def expand_inputs(spec: NodeSpec, given: Mapping[str, Any], folders: Folders) -> dict[str, dict[str, Any]]:
    """The input table with growing and dynamic inputs resolved for the inputs a prompt gives."""
    table = spec.inputs(folders)
    if not spec.is_new_style:
        return table
    grown: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
    for part in ("required", "optional"):
        _expand_part(table.get(part, {}), part, "", given, grown)
    return grown | ({"hidden": table["hidden"]} if "hidden" in table else {})


def _expand_part(
    entries: Mapping[str, Any], part: str, prefix: str, given: Mapping[str, Any], grown: dict[str, dict[str, Any]]
) -> None:
    for name, entry in entries.items():
        path = f"{prefix}.{name}" if prefix else name
        if entry[0] == AUTOGROW:
            _expand_autogrow(entry[1]["template"], path, grown)
        elif entry[0] == DYNAMIC_COMBO:
            # An option that does not exist adds nothing, not even an error (comfy_api/latest/_io.py).
            for option in entry[1]["options"]:
                if path in given and option["key"] == given[path]:
                    grown[part][path] = entry
                    for inner_part, inner in option["inputs"].items():
                        _expand_part(inner, inner_part, path, given, grown)
        else:
            grown[part][path] = entry


def _expand_autogrow(template: Mapping[str, Any], path: str, grown: dict[str, dict[str, Any]]) -> None:
    names = template.get("names") or [f"{template['prefix']}{index}" for index in range(template["max"])]
    entry = next(iter(template["input"]["required"].values()))
    for index, name in enumerate(names):
        grown["required" if index < template["min"] else "optional"][f"{path}.{name}"] = entry
