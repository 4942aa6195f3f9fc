"""Arguments: what their parameters take, from JSON and from forms, and what becomes of the workflow."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.functions.arguments import (
    LEAST_INTEGER,
    MAX_DRAWN,
    MAX_SEED,
    bounds_of,
    read_argument,
    read_arguments,
    read_written,
)
from policy.functions.settings import ParameterSettings
from policy.violation import Reason, Violation
from tests.policy.functions.examples import GRAPH, PARAMETERS, function


def parameter(kind: str, **more: Any) -> ParameterSettings:
    return ParameterSettings.model_validate({"type": kind, "fills": ["1.x"], **more})


def words(kind: str, argument: Any, **more: Any) -> str:
    with pytest.raises(Violation) as refused:
        read_argument("it", parameter(kind, **more), argument)
    assert refused.value.reason is Reason.ARGUMENT_REFUSED
    assert refused.value.details == "it"
    return refused.value.message


@pytest.mark.parametrize(
    ("kind", "argument", "read", "more"),
    [
        ("text", "a", "a", {}),
        ("boolean", True, True, {}),
        ("choice", "a", "a", {"choices": ["a", 1]}),
        ("choice", 1, 1, {"choices": ["a", 1]}),
        ("integer", 5, 5, {"min": 5, "max": 5}),
        ("integer", 5.0, 5, {}),
        ("seed", MAX_SEED, MAX_SEED, {}),
        ("number", 0.3, 0.3, {"multiple_of": 0.1}),
        ("number", 3, 3, {}),
    ],
)
def test_what_is_taken(kind: str, argument: Any, read: Any, more: dict[str, Any]) -> None:
    found = read_argument("it", parameter(kind, **more), argument)
    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize(
    ("kind", "argument", "rule", "more"),
    [
        ("text", 1, "a text", {}),
        ("text", "abc", "at most 2 characters", {"max_length": 2}),
        ("text", "x" * 100_001, "at most 100000 characters", {}),
        ("boolean", 1, "true or false", {}),
        ("choice", True, "one of a, 1", {"choices": ["a", 1]}),
        ("integer", 5.5, "whole number", {}),
        ("integer", True, "whole number", {}),
        ("integer", "5", "whole number", {}),
        ("integer", 4, "at least 5", {"min": 5}),
        ("integer", 6, "at most 5", {"max": 5}),
        ("integer", 6, "a multiple of 4", {"multiple_of": 4}),
        ("seed", -1, "from 0 to", {}),
        ("seed", MAX_SEED + 1, "from 0 to", {}),
        ("integer", -(2**63) - 1, "from -", {}),
        ("integer", -1e19, "from -", {}),
        ("number", 1e300, "a multiple of", {"multiple_of": 1e-9}),
        ("integer", 10**400, "from -", {"multiple_of": 2}),
        ("number", 10**400, "a number", {"multiple_of": 2}),
        ("number", float("inf"), "a number", {}),
        ("number", float("nan"), "a number", {}),
        ("number", "1", "a number", {}),
        ("number", False, "a number", {}),
        ("number", 0.25, "a multiple of 0.1", {"multiple_of": 0.1}),
    ],
)
def test_what_is_refused(kind: str, argument: Any, rule: str, more: dict[str, Any]) -> None:
    assert rule in words(kind, argument, **more)


@pytest.mark.parametrize("argument", [LEAST_INTEGER, float(LEAST_INTEGER), MAX_SEED, 1e19])
def test_the_greatest_numbers_are_written_as_json(argument: float) -> None:
    assert orjson.loads(orjson.dumps(read_argument("it", parameter("integer"), argument))) == argument


def test_all_of_a_call() -> None:
    found = read_arguments(function().parameters, {"picture": "an id", "size": 128, "flip": None})
    assert found.values == {"prefix": "x", "size": 128, "scale": 1.0, "flip": False, "kind": "a"}
    assert found.files == {"picture": "an id"}
    assert found.to_draw == ()


@pytest.mark.parametrize(
    ("given", "name", "rule"),
    [
        ({"picture": "a", "other": 1}, "other", "there are picture, prefix"),
        ({}, "picture", "it must be given"),
        ({"picture": "a", "needed": None}, "needed", "it must be given"),
    ],
)
def test_a_call_that_is_none(given: dict[str, Any], name: str, rule: str) -> None:
    needed = {"needed": {"type": "text", "fills": ["9.x"]}}
    graph = GRAPH | {"9": {"class_type": "X", "inputs": {"x": ""}}}
    with pytest.raises(Violation) as refused:
        read_arguments(function(graph=graph, parameters=PARAMETERS | needed).parameters, given)
    assert refused.value.details == name
    assert rule in refused.value.message


def test_who_takes_nothing_says_so() -> None:
    with pytest.raises(Violation, match="none at all"):
        read_arguments({}, {"x": 1})


def test_a_seed_is_drawn_and_an_optional_file_is_left() -> None:
    parameters = {"seed": parameter("seed"), "picture": parameter("image", optional=True)}
    found = read_arguments(parameters, {})
    assert (found.values, found.files, found.to_draw) == ({}, {}, ("seed",))
    assert bounds_of(parameters["seed"]) == (0, MAX_DRAWN)
    assert bounds_of(parameter("seed", min=3.5, max=9)) == (4, 9)
    assert bounds_of(parameter("seed", min=2**60, max=2**61)) == (2**60, 2**60)


def test_the_functions_own_workflow_stays_as_it_is() -> None:
    before = copy.deepcopy(GRAPH)
    filled = function().workflow.filled({"size": 8, "picture": "other.png"})
    assert filled["3"]["inputs"] == GRAPH["3"]["inputs"] | {"width": 8, "height": 8}
    assert filled["1"]["inputs"] == {"image": "other.png"}
    assert before == GRAPH


@pytest.mark.parametrize(
    ("kind", "text", "read"),
    [
        ("text", "12", "12"),
        ("image", "an id", "an id"),
        ("boolean", "TRUE", True),
        ("boolean", "off", False),
        ("integer", "-12", -12),
        ("seed", "7", 7),
        ("number", "1.5e2", 150.0),
        ("number", ".5", 0.5),
        ("choice", "3", 3),
        ("choice", "true", True),
        ("choice", "c", "c"),
    ],
)
def test_what_stands_in_a_form(kind: str, text: str, read: Any) -> None:
    more = {"choices": ["a", 3, True]} if kind == "choice" else {}
    found = read_written("it", parameter(kind, **more), text)
    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize(
    ("kind", "text", "rule"),
    [
        ("boolean", "yes", "true or false"),
        ("integer", "1.5", "whole number"),
        ("integer", "1" * 30, "whole number"),
        ("integer", "\u0661", "whole number"),
        ("number", "nan", "a number"),
        ("number", "1_0", "a number"),
        ("number", "", "a number"),
    ],
)
def test_what_is_no_spelling_of_it(kind: str, text: str, rule: str) -> None:
    with pytest.raises(Violation, match=rule):
        read_written("it", parameter(kind), text)


@given(st.text(max_size=40), st.sampled_from(["boolean", "integer", "seed", "number"]))
def test_a_text_is_read_or_refused_and_never_breaks(text: str, kind: str) -> None:
    with contextlib.suppress(Violation):
        read_argument("it", parameter(kind), read_written("it", parameter(kind), text))
