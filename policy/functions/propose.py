"""Proposes a function's file for a workflow: titles of nodes become names, the catalogue gives types and bounds.

What a person wants to say in a call (texts, files, seeds) becomes a parameter; other numbers and choices stand there as comments, to be taken in by
taking the comment sign away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from policy.catalogue import Catalogue, InputSpec, NodeClass, expand_inputs
from policy.functions.settings import NAME
from policy.toml_text import quote

_UPLOADS: Final = {"image_upload": "image", "audio_upload": "audio", "video_upload": "video"}
_SEEDS: Final = frozenset({"seed", "noise_seed"})
_MAX_CHOICES: Final = 50
_COMMON: Final = frozenset({"text", "value", "image", "string", "prompt", "audio", "file", "video"})
"""Inputs whose own name says less than the title of their node."""


@dataclass
class _Proposal:
    """lines: of the table, without its head."""

    name: str
    place: str
    is_wanted: bool
    lines: list[str] = field(default_factory=list)


def propose(name: str, graph: Mapping[str, Any], catalogue: Catalogue) -> str:
    """The text of `NAME.toml`. graph: in the API format."""
    taken: set[str] = set()
    wanted: list[_Proposal] = []
    others: list[_Proposal] = []
    for node_id, node in graph.items():
        node_class = catalogue.get(node["class_type"])
        if node_class is not None:
            for proposal in _propose_node(node_id, node, node_class, taken):
                (wanted if proposal.is_wanted else others).append(proposal)
    parts = [
        f"# Of the workflow {name}.json. `comfygate check` says what does not fit; the comments are what could be a parameter too.",
        f"title = {quote(_title_of(name))}",
        'description = ""',
        "",
        *(line for proposal in wanted for line in _table(proposal)),
        *(f"# {line}".rstrip() for proposal in others for line in _table(proposal)),
        *_outputs(graph, catalogue),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _table(proposal: _Proposal) -> list[str]:
    return [f"[parameters.{proposal.name}]", *proposal.lines, f"fills = [{quote(proposal.place)}]", ""]


def _propose_node(node_id: str, node: Mapping[str, Any], node_class: NodeClass, taken: set[str]) -> Iterator[_Proposal]:
    title = _meta_title(node) or node_class.display_name
    for input_name, spec in expand_inputs(node_class, node["inputs"]).items():
        current = node["inputs"].get(input_name)
        if input_name not in node["inputs"] or isinstance(current, list | dict):
            continue
        described = _describe(input_name, spec, current)
        if described is None:
            continue
        is_wanted, lines = described
        label = _label(title, input_name)
        name = _free_name(label if label in (title, "Seed") else f"{title} {input_name}", taken)
        yield _Proposal(name, f"{node_id}.{input_name}", is_wanted, [f"title = {quote(label)}", *lines])


def _label(title: str, input_name: str) -> str:
    if input_name in _SEEDS:
        return "Seed"
    return title if input_name in _COMMON else input_name


def _describe(input_name: str, spec: InputSpec, current: Any) -> tuple[bool, list[str]] | None:
    """Whether it should be a parameter, and its lines; None for what cannot be one."""
    for option, kind in _UPLOADS.items():
        if spec.options.get(option):
            return True, [f'type = "{kind}"', "optional = true  # without it the workflow's own file"]
    if spec.type == "STRING" and isinstance(current, str):
        is_prompt = spec.options.get("multiline") is True
        return is_prompt, ['type = "text"', f"default = {quote(current)}"]
    if spec.type == "INT" and input_name in _SEEDS:
        return True, ['type = "seed"']
    if spec.type in ("INT", "FLOAT") and isinstance(current, int | float) and not isinstance(current, bool):
        kind = "integer" if spec.type == "INT" else "number"
        bounds = [f"{key} = {spec.options[key]!r}" for key in ("min", "max") if _is_number(spec.options.get(key))]
        return False, [f'type = "{kind}"', f"default = {current!r}", *bounds]
    if spec.type == "BOOLEAN" and isinstance(current, bool):
        return False, ['type = "boolean"', f"default = {str(current).lower()}"]
    if spec.choices is not None and isinstance(current, str) and len(spec.choices) <= _MAX_CHOICES:
        choices = [choice for choice in spec.choices if isinstance(choice, str)]
        if current in choices:
            listed = ", ".join(map(quote, choices))
            return False, ['type = "choice"', f"default = {quote(current)}", f"choices = [{listed}]"]
    return None


def _is_number(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < 2**53


def _outputs(graph: Mapping[str, Any], catalogue: Catalogue) -> list[str]:
    taken: set[str] = set()
    lines: list[str] = []
    for node_id, node in graph.items():
        node_class = catalogue.get(node["class_type"])
        if node_class is not None and node_class.is_output_node:
            name = _free_name(_meta_title(node) or node_class.display_name, taken)
            lines += [f"[outputs.{name}]", f"node = {quote(node_id)}", ""]
    return lines


def _meta_title(node: Mapping[str, Any]) -> str:
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return title if isinstance(title, str) else ""


def _title_of(name: str) -> str:
    words = name.replace("-", " ").replace("_", " ")
    return words[:1].upper() + words[1:]


def _free_name(title: str, taken: set[str]) -> str:
    """A name for a title: "CLIP Text Encode (Positive)" is clip_text_encode_positive; a second one of it gets a number."""
    plain = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")[:40] or "value"
    name, count = plain, 1
    while name in taken:
        count += 1
        name = f"{plain}_{count}"
    taken.add(name)
    assert NAME.fullmatch(name), "made of nothing else"
    return name
