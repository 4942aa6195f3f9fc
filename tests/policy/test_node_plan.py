from __future__ import annotations

from typing import Any

import pytest

from policy.node_plan import MAX_ACCEPTED, MAX_ACCEPTED_LENGTH, MAX_NAMED, MAX_PLANS, NodePlan, plan_node
from policy.violation import Violation
from tests.policy.graphs import CATALOGUE, codes, make_policy, make_prompt, node, refused, run, with_input

LINES = {"inputs": {"KSampler.steps": {"max": 50}, "*.text": {"allow": ["a*"]}}}


def plan_of(class_type: str, given: dict[str, Any], **policy: Any) -> NodePlan:
    class_plan = make_policy(**policy).plan_of(class_type, CATALOGUE)
    assert class_plan is not None
    return plan_node(class_plan, given)


def test_nodes_of_like_inputs_share_a_plan() -> None:
    class_plan = make_policy().plan_of("EmptyLatentImage", CATALOGUE)
    assert class_plan is not None
    first = plan_node(class_plan, {"width": 1, "height": 2})
    assert plan_node(class_plan, {"width": 3, "height": 4}) is first
    for other in ({"width": 1}, {"height": 2, "width": 1}, {"width": 1.0, "height": 2}, {"width": True, "height": 2}):
        assert plan_node(class_plan, other) is not first


def test_what_is_to_be_done_follows_the_names_and_kinds_of_the_inputs() -> None:
    plan = plan_of("KSampler", {"model": ["4", 0], "seed": 1, "steps": 20, "positive": "text", "extra": {"a": 1}})
    assert plan.class_type == "KSampler"
    assert plan.outputs == range(1)
    assert plan.links == ("model",)
    assert plan.looked_at == ("model", "positive", "extra")
    assert plan.undeclared == ("extra",)
    assert not plan.is_usual
    assert (plan.title, plan.pick({"model": ["4", 0], "steps": 20, "seed": 1})) == (
        "KSampler model steps",
        (["4", 0], 20),
    )
    assert plan.files == ("extra",)
    assert plan.is_salted
    assert not plan.needs_ancestor


def test_an_ordinary_node_has_links_and_literals() -> None:
    assert plan_of("VAEDecode", {"samples": ["3", 0], "vae": ["4", 2]}).is_usual
    assert not plan_of("VAEDecode", {"samples": ["3", 0], "other": 1}).is_usual
    assert not plan_of("VAEDecode", {"samples": "x"}).is_usual
    assert not plan_of("Curve", {"curve": {}}).is_usual


def test_like_workflows_have_links_and_cost_alike() -> None:
    assert plan_of("EmptyLatentImage", {"width": ["1", 0], "height": 5}).title == "EmptyLatentImage width height"
    nothing = plan_of("PrimitiveInt", {"value": 5})
    assert (nothing.title, nothing.pick({"value": 5})) == ("PrimitiveInt ", None)


def test_inputs_that_a_choice_brings_are_planned_by_it() -> None:
    class_plan = make_policy().plan_of("Resize", CATALOGUE)
    assert class_plan is not None
    size = plan_node(class_plan, {"resize_type": "by size", "resize_type.width": 5})
    assert size.undeclared == ()
    assert plan_node(class_plan, {"resize_type": "by factor", "resize_type.width": 5}).undeclared == (
        "resize_type.width",
    )
    wrapped: dict[str, Any] = {"resize_type": {"__value__": "by size"}, "resize_type.width": 7}
    assert plan_node(class_plan, wrapped) is size
    assert wrapped["resize_type"] == "by size"


def test_what_is_remembered_is_bounded() -> None:
    class_plan = make_policy().plan_of("KSampler", CATALOGUE)
    assert class_plan is not None
    for number in range(MAX_PLANS):
        plan_node(class_plan, {f"x{number}": 1})
    assert len(class_plan.nodes) == MAX_PLANS
    plan_node(class_plan, {"steps": 1})
    assert len(class_plan.nodes) == 1
    plan_node(class_plan, {"x" * (MAX_NAMED + 1): 1})
    assert len(class_plan.nodes) == 1


