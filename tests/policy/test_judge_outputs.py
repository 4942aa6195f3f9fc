"""Outputs that can run do; what cannot, and what needs it, is left out and named."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from policy.judge import ADMIN_POLICY
from policy.violation import Reason
from tests.policy.graphs import codes, make_policy, make_prompt, node, refused, run, with_input, with_node

# A link to nowhere in the one output of the workflow, and what it is called beside what the policy refuses.
BROKEN: list[tuple[str, Any, str]] = [
    ("a text for the output", ["8", True], "link-malformed"),
    ("a fraction for the output", ["8", 0.0], "link-malformed"),
    ("no such node", ["55", 0], "link-node-missing"),
    ("no such output", ["8", 1], "link-output-missing"),
    ("an output below 0", ["8", -1], "link-output-missing"),
    ("no outputs at all", ["9", 0], "link-output-missing"),
]


@pytest.mark.parametrize(("value", "code"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_workflow_whose_only_output_has_a_broken_link_is_refused_as_comfyui_does(value: Any, code: str) -> None:
    violation = refused(with_input("9", "images", value), ADMIN_POLICY)
    assert (violation.reason, violation.error_type) == (
        Reason.WORKFLOW_MALFORMED,
        "prompt_outputs_failed_validation",
    )
    assert codes(violation) == {("9", "images", "exception_during_validation")}
    assert violation.node_errors["9"]["dependent_outputs"] == ["9"]
    beside = refused(with_input("9", "images", value), make_policy(inputs={"*.steps": {"max": 19}}))
    assert codes(beside) == {("9", "images", code), ("3", "steps", "value-too-large")}
    assert (beside.reason, beside.error_type) == (Reason.POLICY_VIOLATION, None)


def test_outputs_that_can_run_do() -> None:
    other = {"30": node("LoadImage", image="b.png"), "31": node("SaveImage", images=["30", 0], filename_prefix="y")}
    judged = run(with_input("9", "images", ["55", 0]) | other)
    assert set(judged.nodes) == {*make_prompt(), "30", "31"} - {"9"}
    assert judged.node_errors["9"]["errors"][0]["type"] == "exception_during_validation"
    assert "'55'" in judged.node_errors["9"]["errors"][0]["details"]
    assert [notice.code for notice in judged.notices] == ["nodes-left-out"]
    assert judged.notices[0].message.endswith("left out: 9.")


def test_what_needs_a_broken_node_is_left_out_with_it() -> None:
    other = {"30": node("LoadImage", image="b.png"), "31": node("SaveImage", images=["30", 0], filename_prefix="y")}
    judged = run(with_input("8", "vae", ["4", 7]) | other)
    assert set(judged.nodes) == {*make_prompt(), "30", "31"} - {"8", "9"}
    assert judged.node_errors.keys() == {"8"}
    assert judged.node_errors["8"]["dependent_outputs"] == ["9"]


def test_a_broken_node_that_no_output_needs_is_left_out_and_told() -> None:
    judged = run(with_node(node("ImageBlur", image=["gone", 0], enabled=True)))
    assert judged.nodes == make_prompt()
    assert judged.node_errors == {}
    assert judged.notices[0].message.endswith("left out: 20.")


def test_outputs_that_were_not_asked_for_are_not_named() -> None:
    prompt = with_input("9", "images", ["55", 0]) | {
        "30": node("LoadImage", image="b.png"),
        "31": node("SaveImage", images=["30", 0], filename_prefix="y"),
    }
    judged = run(copy.deepcopy(prompt), partial_execution_targets=["31"])
    assert judged.node_errors == {}
    violation = refused(copy.deepcopy(prompt), partial_execution_targets=["9"])
    assert violation.error_type == "prompt_outputs_failed_validation"


def test_without_outputs_comfyui_says_so_itself() -> None:
    assert run({"1": node("LoadImage", image="a.png")}).nodes.keys() == {"1"}
    assert refused({"1": node("ImageBlur", image=["gone", 0], enabled=True)}).error_type == "prompt_no_outputs"


def test_the_salt_of_a_saved_workflow_is_taken_out() -> None:
    strict = make_policy(undeclared="refuse")
    assert run(with_input("9", "comfygate_tenant", "bob"), strict).nodes == make_prompt()
