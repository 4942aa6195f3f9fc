from __future__ import annotations

from typing import Any

import pytest

from policy.literals import MAX_LITERAL_DEPTH, find_literal_fault, find_undeclared_fault, unwrap
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
    assert find_literal_fault(value, True) is None


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
    fault = find_literal_fault(value, True)
    assert fault is not None
    assert fault.reason is NodeReason.LITERAL_MALFORMED


def test_objects_and_lists_without_a_wrapper_are_left_to_comfyui() -> None:
    assert find_literal_fault({"a": 1}, False) is None
    assert find_literal_fault([1, 2, 3], False) is None
    fault = find_literal_fault({"__value__": [1]}, False)
    assert fault is not None
    assert fault.reason is NodeReason.LITERAL_MALFORMED


@pytest.mark.parametrize(
    "value", [{"on": True, "lora": "style.safetensors"}, ["a", "b"], {"__value__": 5}, {"__value__": [1, 2]}]
)
def test_undeclared_values_stay_as_they_came(value: Any) -> None:
    assert find_undeclared_fault(value) is None


@pytest.mark.parametrize(
    "value",
    [
        {"__value__": ["4", 0]},
        {"__value__": {"__value__": ["4", 0]}},
        {"a": {"__value__": 1}},
        nest(MAX_LITERAL_DEPTH + 1),
        [nest(MAX_LITERAL_DEPTH)],
    ],
)
def test_undeclared_values_that_could_be_read_otherwise_are_refused(value: Any) -> None:
    fault = find_undeclared_fault(value)
    assert fault is not None
    assert fault.reason is NodeReason.LITERAL_MALFORMED
