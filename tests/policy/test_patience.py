from __future__ import annotations

from typing import Any

import orjson
import pytest

from policy.judge import judge
from policy.patience import AT_ONCE_BYTES, AT_ONCE_EFFORT, AT_ONCE_PARTS, ENDLESS, Patience, TooMuch, is_quick
from policy.workflow_files import rewrite_nodes
from tests.policy.graphs import CATALOGUE, make_policy, make_prompt, node
from tests.policy.tenants import CATALOGUE as OF_TENANTS
from tests.policy.tenants import caller_of, plans_of

MANY = range(AT_ONCE_EFFORT)


def test_it_comes_to_an_end() -> None:
    patience = Patience(10)
    patience.spend(4)
    patience.spend(6)
    with pytest.raises(TooMuch):
        patience.spend(0.5)
    ENDLESS.spend(10**12)
    ENDLESS.spend_on("x" * 10_000)
    ENDLESS.spend(0)


@pytest.mark.parametrize("value", ["x" * 100_000, {"a": {"b": [0] * 20_000}}, [[[]] * 20_000]])
def test_large_values_take_more_of_it(value: Any) -> None:
    with pytest.raises(TooMuch):
        Patience(AT_ONCE_EFFORT).spend_on(value)
    patience = Patience(100)
    few: tuple[Any, ...] = ("x", {}, [], 1, None)
    for small in few:
        patience.spend_on(small)


def test_few_and_short_parts_are_worth_a_try() -> None:
    assert is_quick(b"," * AT_ONCE_PARTS)
    assert not is_quick(b"," * (AT_ONCE_PARTS + 1))
    for opening in (b"{", b"[", b"[{"):
        assert is_quick(opening * (AT_ONCE_PARTS // len(opening)) + b" " * AT_ONCE_PARTS)
        assert not is_quick(opening * (AT_ONCE_PARTS // len(opening) + 1))
    assert is_quick(b" " * AT_ONCE_BYTES)
    assert not is_quick(b" " * (AT_ONCE_BYTES + 1))


def judged_at_once(nodes: dict[str, Any]) -> bool:
    body, policy = orjson.dumps({"prompt": nodes}), make_policy(max_nodes=2000)
    try:
        judge(body, policy, CATALOGUE, Patience(AT_ONCE_EFFORT))
    except TooMuch:
        judge(body, policy, CATALOGUE)
        return False
    return True


def test_an_ordinary_workflow_takes_little() -> None:
    assert judged_at_once(make_prompt())
    many = {str(number): node("EmptyLatentImage", width=number, height=512, batch_size=1) for number in range(1000)}
    assert judged_at_once(many)


@pytest.mark.parametrize(
    "nodes",
    [
        {"1": node("Add", **{f"x{number}": number for number in MANY})},
        {str(number): node("Add", **{f"x{number}": number}) for number in range(1000)},
        {"1": node("Add"), "2": node("Add", **{f"x{number}": ["1", 0] for number in MANY})},
        {"1": node("Curve", curve={f"x{number}": number for number in MANY})},
    ],
)
def test_what_no_class_declares_takes_much(nodes: dict[str, Any]) -> None:
    assert not judged_at_once(nodes)


def test_writing_names_takes_it_too() -> None:
    nodes: dict[str, Any] = {
        str(number): {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}} for number in MANY
    }
    plans = plans_of(nodes, OF_TENANTS)
    with pytest.raises(TooMuch):
        rewrite_nodes(nodes, plans, caller_of("alice"), Patience(AT_ONCE_EFFORT))
