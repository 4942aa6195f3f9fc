"""Limits are not evaded by what is linked, absent, or of another type."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.policy.graphs import codes, make_policy, make_prompt, node, refused, run, with_input

LIMIT = {"inputs": {"*.steps": {"max": 50}}}


@pytest.mark.parametrize(
    ("steps", "extra", "is_permitted"),
    [
        (["20", 0], {"20": node("PrimitiveInt", value=20)}, True),
        (["20", 0], {"20": node("PrimitiveInt", value=20.0)}, True),
        (["20", 0], {"20": node("PrimitiveInt", value=["21", 0]), "21": node("PrimitiveInt", value=30)}, True),
        (["20", 0], {"20": node("PrimitiveInt", value={"__value__": 20})}, True),
        (["20", 0], {"20": node("PrimitiveInt", value=51)}, False),
        (["20", 0], {"20": node("PrimitiveInt", value="20")}, False),
        (["20", 0], {"20": node("PrimitiveInt", value=True)}, False),
        (["20", 0], {"20": node("PrimitiveInt", value=20.5)}, False),
        (["20", 0], {"20": node("PrimitiveInt")}, False),
        (["20", 0], {"20": node("PrimitiveFloat", value=20.5)}, False),
        (["20", 0], {"20": node("PrimitiveString", value="20")}, False),
        (["20", 0], {"20": node("Add", a=1, b=1)}, False),
        (["20", 0], {"20": node("PrimitiveInt", value=["21", 0]), "21": node("Add", a=1, b=1)}, False),
        (["20", 0], {"20": node("PrimitiveInt", value=[])}, False),
        (["20", 0], {"20": node("PrimitiveInt", value=["20", 0])}, False),
        (["20", 0], {"20": node("Secret")}, False),
        (["77", 0], {}, False),
        ([], {}, False),
        ([[], 0], {}, False),
    ],
)
def test_links_are_followed_to_constants_only(steps: Any, extra: dict[str, Any], is_permitted: bool) -> None:
    prompt = with_input("3", "steps", steps) | copy.deepcopy(extra)
    if is_permitted:
        judged = run(prompt, make_policy(**LIMIT))
        assert judged.nodes["3"]["inputs"]["steps"] == steps
        assert (
            judged.followed == (("3", "steps", next(reversed(extra.values()))["inputs"]["value"]),) or judged.followed
        )
    else:
        assert ("3", "steps") in {found[:2] for found in codes(refused(prompt, make_policy(**LIMIT)))}


def test_a_ring_of_constants_is_no_constant() -> None:
    prompt = with_input("3", "steps", ["20", 0])
    prompt |= {"20": node("PrimitiveInt", value=["21", 0]), "21": node("PrimitiveInt", value=["20", 0])}
    assert ("3", "steps", "input-linked") in codes(refused(prompt, make_policy(**LIMIT)))


def test_a_required_input_that_is_absent_is_comfyuis_matter() -> None:
    prompt = make_prompt()
    del prompt["3"]["inputs"]["steps"]
    del prompt["5"]["inputs"]["width"]
    run(prompt, make_policy(inputs=LIMIT["inputs"], budgets={"px": {"of": "width*height", "max": 9}}))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (512, None),
        (1024.0, None),
        (["20", 0], None),
        (4096, "budget-exceeded"),
        ("512", "value-of-other-type"),
        (True, "value-of-other-type"),
        (512.5, "value-of-other-type"),
        (0.5, "value-of-other-type"),
        (None, "value-of-other-type"),
        (0, "value-too-small"),
        (-512, "value-too-small"),
        (["21", 0], "input-linked"),
    ],
)
def test_budgets_are_not_evaded(value: Any, code: str | None) -> None:
    prompt = with_input("5", "width", value)
    prompt |= {"20": node("PrimitiveInt", value=512), "21": node("Add", a=1, b=2)}
    policy = make_policy(budgets={"px": {"of": "width*height*batch_size?", "max": 1024 * 512}})
    if code is None:
        run(prompt, policy)
    else:
        assert {found[2] for found in codes(refused(prompt, policy))} == {code}


def test_a_budget_asks_for_optional_inputs() -> None:
    prompt = make_prompt()
    del prompt["3"]["inputs"]["denoise"]
    violation = refused(prompt, make_policy(budgets={"work": {"of": "steps*denoise", "max": 100}}))
    assert codes(violation) == {("3", "denoise", "input-missing")}


def test_what_comfyui_asks_for_itself_is_not_asked_for_by_a_limit() -> None:
    """A workflow without it is refused there."""
    prompt = make_prompt()
    del prompt["5"]["inputs"]["width"]
    policy = make_policy(inputs={"*.width": {"max": 512}}, budgets={"px": {"of": "width*height?", "max": 4096}})
    assert run(prompt, policy).nodes == prompt
