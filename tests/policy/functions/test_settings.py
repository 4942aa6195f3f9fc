"""What a function's file may say, and each way of being wrong."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from policy.functions.arguments import read_argument
from policy.functions.function import is_graph, make_function
from policy.functions.schema import arguments_schema
from policy.functions.settings import FunctionSettings, ParameterSettings
from policy.violation import Violation
from tests.policy.functions.examples import GRAPH, PARAMETERS, function, settings


def mistakes(**parameter: Any) -> str:
    with pytest.raises(ValidationError) as wrong:
        ParameterSettings.model_validate({"fills": ["1.x"], **parameter})
    return str(wrong.value)


@pytest.mark.parametrize(
    ("parameter", "rule"),
    [
        ({"type": "text", "fills": []}, "at least 1 item"),
        ({"type": "text", "fills": ["1x"]}, "is not an input of a node"),
        ({"type": "text", "fills": ["1."]}, "is not an input of a node"),
        ({"type": "text", "fills": [".x"]}, "is not an input of a node"),
        ({"type": "text", "min": 1}, "min is for numbers"),
        ({"type": "integer", "min": 2, "max": 1}, "no value would pass"),
        ({"type": "seed", "multiple_of": 2}, "multiple_of is not for it"),
        ({"type": "integer", "multiple_of": 0}, "greater than 0"),
        ({"type": "integer", "max_length": 3}, "max_length is for text"),
        ({"type": "choice"}, "choices belong"),
        ({"type": "text", "choices": ["a"]}, "choices belong"),
        ({"type": "text", "optional": True}, "optional is for files"),
        ({"type": "image", "default": "a.png"}, "a file has no default"),
        ({"type": "text", "deflaut": "a"}, "Extra inputs"),
        ({"type": "colour"}, "Input should be"),
    ],
)
def test_what_a_parameter_cannot_be(parameter: dict[str, Any], rule: str) -> None:
    assert rule in mistakes(**parameter)


@pytest.mark.parametrize("file", ["../x.json", "x.toml", ".x.json", "a\\b.json"])
def test_a_workflow_lies_beside_it(file: str) -> None:
    with pytest.raises(ValidationError, match="beside this one"):
        FunctionSettings.model_validate({"workflow": file})
    assert FunctionSettings.model_validate({"workflow": "x.json"}).workflow == "x.json"


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "x" * 64, "é"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(ValidationError, match="is no name"):
        FunctionSettings.model_validate({"outputs": {name: {"node": "1"}}})
    with pytest.raises(ValueError, match="is no name"):
        make_function(name, settings(), GRAPH)


@pytest.mark.parametrize(
    ("more", "graph", "rule"),
    [
        ({}, {"nodes": [], "links": []}, "save format"),
        ({}, {"1": {"class_type": "X"}}, "not in the API format"),
        ({"parameters": {"a": {"type": "text", "fills": ["9.x"]}}}, GRAPH, "the workflow has no input 9.x"),
        ({"parameters": {"a": {"type": "text", "fills": ["2.images"]}}}, GRAPH, "is a link to another node"),
        ({"parameters": PARAMETERS | {"b": PARAMETERS["size"]}}, GRAPH, "3.width is filled by size too"),
        ({"outputs": {"o": {"node": "9"}}}, GRAPH, "outputs.o: the workflow has no node 9"),
        ({"parameters": {"size": PARAMETERS["size"] | {"default": 9}}}, GRAPH, "parameters.size.default: "),
        ({"parameters": {"size": PARAMETERS["size"] | {"max": 10**30}}}, GRAPH, "more than 64 bits"),
    ],
)
def test_what_does_not_fit_its_workflow(more: dict[str, Any], graph: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        function(graph=graph, **more)


def test_every_mistake_is_told() -> None:
    wrong: dict[str, Any] = {
        "parameters": {"a": {"type": "text", "fills": ["8.x", "9.x"]}},
        "outputs": {"o": {"node": "9"}},
    }
    with pytest.raises(ValueError, match="no node 9") as told:
        function(**wrong)
    assert len(str(told.value).splitlines()) == 3


@pytest.mark.parametrize("document", [None, [], {}, {"1": 2}, {"1": {"class_type": 1, "inputs": {}}}])
def test_what_is_no_workflow(document: Any) -> None:
    assert not is_graph(document)


def test_its_version_is_of_settings_and_workflow() -> None:
    first = function()
    assert first.version == function(labels=["24gb"]).version, "wherever it runs"
    assert first.version != function(title="Other").version
    assert first.version != function(graph=GRAPH | {"9": {"class_type": "X", "inputs": {}}}).version
    assert (first.title, function(title="Wear it").title) == ("wear", "Wear it")
    assert first.outputs == {"result": "2"}


def test_its_schema() -> None:
    schema = arguments_schema(
        function(
            parameters=PARAMETERS
            | {
                "prefix": {
                    "type": "text",
                    "fills": ["2.filename_prefix"],
                    "title": "Prefix",
                    "description": "Of names.",
                },
                "seed": {"type": "seed", "fills": ["9.seed"], "max": 9},
            },
            graph=GRAPH | {"9": {"class_type": "X", "inputs": {"seed": 1}}},
        )
    )
    shown = schema["properties"]
    assert schema["required"] == ["picture", "prefix"]
    assert schema["additionalProperties"] is False
    assert shown["picture"]["type"] == "string"
    assert "multipart" in shown["picture"]["description"]
    assert shown["prefix"] == {"type": "string", "maxLength": 100_000, "title": "Prefix", "description": "Of names."}
    assert shown["size"] == {"type": "integer", "minimum": 8, "maximum": 512, "multipleOf": 8, "default": 64}
    bounds = {"minimum": -1e300, "maximum": 1e300}
    assert shown["scale"] == {"type": "number", **bounds, "multipleOf": 0.1, "default": 1.0}
    assert shown["flip"] == {"type": "boolean", "default": False}
    assert shown["kind"] == {"enum": ["a", "b", 3, True], "default": "a"}
    assert shown["seed"] == {"type": "integer", "minimum": 0, "maximum": 9}
    assert "required" not in arguments_schema(function(parameters={}))


@pytest.mark.parametrize("kind", ["integer", "number", "seed"])
@pytest.mark.parametrize("own", [{}, {"min": -1e30, "max": 1e30}], ids=["without bounds", "with wider ones"])
def test_its_schema_has_the_bounds_that_are_held(kind: str, own: dict[str, float]) -> None:
    parameter = {"type": kind, "fills": ["9.value"], **own}
    called = function(parameters={"n": parameter}, graph=GRAPH | {"9": {"class_type": "X", "inputs": {"value": 1}}})
    shown = arguments_schema(called)["properties"]["n"]
    settings = called.parameters["n"]
    low, high = shown["minimum"], shown["maximum"]
    assert orjson.loads(orjson.dumps(shown))["minimum"] == low
    if kind != "number" or not own:
        for outside in (low - 1 if kind != "number" else low * 1.1, high + 1 if kind != "number" else high * 1.1):
            with pytest.raises(Violation):
                read_argument("n", settings, outside)
    assert [read_argument("n", settings, each) for each in (low, high)] == [low, high]
