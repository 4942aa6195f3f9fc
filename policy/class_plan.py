"""What a policy asks of one class: worked out once for each class, so that judging a node is a few look-ups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from policy.catalogue import (
    DYNAMIC_COMBO,
    DYNAMIC_SLOT,
    DYNAMIC_TYPES,
    InputSpec,
    NodeClass,
    expand_inputs,
    list_options,
    read_inputs,
)
from policy.constraints import BoundBudget, Constraint, Constraints, bind_budget
from policy.file_uses import FileUse, uses_of
from policy.salt import needs_salt
from policy.settings import Budget
from policy.surely_valid import InputCheck, compile_checks

if TYPE_CHECKING:
    from policy.node_plan import NodePlan

_PLAIN_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC_COMBO})
# What only nodes make. ComfyUI does not look at a literal here; a node that is given text for an image fails at best, and opens it
# as a path at worst.
_LINK_WORDS = (
    "AUDIO AUDIO_ENCODER AUDIO_ENCODER_OUTPUT CLIP CLIP_VISION CLIP_VISION_OUTPUT CONDITIONING CONTROL_NET FILE_3D "
    "FILE_3D_FBX FILE_3D_GLB FILE_3D_GLTF FILE_3D_KSPLAT FILE_3D_OBJ FILE_3D_PLY FILE_3D_POINT_CLOUD_ANY FILE_3D_SPLAT "
    "FILE_3D_SPLAT_ANY FILE_3D_SPZ FILE_3D_STL FILE_3D_USDZ GLIGEN GUIDER HOOKS HOOK_KEYFRAMES IMAGE LATENT "
    "LATENT_OPERATION LATENT_UPSCALE_MODEL LORA_MODEL MASK MESH MODEL MODEL_PATCH NOISE PHOTOMAKER SAMPLER SIGMAS SPLAT "
    "STYLE_MODEL SVG TIMESTEPS_RANGE UPSCALE_MODEL VAE VIDEO VOXEL"
)
_LINK_TYPES = frozenset(_LINK_WORDS.split())
# What the time of a job depends on most; like workflows are known by these (JudgedPrompt.workflow_hash).
_COST_WORDS = (
    "steps width height batch_size length frames num_frames duration seconds megapixels upscale_by scale_by multiplier "
    "amount ckpt_name unet_name"
)
_COST_INPUTS = frozenset(_COST_WORDS.split())
MAX_VARIANTS: Final = 1000

# ComfyUI's own constants (comfy_extras/nodes_primitive.py): each hands on the value it is given.
_CONSTANTS = frozenset(
    {"PrimitiveString", "PrimitiveStringMultiline", "PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean"}
)


@dataclass(frozen=True, slots=True)
class BoundInput:
    """A declared input with the lines that bind it."""

    spec: InputSpec
    constraints: tuple[Constraint, ...]


@dataclass(frozen=True, slots=True)
class InputPlan:
    """What the declared inputs of a node are. lists: those that take one as `{"__value__": […]}`.

    made: those whose values only nodes make. cost: those that the time depends on. uses: those that name files. needs_salt: see policy/salt.py.
    sure: what ComfyUI is certain to accept (policy/surely_valid.py).
    """

    specs: Mapping[str, InputSpec]
    lists: frozenset[str]
    made: frozenset[str]
    bound: tuple[BoundInput, ...]
    budgets: tuple[BoundBudget, ...]
    cost: tuple[str, ...]
    uses: Mapping[str, FileUse]
    needs_salt: bool
    sure: tuple[InputCheck, ...] | None
    listed: dict[str, frozenset[str]] = field(default_factory=dict)
    """Kept by policy.workflow_needs."""


@dataclass(frozen=True, slots=True)
class ClassPlan:
    """Everything that judging needs to know of a permitted class. undeclared: what binds inputs that it does not declare, as far as known.

    factors: names of inputs that some budget counts. nodes: plans of nodes that came, by policy/node_plan.py.
    """

    node_class: NodeClass
    constraints: Constraints
    budgets: Mapping[str, Budget]
    output_count: int
    is_constant: bool
    fixed: InputPlan | None
    dynamic_inputs: tuple[tuple[str, frozenset[str]], ...]
    variants: dict[tuple[Any, ...], InputPlan] = field(default_factory=dict)
    undeclared: dict[str, BoundInput | None] = field(default_factory=dict)
    factors: frozenset[str] = frozenset()
    nodes: dict[tuple[Any, ...], NodePlan] = field(default_factory=dict)

    def choice_of(self, given: Mapping[str, Any]) -> tuple[str | bool | None, ...]:
        """What a node with these inputs has chosen, of all that decides which inputs it declares."""
        return tuple(
            (value if type(value := given.get(name)) is str and value in keys else None) if keys else name in given
            for name, keys in self.dynamic_inputs
        )

    def inputs_for(self, given: Mapping[str, Any]) -> InputPlan:
        """The plan for a node with these inputs: they matter only where a class has dynamic ones."""
        if self.fixed is not None:
            return self.fixed
        choice = self.choice_of(given)
        plan = self.variants.get(choice)
        if plan is None:
            plan = plan_inputs(self.node_class, expand_inputs(self.node_class, given), self.constraints, self.budgets)
            if len(self.variants) < MAX_VARIANTS:
                self.variants[choice] = plan
        return plan


def plan_class(node_class: NodeClass, constraints: Constraints, budgets: Mapping[str, Budget]) -> ClassPlan:
    is_dynamic = any(spec.type in DYNAMIC_TYPES for spec in node_class.inputs.values())
    dynamic_inputs: dict[str, frozenset[str]] = {}
    for name, spec in node_class.inputs.items():
        _collect_choosers(dynamic_inputs, name, spec)
    fixed = None if is_dynamic else plan_inputs(node_class, node_class.inputs, constraints, budgets)
    return ClassPlan(
        node_class=node_class,
        constraints=constraints,
        budgets=budgets,
        output_count=len(node_class.outputs),
        is_constant=(
            node_class.name in _CONSTANTS
            and node_class.python_module == "comfy_extras.nodes_primitive"
            and fixed is not None
            and "value" in fixed.specs
        ),
        fixed=fixed,
        dynamic_inputs=tuple(dynamic_inputs.items()),
        factors=frozenset(name.rpartition(".")[2] for budget in budgets.values() for name, _ in budget.factors),
    )


def _collect_choosers(dynamic_inputs: dict[str, frozenset[str]], name: str, spec: InputSpec) -> None:
    """Inputs whose value decides what other inputs there are: choices with their keys, and slots with none."""
    if spec.type == DYNAMIC_COMBO:
        options = list_options(spec)
        dynamic_inputs[name] = dynamic_inputs.get(name, frozenset()) | {option["key"] for option in options}
        sections = [option.get("inputs") for option in options]
    elif spec.type == DYNAMIC_SLOT:
        dynamic_inputs[name] = frozenset()
        sections = [spec.options.get("inputs")]
    else:
        return
    for section in sections:
        for inner in read_inputs(section) or ():
            _collect_choosers(dynamic_inputs, f"{name}.{inner.name}", inner)


def plan_inputs(
    node_class: NodeClass, specs: Mapping[str, InputSpec], constraints: Constraints, budgets: Mapping[str, Budget]
) -> InputPlan:
    bound = []
    for name, spec in specs.items():
        lines = constraints.of(node_class.name, name)
        if lines:
            bound.append(BoundInput(spec, lines))
    uses = uses_of(node_class, specs)
    return InputPlan(
        specs=dict(specs),  # a plain one: every input of every node is looked up in it
        lists=frozenset(name for name, spec in specs.items() if takes_lists(spec)),
        made=frozenset(name for name, spec in specs.items() if is_made_by_nodes(spec)),
        bound=tuple(bound),
        budgets=tuple(item for key, budget in budgets.items() for item in bind_budget(key, budget, specs)),
        cost=tuple(sorted(name for name in specs if name.rpartition(".")[2] in _COST_INPUTS)),
        uses=uses,
        needs_salt=needs_salt(node_class, bool(uses)),
        sure=compile_checks(node_class, specs),
    )


def takes_lists(spec: InputSpec) -> bool:
    """Whether the web UI may write a list here, as `{"__value__": […]}`."""
    if spec.type == "COMBO":
        return bool(spec.options.get("multiselect") or spec.options.get("multi_select"))
    return takes_any_literal(spec)


def takes_any_literal(spec: InputSpec) -> bool:
    """Whether the type is one of which nothing is known: neither a plain one nor one that only nodes make."""
    return spec.type not in _PLAIN_TYPES and not is_made_by_nodes(spec)


def is_made_by_nodes(spec: InputSpec) -> bool:
    """Whether a text makes no sense here: images, models and so on come from other nodes."""
    return all(kind in _LINK_TYPES for kind in spec.type.split(","))
