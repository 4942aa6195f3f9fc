from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.constraints import bind_budget, compile_constraint, compile_constraints, compile_values
from policy.settings import Budget, InputConstraint
from policy.workflow import NodeReason


def fault_of(fields: dict[str, Any], value: Any, kind: str) -> str | None:
    fault = compile_constraint("C.i", InputConstraint.model_validate(fields)).find_fault(value, kind)
    return None if fault is None else fault.reason.value


TYPE = "value-of-other-type"


@pytest.mark.parametrize(
    ("fields", "kind", "value", "code"),
    [
        ({"max": 50}, "INT", 50, None),
        ({"max": 50}, "INT", 50.0, None),
        ({"max": 50}, "INT", 51, "value-too-large"),
        ({"max": 50}, "INT", 49.5, TYPE),
        ({"max": 50}, "INT", "20", TYPE),
        ({"max": 50}, "INT", True, TYPE),
        ({"max": 50}, "INT", None, TYPE),
        ({"max": 50}, "INT", {}, TYPE),
        ({"max": 50}, "INT", [], TYPE),
        ({"max": 50}, "INT", 1e300, "value-too-large"),
        ({"max": 50}, "FLOAT", 49.5, None),
        ({"max": 50}, "FLOAT", "1", TYPE),
        ({"max": 50}, "FLOAT", False, TYPE),
        ({"max": 50}, "INT,FLOAT", 3, None),
        ({"max": 50}, "INT,FLOAT", "3", TYPE),
        ({"max": 50}, "INT,FLOAT", True, TYPE),
        ({"max": 50}, "COMBO", "3", TYPE),
        ({"min": 1}, "INT", 0, "value-too-small"),
        ({"min": 1}, "INT", 1, None),
        ({"min": 1, "max": 3}, "FLOAT", 0.99, "value-too-small"),
        ({"multiple_of": 8}, "INT", 64, None),
        ({"multiple_of": 8}, "INT", 65, "value-not-a-multiple"),
        ({"multiple_of": 8}, "INT", 64.0, None),
        ({"multiple_of": 0.1}, "FLOAT", 0.3, None),
        ({"multiple_of": 0.1}, "FLOAT", 0.35, "value-not-a-multiple"),
        ({"allow": ["sd_xl*"]}, "COMBO", "sd_xl_base", None),
        ({"allow": ["sd_xl*"]}, "COMBO", "flux", "value-not-allowed"),
        ({"allow": ["sd_xl*"]}, "COMBO", 5, "value-not-allowed"),
        ({"allow": [512, 768]}, "INT", 768, None),
        ({"allow": [512, 768]}, "INT", 768.0, None),
        ({"allow": [512, 768]}, "INT", 640, "value-not-allowed"),
        ({"allow": [1]}, "COMBO", True, "value-not-allowed"),
        ({"allow": [True]}, "BOOLEAN", True, None),
        ({"allow": [True]}, "BOOLEAN", False, "value-not-allowed"),
        ({"allow": [True]}, "BOOLEAN", 1, TYPE),
        ({"allow": [True]}, "BOOLEAN", "true", TYPE),
        ({"allow": [""]}, "STRING", "", None),
        ({"allow": ["", "a*"]}, "STRING", "ab", None),
        ({"deny": ["*nsfw*"]}, "STRING", "a nsfw b", "value-denied"),
        ({"deny": ["*nsfw*"]}, "STRING", "a\nnsfw\nb", "value-denied"),
        ({"deny": ["*nsfw*"]}, "STRING", "fine", None),
        ({"deny": ["5"]}, "STRING", 5, TYPE),
        ({"deny": ["5"]}, "COMBO", 5, TYPE),
        ({"deny": [0]}, "INT", 0, "value-denied"),
        ({"deny": [0]}, "INT", 0.5, TYPE),
        ({"deny": [1]}, "COMBO", True, TYPE),
        ({"deny": [True]}, "BOOLEAN", True, "value-denied"),
        ({"deny": [True]}, "BOOLEAN", False, None),
        ({"max_length": 3}, "STRING", "abc", None),
        ({"max_length": 3}, "STRING", "äöü", None),
        ({"max_length": 3}, "STRING", "abcd", "value-too-long"),
        ({"max_length": 3}, "COMBO", 5, TYPE),
        ({"const": 1}, "INT", 1, None),
        ({"const": 1}, "INT", 2, "value-not-allowed"),
        ({"const": 1}, "COMBO", True, "value-not-allowed"),
        ({"const": "a*"}, "STRING", "a*", None),
        ({"const": "a*"}, "STRING", "ab", "value-not-allowed"),
        ({"const": False}, "BOOLEAN", False, None),
        ({"const": False}, "BOOLEAN", 0, TYPE),
    ],
)
def test_values_are_judged(fields: dict[str, Any], kind: str, value: Any, code: str | None) -> None:
    assert fault_of(fields, value, kind) == code


