"""Inputs that no class declares are kept, and bound by the policy as declared ones are."""

from __future__ import annotations

from typing import Any

import pytest

import policy.undeclared as undeclared
from policy.judge import Policy
from tests.policy.graphs import codes, make_policy, make_prompt, node, refused, run, with_input, with_node

LORA = {"on": True, "lora": "style.safetensors", "strength": 1, "more": {"clip": 0.5}}


def test_undeclared_inputs_are_kept_as_they_came() -> None:
    extra: dict[str, Any] = {
        "lora_1": LORA,
        "crf": 19,
        "pix_fmt": "yuv420p",
        "save_metadata": False,
        "any_02": ["8", 0],
        "tags": ["a", 1, 2],
    }
    prompt = make_prompt()
    prompt["9"]["inputs"] |= extra
    judged = run(prompt)
    assert judged.nodes["9"]["inputs"] == make_prompt()["9"]["inputs"] | extra
    assert judged.notices == ()


def test_a_policy_may_refuse_them() -> None:
    prompt = make_prompt()
    prompt["9"]["inputs"] |= {"crf": 19, "any_02": ["8", 0]}
    assert codes(refused(prompt, make_policy(undeclared="refuse"))) == {
        ("9", "crf", "input-undeclared"),
        ("9", "any_02", "input-undeclared"),
    }


@pytest.mark.parametrize("line", ["*.crf", "SaveImage.crf", "Save*.crf"])
def test_lines_bind_them_by_name(line: str) -> None:
    policy = make_policy(inputs={line: {"max": 20}})
    assert codes(refused(with_input("9", "crf", 21), policy)) == {("9", "crf", "value-too-large")}
    assert codes(refused(with_input("9", "crf", "21"), policy)) == {("9", "crf", "value-of-other-type")}
    assert codes(refused(with_input("9", "crf", ["8", 0]), policy)) == {("9", "crf", "input-linked")}
    run(with_input("9", "crf", 20), policy)


def test_lines_bind_fields_of_objects() -> None:
    policy = make_policy(inputs={"*.lora": {"allow": ["ok*"]}, "SaveImage.lora_1.more.clip": {"max": 0.4}})
    assert codes(refused(with_input("9", "lora_1", LORA), policy)) == {
        ("9", "lora_1.lora", "value-not-allowed"),
        ("9", "lora_1.more.clip", "value-too-large"),
    }


def test_links_to_constants_are_followed() -> None:
    policy = make_policy(inputs={"*.crf": {"max": 20}})
    prompt = with_input("9", "crf", ["20", 0]) | {"20": node("PrimitiveInt", value=21)}
    assert codes(refused(prompt, policy)) == {("9", "crf", "value-too-large")}


def test_budgets_count_them() -> None:
    policy = make_policy(budgets={"px": {"of": "wide*high*batch_size?", "max": 100}})
    over = with_node(node("SaveImage", images=["8", 0], filename_prefix="x", wide=11, high=10))
    assert codes(refused(over, policy)) == {("20", "wide", "budget-exceeded")}
    run(with_node(node("SaveImage", images=["8", 0], filename_prefix="x", wide=10, high=10)), policy)
    run(with_node(node("SaveImage", images=["8", 0], filename_prefix="x", wide=1000)), policy)


def test_what_is_remembered_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undeclared, "MAX_REMEMBERED", 2)
    policy: Policy = make_policy(inputs={"*.crf": {"max": 20}})
    prompt = make_prompt()
    prompt["9"]["inputs"] |= {f"x{number}": number for number in range(5)} | {"crf": 21}
    assert codes(refused(prompt, policy)) == {("9", "crf", "value-too-large")}