def test_what_was_permitted_is_remembered() -> None:
    policy = make_policy(**LINES)
    run(make_prompt_with(steps=20), policy)
    class_plan = policy.plan_of("KSampler", CATALOGUE)
    assert class_plan is not None
    (plan,) = class_plan.nodes.values()
    assert [accepted for _, accepted in plan.checks] == [{20}]
    run(make_prompt_with(steps=20), policy)
    assert codes(refused(make_prompt_with(steps=51), policy)) == {("3", "steps", "value-too-large")}
    assert [accepted for _, accepted in plan.checks] == [{20}]


def make_prompt_with(**inputs: Any) -> dict[str, Any]:
    prompt = make_prompt()
    prompt["3"]["inputs"] |= inputs
    for node_id in ("6", "7"):
        prompt[node_id]["inputs"]["text"] = "a lighthouse"
    return prompt


@pytest.mark.parametrize(("permitted", "other"), [(1, True), (0, False), (1.5, "1.5"), (20, "20")])
def test_what_was_permitted_is_remembered_by_its_kind(permitted: Any, other: Any) -> None:
    policy = make_policy(inputs={"KSampler.cfg": {"max": 50}})
    run(with_input("3", "cfg", permitted), policy)
    run(with_input("3", "cfg", permitted), policy)
    assert codes(refused(with_input("3", "cfg", other), policy)) == {("3", "cfg", "value-of-other-type")}


def test_products_are_remembered_as_a_whole() -> None:
    policy = make_policy(budgets={"pixels": {"of": "width*height", "max": 100}})

    def sized(width: int, height: int) -> dict[str, Any]:
        return {"1": node("EmptyLatentImage", width=width, height=height)}

    run(sized(50, 2), policy)
    run(sized(2, 50), policy)
    assert codes(refused(sized(50, 50), policy)) == {("1", "width", "budget-exceeded")}


def test_nothing_is_remembered_of_links_and_of_what_is_missing() -> None:
    policy = make_policy(**LINES, budgets={"pixels": {"of": "width*height", "max": 100}})
    constant = {"20": node("PrimitiveInt", value=9)}
    for _ in range(2):
        judged = run(make_prompt_with(steps=["20", 0]) | constant, make_policy(**LINES))
        assert judged.followed == (("3", "steps", 9),)
        prompt = make_prompt_with(steps=["20", 0]) | {"20": node("PrimitiveInt", value=90)}
        prompt["5"]["inputs"] = {"width": 5}
        assert codes(refused(prompt, policy)) == {("3", "steps", "value-too-large")}


def test_a_bound_input_that_may_be_missing_must_be_given() -> None:
    policy = make_policy(inputs={"KSampler.denoise": {"max": 1}})
    prompt = make_prompt()
    del prompt["3"]["inputs"]["denoise"]
    for _ in range(2):
        assert codes(refused(prompt, policy)) == {("3", "denoise", "input-missing")}


def test_few_and_short_values_are_remembered() -> None:
    plan = plan_of("KSampler", {"steps": 1}, **LINES)
    for number in range(MAX_ACCEPTED + 5):
        plan.remember({"steps": number})
    ((_, accepted),) = plan.checks
    assert isinstance(accepted, set)
    assert len(accepted) == MAX_ACCEPTED
    texts = plan_of("CLIPTextEncode", {"text": "a", "clip": ["4", 1]}, **LINES)
    texts.remember({"text": "a" * (MAX_ACCEPTED_LENGTH + 1)})
    texts.remember({"text": "a" * MAX_ACCEPTED_LENGTH})
    assert [accepted for _, accepted in texts.checks] == [{"a" * MAX_ACCEPTED_LENGTH}]


def test_texts_that_only_a_class_from_outside_takes_may_name_files() -> None:
    assert plan_of("CLIPTextEncode", {"text": "a.png", "clip": ["4", 1]}).files == ()
    assert plan_of("SaveImage", {"images": ["8", 0], "filename_prefix": "x"}).files == ("filename_prefix",)
    assert plan_of("SaveImage", {"images": ["8", 0], "filename_prefix": 5}).files == ("filename_prefix",)
    assert plan_of("SaveImage", {"images": ["8", 0], "other": 5}).files == ()
    with pytest.raises(Violation):
        run({"1": node("Secret", text="x")})
