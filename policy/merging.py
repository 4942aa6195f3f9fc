"""The catalogues of several ComfyUIs as one: what at least one of them can run. Trusts ComfyUI's description of its classes.

A class is described as the first one that has it does, with the choices of all of them, the first one's first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from policy.catalogue import (
    AUTOGROW,
    DYNAMIC_COMBO,
    DYNAMIC_SLOT,
    Catalogue,
    Classes,
    NodeClass,
    each_input,
    read_class,
)
from policy.file_uses import uses_of
from policy.packed_texts import TextPlace, TextReader, pack
from policy.salt import is_core

_SECTIONS: Final = ("required", "optional")
_BOUNDS: Final = ("min", "max")


class Merged(NamedTuple):
    """catalogue: the union. parts: the catalogues as they were, in which what is equal stands once in memory."""

    catalogue: Catalogue
    parts: tuple[Catalogue, ...]


def merge(parts: Sequence[Catalogue], *, is_whole: bool = True) -> Merged:
    """Of some ComfyUIs, the first one's first. is_whole: of all that there are."""
    found: dict[str, list[TextPlace]] = {}
    shared = tuple(Catalogue(_share(part.classes, found)) for part in parts)
    return Merged(_unite(found, frozenset(), is_whole=is_whole), shared)


def merge_some(parts: Sequence[Catalogue], whole: Catalogue) -> Catalogue:
    """The union of some of the parts that `merge` gave with `whole`, whose texts it shares.

    SECURITY: what differs among all of them is told to differ: a job may come to be run by one that its tenant might not use when it was judged
    (test_merging.py::test_what_differs_elsewhere_differs_among_some).
    """
    found: dict[str, list[TextPlace]] = {}
    for part in parts:
        for name, place in part.classes.places.items():
            known = found.setdefault(name, [])
            if place not in known:
                known.append(place)
    return _unite(found, whole.differing, is_whole=whole.is_whole)


def _unite(found: Mapping[str, Sequence[TextPlace]], differing: frozenset[str], *, is_whole: bool) -> Catalogue:
    """found: descriptions by class, each once. differing: classes of which it is known already."""
    written: list[tuple[str, bytes]] = []
    also_differing: set[str] = set()
    read = TextReader().read
    for name, places in found.items():
        if len(places) > 1:
            entries = [orjson.loads(read(place)) for place in places]
            if len({shape_of(read_class(name, entry)) for entry in entries}) > 1:
                also_differing.add(name)
            written.append((name, orjson.dumps(_merge_entries(entries))))
    union = {name: places[0] for name, places in found.items()} | pack(written)
    return Catalogue(Classes(union), differing | also_differing, is_whole)


def shape_of(node_class: NodeClass, given: Sequence[str] | None = None) -> str:
    """Two descriptions of a class are alike for a node with these inputs, all where none are named, when this is the same of both: the types and bounds
    of its inputs, which of them name files, what it lacks, and what it makes. Its choices are not looked at.

    SECURITY: a workflow is judged by one of them. What another one reads a file by would go there as it came
    (tests/policy/test_merging.py::test_what_names_a_file_in_one_of_them_alone_differs).
    """
    names = None if given is None else frozenset(given)
    specs = [each for name, spec in node_class.inputs.items() for each in each_input(name, spec)]
    uses = uses_of(node_class, {spec.name: replace(spec, choices=None) for spec in specs})
    inputs = {
        (spec.name, spec.type, str(uses.get(spec.name)), *(orjson.dumps(spec.options.get(key)) for key in _BOUNDS))
        for spec in specs
        if names is None or spec.name in names
    }
    lacking = [
        name
        for name, spec in node_class.inputs.items()
        if spec.is_required and spec.type != AUTOGROW and (names is None or name not in names)
    ]
    makes = [kind if isinstance(kind, str) else "COMBO" for kind in node_class.outputs]
    shows = node_class.document.get("has_intermediate_output") is True
    about = [is_core(node_class), node_class.is_output_node, shows, makes, sorted(lacking), sorted(map(repr, inputs))]
    return blake2b(orjson.dumps(about), digest_size=8).hexdigest()


def _share(classes: Classes, found: dict[str, list[TextPlace]]) -> Classes:
    """The same classes, each where an equal description was found before, else in a text of their own. found: all descriptions so far, by class."""
    places: dict[str, TextPlace] = {}
    own: list[tuple[str, bytes]] = []
    read = TextReader().read
    for name, place in classes.places.items():
        described = read(place)
        known = next((other for other in found.get(name, ()) if read(other) == described), None)
        if known is None:
            own.append((name, described))
        else:
            places[name] = known
    packed = pack(own)
    for name, place in packed.items():
        found.setdefault(name, []).append(place)
    return Classes({name: places.get(name) or packed[name] for name in classes.places})


def _merge_entries(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = entries
    return {**first, "input": _merge_inputs(first["input"], [other["input"] for other in others])}


def _merge_inputs(first: Any, others: Sequence[Any]) -> Any:
    """`{"required": {…}, "optional": {…}}`."""
    if not isinstance(first, dict):
        return first
    merged = dict(first)
    for section in _SECTIONS:
        if isinstance(declared := first.get(section), dict):
            merged[section] = {
                name: _merge_spec(spec, [found for other in others if (found := _find_spec(other, name)) is not None])
                for name, spec in declared.items()
            }
    return merged


def _find_spec(sections: Any, name: str) -> list[Any] | None:
    for section in _SECTIONS:
        declared = sections.get(section) if isinstance(sections, dict) else None
        if isinstance(declared, dict) and isinstance(found := declared.get(name), list):
            return found
    return None


def _merge_spec(spec: Any, others: Sequence[list[Any]]) -> Any:
    if not isinstance(spec, list) or not spec:
        return spec
    kind, options = spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    if isinstance(kind, list):
        return [_merge_choices(kind, others), *spec[1:]]
    if kind == "COMBO" and isinstance(listed := options.get("options"), list):
        return [kind, {**options, "options": _merge_choices(listed, others)}, *spec[2:]]
    alike = [other[1] for other in others if other[0] == kind and len(other) > 1 and isinstance(other[1], dict)]
    if kind == DYNAMIC_COMBO and isinstance(listed := options.get("options"), list):
        return [kind, {**options, "options": _merge_options(listed, alike)}, *spec[2:]]
    if kind == DYNAMIC_SLOT:
        inputs = _merge_inputs(options.get("inputs"), [other.get("inputs") for other in alike])
        return [kind, {**options, "inputs": inputs}, *spec[2:]]
    return spec


def _merge_choices(listed: list[Any], others: Sequence[list[Any]]) -> list[Any]:
    """Those that others have besides follow, each once."""
    merged = {orjson.dumps(choice): choice for choice in listed}
    for spec in others:
        options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
        more = spec[0] if isinstance(spec[0], list) else options.get("options") if spec[0] == "COMBO" else None
        for choice in more if isinstance(more, list) else ():
            merged.setdefault(orjson.dumps(choice), choice)
    return list(merged.values())


def _merge_options(listed: list[Any], others: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The options of a dynamic combo, by key."""
    by_key: dict[str, list[dict[str, Any]]] = {}
    for options in (listed, *(other.get("options") for other in others)):
        for option in options if isinstance(options, list) else ():
            if isinstance(option, dict) and isinstance(key := option.get("key"), str):
                by_key.setdefault(key, []).append(option)
    return [
        {**first, "inputs": _merge_inputs(first.get("inputs"), [other.get("inputs") for other in rest])}
        for first, *rest in by_key.values()
    ]
