"""Whether ComfyUI is certain to accept a workflow, as far as its catalogue tells (execution.py, validate_prompt). Where that is not certain it is asked.

Trusts the judge: no links go in a circle, and no chain of them is longer than ComfyUI can follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from policy.catalogue import (
    AUTOGROW,
    DYNAMIC_COMBO,
    DYNAMIC_SLOT,
    DYNAMIC_TYPES,
    InputSpec,
    NodeClass,
    list_options,
    read_inputs,
)
from policy.workflow import is_link

if TYPE_CHECKING:
    from policy.node_plan import NodePlan

# What comes with ComfyUI itself. Of other classes no description says whether they check by themselves.
_MODULES: Final = frozenset({"nodes", "comfy_extras"})
# Those of them that do (VALIDATE_INPUTS, validate_inputs), as ComfyUI 0.33 has them.
_CHECKING_WORDS = (
    "CustomCombo Load3D Load3DAdvanced LoadAudio LoadImage LoadImageMask LoadImageOutput LoadLatent LoadVideo "
    "ModelAttentionBackend SelectCLIPDevice SelectModelDevice SelectVAEDevice SoftSwitchNode WebcamCapture"
)
_CHECKING: Final = frozenset(_CHECKING_WORDS.split())
_ANYTHING: Final = "*"
_MATCHED: Final = "COMFY_MATCHTYPE_V3"
"""The web UI looks after these types; ComfyUI lets them pass (comfy_execution/validation.py)."""
_FREE: Final = frozenset({_ANYTHING, _MATCHED})
_SCALARS: Final = frozenset({str, int, float, bool, NoneType})
_LARGEST_WHOLE: Final = 2**53


class InputCheck(NamedTuple):
    """takes: whether a value that is no link is certain to be accepted. kind: what may be linked; "" where only what fits everything may."""

    name: str
    is_required: bool
    takes: Callable[[Any], bool]
    kind: str


class NodeChecks(NamedTuple):
    """What is still to be looked at of nodes whose inputs have the same names and kinds. ranges: numbers. choices: what a value must be among.

    links: lists, with what may be linked. others: of whatever kind they are by now.
    """

    ranges: tuple[tuple[str, float, float], ...]
    choices: tuple[tuple[str, frozenset[Any]], ...]
    links: tuple[tuple[str, str], ...]
    others: tuple[InputCheck, ...]


def compile_checks(node_class: NodeClass, specs: Mapping[str, InputSpec]) -> tuple[InputCheck, ...] | None:
    """For nodes of this class that declare these inputs (expand_inputs); None where nothing is certain."""
    if node_class.python_module.partition(".")[0] not in _MODULES or node_class.name in _CHECKING:
        return None
    if not all(_is_understood(spec, specs) for spec in node_class.inputs.values()):
        return None
    return tuple(InputCheck(name, spec.is_required, _literals_of(spec), _kind_of(spec)) for name, spec in specs.items())


def narrow_checks(
    declared: tuple[InputCheck, ...] | None, kinds: Mapping[str, type], rewritten: Container[str]
) -> NodeChecks | None:
    """kinds: of the inputs that a node has, by name. rewritten: those whose values become others. None where nothing is certain of such a node."""
    if declared is None or any(check.is_required and check.name not in kinds for check in declared):
        return None
    ranges, choices, links, others = [], [], [], []
    for check in declared:
        name, takes, kind = check.name, check.takes, kinds.get(check.name)
        if kind is None:
            continue
        if kind is str and (takes is _takes_all or takes is _is_scalar):
            continue  # a text that is written anew is a text
        if kind is dict or name in rewritten:
            others.append(check)
        elif kind is list:
            links.append((name, check.kind))
        elif isinstance(takes, _Number):
            if (bounds := takes.bounds_of(kind)) is None:
                return None
            ranges.append((name, *bounds))
        elif isinstance(takes, _Choice):
            choices.append((name, takes.known))
        elif takes is _takes_nothing:
            return None
    return NodeChecks(tuple(ranges), tuple(choices), tuple(links), tuple(others))


def is_surely_valid(
    nodes: Mapping[str, Mapping[str, Any]],
    plans: Mapping[str, NodePlan],
    outputs: Sequence[str],
    unproven: Iterable[str] | None = None,
) -> bool:
    """Whether ComfyUI accepts all of these nodes that an output needs. nodes, plans: of a JudgedPrompt, in the names that ComfyUI gets.

    outputs: those that were asked for. unproven: of the nodes that are still to be looked at, all without it.
    """
    doubted = set()
    for node_id in plans if unproven is None else unproven:
        checks = plans[node_id].sure
        if checks is None or not is_valid(nodes[node_id]["inputs"], checks, plans):
            doubted.add(node_id)
    return bool(outputs) and (not doubted or doubted.isdisjoint(needed_by(outputs, nodes)))


def needed_by(outputs: Iterable[str], nodes: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The outputs and all nodes that they need: ComfyUI looks at the inputs of no others."""
    waiting = list(outputs)
    found = set(waiting)
    while waiting:
        for value in nodes[waiting.pop()]["inputs"].values():
            if is_link(value) and value[0] in nodes and value[0] not in found:
                found.add(value[0])
                waiting.append(value[0])
    return found


