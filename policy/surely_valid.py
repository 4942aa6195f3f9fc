"""Whether ComfyUI is certain to accept a workflow, as far as its catalogue tells (execution.py, validate_prompt). Where that is not certain it is asked.

Trusts the judge: no links go in a circle, and no chain of them is longer than ComfyUI can follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping
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
    """What is still to be looked at of nodes whose inputs have the same names and kinds. links: lists, with what may be linked.

    others: of whatever kind they are by now.
    """

    literals: tuple[tuple[str, Callable[[Any], bool]], ...]
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
    literals, links, others = [], [], []
    for check in declared:
        name, kind = check.name, kinds.get(check.name)
        if kind is dict or (kind is not None and name in rewritten):
            others.append(check)
        elif kind is list:
            links.append((name, check.kind))
        elif (
            kind is not None and check.takes is not _takes_all and not (check.takes is _is_scalar and kind in _SCALARS)
        ):
            literals.append((name, check.takes))
    return NodeChecks(tuple(literals), tuple(links), tuple(others))


def is_surely_valid(
    nodes: Mapping[str, Mapping[str, Any]], plans: Mapping[str, NodePlan], targets: Container[str] | None
) -> bool:
    """Whether ComfyUI accepts all of these nodes that an output needs. nodes, plans, targets: of a JudgedPrompt, in the names that ComfyUI gets."""
    outputs, doubted = [], set()
    for node_id, plan in plans.items():
        if plan.sure is None or not _are_valid(nodes[node_id]["inputs"], plan.sure, plans):
            doubted.add(node_id)
        if plan.is_output and (targets is None or node_id in targets):
            outputs.append(node_id)
    return bool(outputs) and (not doubted or doubted.isdisjoint(_needed_by(outputs, nodes)))


def _needed_by(outputs: Iterable[str], nodes: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The outputs and all nodes that they need: ComfyUI looks at no others."""
    waiting = list(outputs)
    found = set(waiting)
    while waiting:
        for value in nodes[waiting.pop()]["inputs"].values():
            if is_link(value) and value[0] in nodes and value[0] not in found:
                found.add(value[0])
                waiting.append(value[0])
    return found


def _are_valid(inputs: Mapping[str, Any], checks: NodeChecks, plans: Mapping[str, NodePlan]) -> bool:
    literals, links, others = checks
    for name, takes in literals:
        if not takes(inputs[name]):
            return False
    for name, kind in links:
        if not _is_fitting_link(inputs[name], kind, plans):
            return False
    for name, _, takes, kind in others:
        value = inputs[name]
        if not (_is_fitting_link(value, kind, plans) if type(value) is list else takes(value)):
            return False
    return True


def _is_fitting_link(value: list[Any], kind: str, plans: Mapping[str, NodePlan]) -> bool:
    """Lists that are no links are found by ComfyUI, not by the judge."""
    try:
        target, index = value
        made = plans[target].makes
        received = made[index]
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
    ):  # of other parts than two, to what is no node, to no such output
        return False
    if type(index) is not int or index < 0:
        return False
    return received == kind != "" or _fits(received, kind)


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
        return _whole(low, high) if spec.type == "INT" else _number(low, high)
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


def _whole(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Callable[[Any], bool]:
    """Whole numbers as far as all of them are floating-point numbers too."""
    return lambda value: (
        (type(value) is float or (type(value) is int and -_LARGEST_WHOLE <= value <= _LARGEST_WHOLE))
        and low <= value <= high
    )


def _one_of(choices: Iterable[Any]) -> Callable[[Any], bool]:
    """As in ComfyUI, 1 and true are one choice."""
    try:
        known = frozenset(choices)
    except TypeError:  # lists or objects among them
        return _takes_nothing
    return lambda value: type(value) in _SCALARS and value in known
