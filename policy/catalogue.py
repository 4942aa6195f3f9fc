"""What ComfyUI can run, read from its /object_info: classes, their inputs and outputs. A value; proxy/upstream/node_catalogue.py keeps it fresh."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import orjson

from policy.document import read_upstream_json
from policy.members import each_member
from policy.packed_texts import TextPlace, TextReader, pack

AUTOGROW: Final = "COMFY_AUTOGROW_V3"
DYNAMIC_COMBO: Final = "COMFY_DYNAMICCOMBO_V3"
DYNAMIC_SLOT: Final = "COMFY_DYNAMICSLOT_V3"
DYNAMIC_TYPES: Final = frozenset({AUTOGROW, DYNAMIC_COMBO, DYNAMIC_SLOT})
MAX_GROWN: Final = 100  # Autogrow._MaxNames


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


class Classes(Mapping[str, NodeClass]):
    """Classes by name, each read when it is first looked up: of a thousand that ComfyUI has, tenants use some dozens.

    places: of the descriptions, each of which was understood: they stand packed, since as text they would be the largest thing that a quiet gate holds.
    """

    __slots__ = ("_choices", "_read", "places")

    def __init__(self, places: Mapping[str, TextPlace] = MappingProxyType({})) -> None:
        self.places = places
        self._read: dict[str, NodeClass] = {}
        self._choices: dict[str, Mapping[str, frozenset[str]]] = {}

    def __getitem__(self, name: str) -> NodeClass:
        node_class = self._read.get(name)
        if node_class is None:
            node_class = self._read[name] = self._read_anew(name)
        return node_class

    def get(self, name: str, default: Any = None) -> Any:
        return self._read.get(name) or (self[name] if name in self.places else default)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def in_turn(self, is_wanted: Callable[[str], bool]) -> Iterator[NodeClass]:
        """Those whose names are wanted, for one look each: none is kept for that."""
        read = TextReader().read
        for name, place in self.places.items():
            if is_wanted(name):
                yield self._read.get(name) or read_class(name, orjson.loads(read(place)))

    def choices_of(self, name: str) -> Mapping[str, frozenset[str]]:
        """What may be chosen in each input of a class that there is, whatever is chosen in the others."""
        choices = self._choices.get(name)
        if choices is None:
            choices = self._choices[name] = _list_all_choices(self._read.get(name) or self._read_anew(name))
        return choices

    def _read_anew(self, name: str) -> NodeClass:
        return read_class(name, orjson.loads(self.places[name].text()))


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Catalogue:
    """differing: classes that are not the same in all ComfyUIs, where there are several (policy/merging.py). is_whole: all of them have told what they have."""

    classes: Classes = field(default_factory=Classes)
    differing: frozenset[str] = frozenset()
    is_whole: bool = True

    def get(self, class_type: str) -> NodeClass | None:
        node_class: NodeClass | None = self.classes.get(class_type)
        return node_class


def read_catalogue(document: Any) -> Catalogue:
    """Reads the answer of /object_info. An entry that is not understood is left out, so its class is unknown and refused."""
    return _read_classes(document.items() if isinstance(document, dict) else ())


def read_catalogue_text(body: bytes) -> Catalogue | None:
    """As read_catalogue, of a document whose whole is never there: it takes ten times the memory of its text. None for what is no JSON object."""
    try:
        return _read_classes(each_member(body.decode("utf-8", "replace")))
    except ValueError:
        return None


def _read_classes(members: Iterable[tuple[str, Any]]) -> Catalogue:
    return Catalogue(Classes(pack(_each_understood(members))))


def _each_understood(members: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """Names and texts of descriptions."""
    for name, found in members:
        entry, written = _write(found)
        if _read_class(name, entry) is not None:
            # A name of its own: that of the document would keep the memory around it from being given back.
            yield name.encode("utf-8", "replace").decode(), written


def _write(entry: Any) -> tuple[Any, bytes]:
    """A value that can be read again, and its text; None for one that nests too deeply."""
    try:
        return entry, orjson.dumps(entry)
    except TypeError:
        pass
    try:  # a number that is larger than others take, half a letter
        entry = read_upstream_json(json.dumps(entry))
        return entry, orjson.dumps(entry)
    except (TypeError, RecursionError):
        return None, b""


def read_class(name: str, entry: Any) -> NodeClass:
    """One that was understood before."""
    node_class = _read_class(name, entry)
    assert node_class is not None, "it was understood before"
    return node_class


def _read_class(name: str, entry: Any) -> NodeClass | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("input"), dict):
        return None
    specs = read_inputs(entry["input"])
    if specs is None:
        return None
    inputs = {spec.name: spec for spec in specs}
    hidden = entry["input"].get("hidden")
    hidden = hidden if isinstance(hidden, dict) else {}
    outputs = entry.get("output") or ()
    return NodeClass(
        name=name,
        inputs=MappingProxyType(inputs),
        hidden=frozenset(hidden),
        outputs=tuple(outputs) if isinstance(outputs, list | tuple) else (),
        is_output_node=entry.get("output_node") is True,
        # Not every class that calls a paid service carries the flag, but all of them ask for its token (comfy_api_nodes).
        is_api_node=entry.get("api_node") is True or any(_asks_for_token(kind) for kind in hidden.values()),
        python_module=str(entry.get("python_module", "")),
        display_name=str(entry.get("display_name", name)),
        document=entry,
    )


def _asks_for_token(kind: Any) -> bool:
    return kind == "AUTH_TOKEN_COMFY_ORG" or (isinstance(kind, list) and kind[:1] == ["AUTH_TOKEN_COMFY_ORG"])


def expand_inputs(node_class: NodeClass, given: Mapping[str, Any]) -> dict[str, InputSpec]:
    """The inputs that a node of this class declares when it is `given` these values, by the names a workflow uses.

    ComfyUI's dynamic inputs (comfy_api/latest/_io.py, get_finalized_class_inputs) are lists that grow ("images.image0"), choices that
    bring inputs of their own ("resize_type.width", by the chosen key) and slots that bring some when they are filled.
    """
    expanded: dict[str, InputSpec] = {}
    for name, spec in node_class.inputs.items():
        _expand(expanded, name, spec, given)
    return expanded


def _expand(expanded: dict[str, InputSpec], name: str, spec: InputSpec, given: Mapping[str, Any]) -> None:
    if spec.type == AUTOGROW:
        expanded.update(_read_growing(name, spec.options.get("template")))
        return
    expanded[name] = InputSpec(name, spec.type, spec.choices, spec.options, spec.is_required)
    if spec.type == DYNAMIC_SLOT and name in given:
        _expand_section(expanded, name, spec.options.get("inputs"), given)
    elif spec.type == DYNAMIC_COMBO:
        for option in list_options(spec):
            if option["key"] == given.get(name):
                _expand_section(expanded, name, option.get("inputs"), given)
                break


def _expand_section(expanded: dict[str, InputSpec], prefix: str, inputs: Any, given: Mapping[str, Any]) -> None:
    for spec in read_inputs(inputs) or ():
        _expand(expanded, f"{prefix}.{spec.name}", spec, given)


def _list_all_choices(node_class: NodeClass) -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for name, spec in node_class.inputs.items():
        for each in each_input(name, spec):
            if choices := list_choices(each):
                found[each.name] = found.get(each.name, frozenset()) | frozenset(choices)
    return found


def each_input(name: str, spec: InputSpec) -> Iterator[InputSpec]:
    """An input and all that it may bring with it, by the names a workflow uses. Some may have one name."""
    if spec.type == AUTOGROW:
        yield from _read_growing(name, spec.options.get("template")).values()
        return
    yield InputSpec(name, spec.type, spec.choices, spec.options, spec.is_required)
    sections = [option.get("inputs") for option in list_options(spec)] if spec.type == DYNAMIC_COMBO else []
    sections += [spec.options.get("inputs")] if spec.type == DYNAMIC_SLOT else []
    for section in sections:
        for inner in read_inputs(section) or ():
            yield from each_input(f"{name}.{inner.name}", inner)


def list_choices(spec: InputSpec) -> list[str]:
    """The texts that an input may be, where its description lists them."""
    if spec.type == DYNAMIC_COMBO:
        return [option["key"] for option in list_options(spec)]
    return [choice for choice in spec.choices or () if isinstance(choice, str)]


def list_options(spec: InputSpec) -> list[dict[str, Any]]:
    """The options of a dynamic combo that are understood: objects with a string `key`."""
    options = spec.options.get("options")
    return [
        option
        for option in (options if isinstance(options, list) else ())
        if isinstance(option, dict) and isinstance(option.get("key"), str)
    ]


def _read_growing(prefix: str, template: Any) -> dict[str, InputSpec]:
    """The inputs of an autogrow list: `<id>.<name>` for each name, or `<id>.<prefix><n>` up to its max."""
    if not isinstance(template, dict):
        return {}
    specs = read_inputs(template.get("input"))
    names = template.get("names")
    if names is None and isinstance(template.get("prefix"), str) and type(template.get("max")) is int:
        names = [f"{template['prefix']}{index}" for index in range(min(template["max"], MAX_GROWN))]
    if not specs or not isinstance(names, list):
        return {}
    needed = template.get("min")
    count = needed if type(needed) is int and specs[0].is_required else 0
    return {
        f"{prefix}.{name}": InputSpec(
            f"{prefix}.{name}", specs[0].type, specs[0].choices, specs[0].options, index < count
        )
        for index, name in enumerate(names)
    }


def read_inputs(sections: Any) -> list[InputSpec] | None:
    """The inputs of `{"required": {…}, "optional": {…}}`, None when one is not understood."""
    inputs = []
    for section in ("required", "optional"):
        declared = (sections.get(section) if isinstance(sections, dict) else None) or {}
        if not isinstance(declared, dict):
            return None
        for name, spec in declared.items():
            read = _read_input(name, spec, section == "required")
            if read is None:
                return None
            inputs.append(read)
    return inputs


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
