"""Examples are good calls: each function takes the arguments that its example gives."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.functions.arguments import read_arguments, read_written
from policy.functions.function import Function, make_function
from policy.functions.settings import FILES, FunctionSettings
from policy.openapi.examples import example_call
from policy.openapi.scripts import scripts_of
from policy.v2.links import Links

GATE = Links("https://comfy.example.com", "/art")
GRAPH = {"1": {"class_type": "Any", "inputs": {"value": 0}}, "2": {"class_type": "Save", "inputs": {}}}


def one(outputs: int = 1, **parameter: Any) -> Function:
    """A function of one parameter."""
    named = {f"out{number}": {"node": "2"} for number in range(outputs)}
    settings = {"parameters": {"value": {"fills": ["1.value"], **parameter}}, "outputs": named}
    return make_function("one", FunctionSettings.model_validate(settings), GRAPH)


@pytest.mark.parametrize(
    ("parameter", "given"),
    [
        ({"type": "text"}, "a lighthouse in the morning"),
        ({"type": "text", "max_length": 12}, "a lighthouse"),
        ({"type": "text", "default": ""}, ""),
        ({"type": "boolean"}, True),
        ({"type": "choice", "choices": ["a", "b"]}, "a"),
        ({"type": "integer"}, 0),
        ({"type": "integer", "min": 3}, 3),
        ({"type": "integer", "min": 0.5}, 1),
        ({"type": "integer", "min": 3, "multiple_of": 8}, 8),
        ({"type": "integer", "max": -3, "multiple_of": 8}, -8),
        ({"type": "integer", "default": 7}, 7),
        ({"type": "number"}, 0),
        ({"type": "number", "min": 0.25}, 0.25),
        ({"type": "number", "max": -0.25}, -0.25),
        ({"type": "number", "min": 0.3, "multiple_of": 0.25}, 0.5),
        ({"type": "seed", "default": 4}, 4),
    ],
)
def test_what_stands_in_an_example(parameter: dict[str, Any], given: Any) -> None:
    function = one(**parameter)
    call = example_call(function)
    assert call.texts == {"value": given}
    assert type(call.texts["value"]) is type(given) or parameter["type"] == "number"
    assert not call.files
    assert read_arguments(function.parameters, call.texts).values == {"value": given}


@pytest.mark.parametrize("parameter", [{"type": "seed"}, {"type": "image", "optional": True}])
def test_what_nobody_has_to_give_is_left_out(parameter: dict[str, Any]) -> None:
    call = example_call(one(**parameter))
    assert (call.texts, call.files) == ({}, {})


@pytest.mark.parametrize(
    ("kind", "file"), [("image", "png"), ("mask", "png"), ("audio", "flac"), ("video", "mp4")], ids=str
)
def test_files_are_named_by_their_parameter(kind: str, file: str) -> None:
    assert kind in FILES
    assert example_call(one(type=kind)).files == {"value": f"value.{file}"}


@given(
    st.integers(-1000, 1000),
    st.integers(0, 1000),
    st.sampled_from([None, 1, 2, 8, 0.5, 0.25]),
    st.booleans(),
    st.booleans(),
)
def test_numbers_are_within_their_bounds(
    low: int, span: int, step: float | None, has_low: bool, is_whole: bool
) -> None:
    bounds: dict[str, Any] = {"max": low + span}
    bounds |= {"min": low} if has_low else {}
    # Where no multiple lies between the bounds no call is good.
    bounds |= {"multiple_of": step} if step is not None and (span >= 8 or not has_low) else {}
    function = one(type="integer" if is_whole else "number", **bounds)
    if is_whole and step in (0.5, 0.25):
        return
    read_arguments(function.parameters, example_call(function).texts)


@given(st.text(max_size=40))
def test_no_text_leaves_its_place(text: str) -> None:
    """A default is the operator's, and may hold what a shell, Python or TypeScript would take for its own."""
    function = one(type="text", default=text)
    scripts = scripts_of(function, GATE)
    words = shlex.split(scripts["curl"])
    assert json.loads(words[words.index("-d") + 1]) == {"value": text}
    assert words[0] == "curl"
    compile(scripts["Python"], "example.py", "exec")
    assert f"json={ {'value': text}!r}," in scripts["Python"]
    assert f"JSON.stringify({json.dumps({'value': text}, ensure_ascii=False)})" in scripts["TypeScript"]
    assert all("https://comfy.example.com/art" in script for script in scripts.values())


@given(st.text(max_size=40))
def test_no_text_of_a_form_leaves_its_place(text: str) -> None:
    settings = {
        "parameters": {
            "words": {"type": "text", "default": text, "fills": ["1.value"]},
            "flag": {"type": "boolean", "default": True, "fills": ["1.flag"]},
            "picture": {"type": "image", "fills": ["1.image"]},
        }
    }
    graph = {"1": {"class_type": "Any", "inputs": {"value": "", "flag": False, "image": "a.png"}}}
    function = make_function("form", FunctionSettings.model_validate(settings), graph)
    scripts = scripts_of(function, GATE)
    words = shlex.split(scripts["curl"].partition("\nprintf")[0].removeprefix("JOB=$(").partition(") || ")[0])
    sent = dict(word.split("=", 1) for at, word in enumerate(words) if words[at - 1] == "--form-string")
    assert sent["words"] == text
    assert read_written("flag", function.parameters["flag"], sent["flag"]) is True
    assert "picture=@picture.png" in words
    compile(scripts["Python"], "example.py", "exec")
    assert f'form.append("words", {json.dumps(text, ensure_ascii=False)});' in scripts["TypeScript"]


def test_several_outputs_are_fetched_one_by_one() -> None:
    assert "-OJ https" in scripts_of(one(type="seed"), GATE)["curl"]
    for outputs in (0, 2):
        script = scripts_of(one(outputs, type="seed"), GATE)["curl"]
        assert script.startswith("JOB=$(curl")
        assert "while read -r URL" in script


def test_a_form_without_texts() -> None:
    scripts = scripts_of(one(type="image"), GATE)
    assert "data=" not in scripts["Python"]
    assert 'files={"value": open("value.png", "rb")}' in scripts["Python"]
