from __future__ import annotations

from typing import Any

import pytest

from policy.literals import MAX_LITERAL_DEPTH, find_literal_fault, unwrap
from policy.plan import ANY_LITERAL, NO_LITERAL, PLAIN
from policy.workflow import NodeReason


def nest(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("wrapper", "is_list_taken", "value"),
    [
        ({"__value__": 5}, False, 5),
        ({"__value__": "a/b.png", "__type__": "COMBO"}, False, "a/b.png"),
        ({"__value__": None}, True, None),
        ({"__value__": [1, 2]}, True, {"__value__": [1, 2]}),
        ({"__value__": [1, 2], "__type__": "ARRAY"}, True, {"__value__": [1, 2]}),
        ({"__value__": [1, 2], "__type__": "ARRAY"}, False, {"__value__": [1, 2], "__type__": "ARRAY"}),
        ({"__value__": {"a": 1}}, True, {"__value__": {"a": 1}}),
        ({"__value__": 5, "x": 1}, True, {"__value__": 5, "x": 1}),
    ],
)
def test_scalars_come_out_of_their_wrapper(wrapper: dict[str, Any], is_list_taken: bool, value: Any) -> None:
    assert unwrap(wrapper, is_list_taken) == value


@pytest.mark.parametrize("value", ["a", 1, 1.5, True, None])
def test_plain_literals_are_accepted(value: Any) -> None:
    assert find_literal_fault(value, PLAIN, False) is None
    assert find_literal_fault(value, ANY_LITERAL, True) is None


@pytest.mark.parametrize(
    "value",
    [
        {"points": [[0, 0], [1, 1]]},
        {},
        nest(MAX_LITERAL_DEPTH),
        {"__value__": [1, 2]},
        {"__value__": []},
        {"__value__": ["a", "b"]},
        {"__value__": ["a", 1, 2]},
        {"note": '"__value__":'},
    ],
)
def test_widgets_take_objects_and_wrapped_lists(value: Any) -> None:
    assert find_literal_fault(value, ANY_LITERAL, True) is None


@pytest.mark.parametrize(
    "value",
    [
        {"__value__": ["4", 0]},
        {"__value__": ["4", 0.5]},
        {"__value__": ["4", True]},
        {"__value__": [{"__value__": 1}]},
        {"__value__": {"a": 1}},
        {"__value__": 5, "x": 1},
        {"__value__": "x"},
        {"a": {"__value__": ["4", 0]}},
        {"__value__": [nest(MAX_LITERAL_DEPTH)]},
        nest(MAX_LITERAL_DEPTH + 1),
    ],
)
def test_what_could_be_read_otherwise_is_refused(value: Any) -> None:
    fault = find_literal_fault(value, ANY_LITERAL, True)
    assert fault is not None
    assert fault.reason is NodeReason.LITERAL_MALFORMED


@pytest.mark.parametrize("value", [{"a": 1}, {"__value__": [1]}])
def test_plain_inputs_take_no_objects(value: Any) -> None:
    fault = find_literal_fault(value, PLAIN, False)
    assert fault is not None
    assert fault.reason is NodeReason.LITERAL_MALFORMED


def test_inputs_for_links_take_null_only() -> None:
    assert find_literal_fault(None, NO_LITERAL, False) is None
    fault = find_literal_fault("/etc/passwd", NO_LITERAL, False)
    assert fault is not None
    assert fault.reason is NodeReason.LITERAL_FOR_LINK
