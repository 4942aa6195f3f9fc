from __future__ import annotations

from typing import Any

import pytest

from policy.catalogue import InputSpec, NodeClass, read_catalogue
from policy.class_plan import MAX_VARIANTS, is_made_by_nodes, plan_class, takes_lists
from policy.constraints import Constraints, compile_constraints
from policy.settings import Budget, InputConstraint
from tests.policy.graphs import CATALOGUE, OBJECT_INFO

NOTHING = Constraints({}, ())


def spec(kind: str, **options: Any) -> InputSpec:
    return InputSpec("x", kind, None, options, True)


def node_class(name: str) -> NodeClass:
    return CATALOGUE.classes[name]


def read_class(**inputs: Any) -> NodeClass:
    return read_catalogue({"C": {"input": {"required": inputs}}}).classes["C"]


@pytest.mark.parametrize(
    ("kind", "is_made"),
    [
        ("INT", False),
        ("COMBO", False),
        ("COMFY_DYNAMICCOMBO_V3", False),
        ("IMAGE", True),
        ("MESH,FILE_3D_GLB", True),
        ("STRING,FILE_3D", False),
        ("CURVE", False),
        ("*", False),
    ],
)
def test_what_only_nodes_make_follows_the_declared_type(kind: str, is_made: bool) -> None:
    assert is_made_by_nodes(spec(kind)) is is_made


def test_lists_are_taken_by_widgets_only() -> None:
    assert takes_lists(spec("CURVE"))
    assert takes_lists(spec("COMBO", multiselect=True))
    assert takes_lists(spec("COMBO", multi_select={"placeholder": "x"}))
    assert not takes_lists(spec("COMBO"))
    assert not takes_lists(spec("STRING"))
    assert not takes_lists(spec("IMAGE"))


def test_a_class_with_fixed_inputs_has_one_plan() -> None:
    lines = compile_constraints({"*.batch_size": InputConstraint(max=4)})
    plan = plan_class(node_class("EmptyLatentImage"), lines, {"px": Budget(of="width*height", max=9)})
    assert plan.inputs_for({}) is plan.fixed
    assert plan.fixed is not None
    assert [item.spec.name for item in plan.fixed.bound] == ["batch_size"]
    assert [item.names for item in plan.fixed.budgets] == [("width", "height")]
    assert plan.fixed.cost == ("batch_size", "height", "width")
    assert plan.output_count == 1


def test_a_dynamic_class_has_a_plan_for_each_choice() -> None:
    lines = compile_constraints({"*.width": InputConstraint(max=4)})
    plan = plan_class(node_class("Resize"), lines, {})
    by_size = plan.inputs_for({"resize_type": "by size"})
    assert set(by_size.specs) == {"image", "resize_type", "resize_type.width", "resize_type.height"}
    assert [item.spec.name for item in by_size.bound] == ["resize_type.width"]
    assert set(plan.inputs_for({"resize_type": "by factor"}).specs) == {
        "image",
        "resize_type",
        "resize_type.multiplier",
    }
    for irregular in ("nope", 5, None, ["1", 0], {"a": 1}):
        assert set(plan.inputs_for({"resize_type": irregular}).specs) == {"image", "resize_type"}
    assert plan.inputs_for({"resize_type": "by size", "other": 1}) is by_size


def test_slots_and_nested_choices_are_choosers() -> None:
    inner = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "k", "inputs": {"required": {"deep": ["INT"]}}}]}]
    slot = ["COMFY_DYNAMICSLOT_V3", {"slotType": "IMAGE", "inputs": {"required": {"mode": inner}}}]
    plan = plan_class(read_class(slot=slot), NOTHING, {})
    assert dict(plan.dynamic_inputs) == {"slot": frozenset(), "slot.mode": frozenset({"k"})}
    assert set(plan.inputs_for({}).specs) == {"slot"}
    assert set(plan.inputs_for({"slot": ["1", 0]}).specs) == {"slot", "slot.mode"}
    assert set(plan.inputs_for({"slot": ["1", 0], "slot.mode": "k"}).specs) == {"slot", "slot.mode", "slot.mode.deep"}


def test_slots_without_inputs_have_none() -> None:
    plan = plan_class(read_class(slot=["COMFY_DYNAMICSLOT_V3", {}]), NOTHING, {})
    assert set(plan.inputs_for({"slot": 1}).specs) == {"slot"}


def test_what_is_remembered_is_bounded() -> None:
    options = [{"key": str(number), "inputs": {"required": {}}} for number in range(MAX_VARIANTS + 5)]
    plan = plan_class(read_class(mode=["COMFY_DYNAMICCOMBO_V3", {"options": options}]), NOTHING, {})
    for number in range(MAX_VARIANTS + 5):
        plan.inputs_for({"mode": str(number)})
    assert len(plan.variants) == MAX_VARIANTS


@pytest.mark.parametrize("name", ["PrimitiveInt", "PrimitiveFloat", "PrimitiveString"])
def test_comfyuis_own_constants_are_known(name: str) -> None:
    assert plan_class(node_class(name), NOTHING, {}).is_constant


def test_others_are_no_constants() -> None:
    foreign = OBJECT_INFO["PrimitiveInt"] | {"python_module": "custom_nodes.evil"}
    changed = OBJECT_INFO["PrimitiveInt"] | {"input": {"required": {"other": ["INT"]}}}
    grown = OBJECT_INFO["PrimitiveInt"] | {"input": OBJECT_INFO["Batch"]["input"]}
    for entry in (foreign, changed, grown):
        found = read_catalogue({"PrimitiveInt": entry}).classes["PrimitiveInt"]
        assert not plan_class(found, NOTHING, {}).is_constant
    assert not plan_class(node_class("Add"), NOTHING, {}).is_constant