def is_valid(inputs: Mapping[str, Any], checks: NodeChecks, plans: Mapping[str, NodePlan]) -> bool:
    """Whether ComfyUI is certain to accept these inputs of a node. plans: of the nodes that it links to, at least."""
    ranges, choices, links, others = checks
    for name, low, high in ranges:
        if not low <= inputs[name] <= high:
            return False
    for name, known in choices:
        if inputs[name] not in known:
            return False
    for name, _, takes, kind in others:
        value = inputs[name]
        if type(value) is list:
            links = (*links, (name, kind))
        elif not takes(value):
            return False
    return not links or _are_fitting(inputs, links, plans)


def _are_fitting(inputs: Mapping[str, Any], links: Iterable[tuple[str, str]], plans: Mapping[str, NodePlan]) -> bool:
    """Lists that are no links are found by ComfyUI, not by the judge."""
    try:
        for name, kind in links:
            target, index = inputs[name]
            received = plans[target].makes[index]
            if type(index) is not int or index < 0:
                return False
            if (received != kind or not kind) and not _fits(received, kind):
                return False
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
    ):  # of other parts than two, to what is no node, to no such output
        return False
    return True


def _is_understood(spec: InputSpec, specs: Mapping[str, InputSpec]) -> bool:
    """Whether the gate knows what a dynamic input brings with it: not for those within others."""
    if spec.type == AUTOGROW:
        return any(name.startswith(f"{spec.name}.") for name in specs)
    if spec.type == DYNAMIC_COMBO:
        options = spec.options.get("options")
        sections = [read_inputs(option.get("inputs")) for option in list_options(spec)]
        is_whole = isinstance(options, list) and len(options) == len(sections)
        return is_whole and all(
            section is not None and not any(inner.type in DYNAMIC_TYPES for inner in section) for section in sections
        )
    return spec.type != DYNAMIC_SLOT


def _fits(received: Any, wanted: str) -> bool:
    """Whether an output may be linked to an input of another type (comfy_execution/validation.py, validate_node_input)."""
    return type(received) is str and _have_common(received, wanted)


@lru_cache(maxsize=1024)
def _have_common(received: str, wanted: str) -> bool:
    if received in _FREE or wanted in _FREE:
        return True
    if not wanted:
        return False
    given, taken = ({kind.strip() for kind in text.split(",")} for text in (received, wanted))
    return _ANYTHING in given | taken or not given.isdisjoint(taken)


def _kind_of(spec: InputSpec) -> str:
    """A list of choices is declared in two ways, one of which no output fits."""
    return "" if spec.type == "COMBO" or spec.type in DYNAMIC_TYPES else spec.type


def _literals_of(spec: InputSpec) -> Callable[[Any], bool]:
    options = spec.options
    if spec.type in ("INT", "FLOAT"):
        low, high = options.get("min", -math.inf), options.get("max", math.inf)
        if type(low) not in (int, float) or type(high) not in (int, float):
            return _takes_nothing
        return _Number(low, high, spec.type == "INT")
    if "min" in options or "max" in options:  # compared with what may be no number
        return _takes_nothing
    if spec.type in ("STRING", "BOOLEAN"):
        return _is_scalar
    if spec.type == DYNAMIC_COMBO:
        return _one_of(option["key"] for option in list_options(spec))
    if spec.type == "COMBO":
        return _one_of(spec.choices or ())
    return _takes_all  # ComfyUI does not look at it


def _takes_nothing(value: Any) -> bool:
    return False


def _takes_all(value: Any) -> bool:
    return True


def _is_scalar(value: Any) -> bool:
    """What can be written as a text, and is true or false."""
    return type(value) in _SCALARS


@dataclass(frozen=True, slots=True)
class _Number:
    """is_whole: of whole numbers only. Others may be whole too, as far as all of these are floating-point numbers."""

    low: float
    high: float
    is_whole: bool

    def __call__(self, value: Any) -> bool:
        bounds = self.bounds_of(type(value))
        return bounds is not None and bounds[0] <= value <= bounds[1]

    def bounds_of(self, kind: type) -> tuple[float, float] | None:
        """For values of a kind; None where none of them is certain to be accepted."""
        if kind is int:
            low, high = (-math.inf, math.inf) if self.is_whole else (-_LARGEST_WHOLE, _LARGEST_WHOLE)
            return max(self.low, low), min(self.high, high)
        return (self.low, self.high) if kind is float and not self.is_whole else None


@dataclass(frozen=True, slots=True)
class _Choice:
    """As in ComfyUI, 1 and true are one choice."""

    known: frozenset[Any]

    def __call__(self, value: Any) -> bool:
        return type(value) in _SCALARS and value in self.known


def _one_of(choices: Iterable[Any]) -> Callable[[Any], bool]:
    try:
        return _Choice(frozenset(choices))
    except TypeError:  # lists or objects among them
        return _takes_nothing