@pytest.mark.parametrize("value", [5, 5.0, True, None, {}, ["5"]])
@pytest.mark.parametrize("kind", ["STRING", "COMBO", "*"])
def test_other_kinds_do_not_evade_deny(value: Any, kind: str) -> None:
    assert fault_of({"deny": ["5"]}, value, kind) == TYPE


def test_long_lists_are_shown_short() -> None:
    assert compile_values(range(12)).words.endswith("9 and 2 more")
    assert compile_values(["a", True]).words == "'a', true"


def test_lines_bind_by_name_and_by_glob() -> None:
    lines = compile_constraints(
        {
            "KSampler.steps": InputConstraint(max=50),
            "*.steps": InputConstraint(max=80),
            "KS*.cfg": InputConstraint(max=9),
            "Is It?.x": InputConstraint(max=1),
        }
    )

    def keys(class_type: str, name: str) -> list[str]:
        return [line.key for line in lines.of(class_type, name)]

    assert keys("KSampler", "steps") == ["KSampler.steps", "*.steps"]
    assert keys("Other", "steps") == ["*.steps"]
    assert keys("Other", "inner.steps") == ["*.steps"]
    assert keys("KSampler", "cfg") == ["KS*.cfg"]
    assert keys("KSampler", "seed") == []
    assert keys("ksampler", "Steps") == []
    assert keys("Is It?", "x") == ["Is It?.x"]


PIXELS = Budget(of="width*height*batch_size?", max=1000)


@pytest.mark.parametrize(
    ("inputs", "bound"),
    [
        (["width", "height", "batch_size", "x"], [("width", "height", "batch_size")]),
        (["width", "height"], [("width", "height")]),
        (["width"], []),
        (["batch_size"], []),
        ([], []),
        (["t.width", "t.height"], [("t.width", "t.height")]),
        (["t.width", "t.height", "batch_size"], [("t.width", "t.height", "batch_size")]),
        (["width", "t.height"], [("width", "t.height")]),
        (["width", "height", "t.x"], [("width", "height")]),
        (["width", "height", "t.width"], [("width", "height"), ("t.width", "height")]),
    ],
)
def test_budgets_bind_classes_with_all_factors(inputs: list[str], bound: list[tuple[str, ...]]) -> None:
    assert [item.names for item in bind_budget("pixels", PIXELS, inputs)] == bound


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ((10, 10, 10), None),
        ((10, 10, 11), "budget-exceeded"),
        ((0.5, 2000, 1), None),
        ((0, 10**9, 1), "value-too-small"),
        ((-1, -1, 1), "value-too-small"),
        ((1e300, 1e300, 1), "budget-exceeded"),
        ((2**63, 2**63, 2**63), "budget-exceeded"),
    ],
)
def test_products_are_bounded(values: tuple[float, ...], code: str | None) -> None:
    (budget,) = bind_budget("pixels", PIXELS, ["width", "height", "batch_size"])
    fault = budget.find_fault(values)
    assert (None if fault is None else fault.reason.value) == code


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@given(NUMBERS, NUMBERS, st.sampled_from(["INT", "FLOAT", "COMBO", "INT,FLOAT"]))
def test_nothing_over_a_maximum_passes(limit: float, value: float, kind: str) -> None:
    if fault_of({"max": limit}, value, kind) is None:
        assert value <= limit
        assert math.isfinite(value)


@given(st.none() | st.booleans() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.integers()))
def test_what_is_no_number_never_passes_a_numeric_line(value: Any) -> None:
    for kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "*"):
        assert fault_of({"max": 5}, value, kind) in {TYPE}


def test_reasons_are_those_of_the_policy() -> None:
    assert NodeReason(TYPE) is NodeReason.VALUE_OF_OTHER_TYPE
