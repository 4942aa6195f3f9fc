"""What ComfyUI is certain to accept. tests/differential/test_surely_valid.py asks ComfyUI itself."""

from __future__ import annotations

from typing import Any

import pytest

from policy.catalogue import Catalogue, read_catalogue
from policy.compiled_policy import ADMIN_POLICY
from policy.surely_valid import is_surely_valid
from tests.policy.graphs import OBJECT_INFO, make_prompt, node, run, with_input
from tests.policy.tenants import plans_of

_MATCH = "COMFY_MATCHTYPE_V3"


def entry(required: dict[str, Any], outputs: list[Any], **more: Any) -> dict[str, Any]:
    optional = more.pop("optional", {})
    sections = {"required": required, "optional": optional}
    return {"input": sections, "output": outputs, "output_node": False, "python_module": "comfy_extras.nodes_x"} | more


def choosing(*inputs: Any) -> list[Any]:
    """A dynamic combo with the option "on", which brings these inputs."""
    return ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "on", "inputs": {"required": dict(inputs)}}, {"key": "off", "inputs": {}}]}]  # fmt: skip


INFO: dict[str, Any] = OBJECT_INFO | {
    "Show": entry({"source": ["*", {}]}, [], output_node=True),
    "Whole": entry({"value": ["INT", {"min": -3, "max": 9}]}, ["INT"]),
    "Number": entry({"value": ["FLOAT", {"min": 0, "max": 1.5}]}, ["FLOAT"]),
    "Endless": entry({"value": ["FLOAT", {}]}, ["FLOAT"]),
    "Odd": entry({"value": ["INT", {"min": "0"}]}, ["INT"]),
    "OddTop": entry({"value": ["INT", {"max": None}]}, ["INT"]),
    "Text": entry({"value": ["STRING", {}]}, ["STRING"]),
    "Long": entry({"value": ["STRING", {"max": 3}]}, ["STRING"]),
    "Switch": entry({"value": ["BOOLEAN", {}]}, ["BOOLEAN"]),
    "Choice": entry({"value": ["COMBO", {"options": ["a", "b", 3]}]}, ["COMBO"]),
    "OldChoice": entry({"value": [["a", "b"], {}]}, ["STRING"]),
    "NoChoice": entry({"value": ["COMBO", {"remote": {}}]}, ["STRING"]),
    "OddChoice": entry({"value": ["COMBO", {"options": [["a"]]}]}, ["STRING"]),
    "Color": entry({"value": ["COLOR", {}]}, ["COLOR"]),
    "Low": entry({"value": ["CURVE", {"min": 0}]}, ["CURVE"]),
    "Either": entry({"value": ["INT, FLOAT", {}]}, ["INT,FLOAT"]),
    "Or": entry({"value": ["*,MASK", {}]}, ["*"]),
    "Matched": entry({"value": [_MATCH, {}]}, [_MATCH]),
    "Listed": entry({"value": ["*", {}]}, [["a", "b"]]),
    "Nameless": entry({"value": ["*", {}]}, [""]),
    "Optional": entry({}, ["INT"], optional={"value": ["INT", {"min": 0}]}),
    "Chooser": entry({"mode": choosing(("size", ["INT", {"max": 9}]))}, ["INT"]),
    "Nested": entry({"mode": choosing(("inner", choosing()))}, ["INT"]),
    "OddMode": entry({"mode": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": 5}]}]}, ["INT"]),
    "NoMode": entry({"mode": ["COMFY_DYNAMICCOMBO_V3", {}]}, ["INT"]),
    "BadMode": entry({"mode": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "on", "inputs": {"required": [1]}}]}]}, ["INT"]),
    "Slot": entry({"slot": ["COMFY_DYNAMICSLOT_V3", {"inputs": {}}]}, ["INT"]),
    "NoList": entry({"images": ["COMFY_AUTOGROW_V3", {}]}, ["IMAGE"]),
    "Mine": entry({}, ["INT"], python_module="custom_nodes.mine"),
    "Elsewhere": entry({}, ["INT"], python_module="nodes_of_mine"),
    "LoadAudio": entry({"audio": [["a.wav"], {}]}, ["AUDIO"]),
}  # fmt: skip
CATALOGUE: Catalogue = read_catalogue(INFO)


def is_sure(prompt: dict[str, Any], **body: Any) -> bool:
    """The same with what the judge has proven, and without."""
    judged = run(prompt, catalogue=CATALOGUE, policy=ADMIN_POLICY, **body)
    chosen = judged.partial_execution_targets
    outputs = [each for each, plan in judged.plans.items() if plan.is_output and (chosen is None or each in chosen)]
    answers = {is_surely_valid(judged.nodes, judged.plans, outputs, unproven) for unproven in (None, judged.unproven)}
    assert len(answers) == 1
    return answers.pop()


def shown(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node whose result an output node shows."""
    return {"1": node(class_type, **inputs), "2": node("Show", source=["1", 0])}


def wrapped(value: Any) -> dict[str, Any]:
    """As the web UI writes a value that could be taken for a link."""
    return {"__value__": value}


def linked(maker: dict[str, Any], class_type: str, name: str = "value") -> dict[str, Any]:
    return {"0": maker, "1": node(class_type, **{name: ["0", 0]}), "2": node("Show", source=["1", 0])}


def test_an_ordinary_workflow() -> None:
    assert is_sure(make_prompt())


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", "7"), ("seed", 7.0), ("seed", True), ("steps", 0), ("cfg", 100.1), ("cfg", "7"), ("sampler_name", "ddim"),
     ("model", ["4", 1]), ("sampler_name", ["4", 0]), ("denoise", -0.1)],
)  # fmt: skip
def test_one_value_that_may_be_refused(name: str, value: Any) -> None:
    assert not is_sure(with_input("3", name, value))


@pytest.mark.parametrize(("maker", "expected"), [("Text", True), ("Whole", False)])
def test_a_name_of_a_file_may_come_by_a_link(maker: str, expected: bool) -> None:
    prompt = with_input("9", "filename_prefix", ["20", 0])
    assert is_sure(prompt | {"20": node(maker, value=5)}) is expected


def test_what_is_required_is_there() -> None:
    prompt = make_prompt()
    del prompt["3"]["inputs"]["denoise"]
    assert is_sure(prompt)
    del prompt["3"]["inputs"]["seed"]
    assert not is_sure(prompt)


def test_what_is_not_declared_is_not_looked_at() -> None:
    assert is_sure(with_input("3", "note", "anything"))


@pytest.mark.parametrize(
    ("class_type", "good", "bad"),
    [
        ("Whole", [-3, 9, 0, wrapped(5)], [wrapped(10), -4, 10, 1.0, False, "1", None, {"a": 1}]),
        ("Number", [0, 1, 1.5, 0.0], [-0.1, 2, 1.51, True, "1", None]),
        ("Endless", [-5, 1e300, 2**53], [2**53 + 1, -(2**60), "1"]),
        ("Odd", [], [1, 0]),
        ("OddTop", [], [1, 0]),
        ("Text", ["", "x", 5, 1.5, True, None], [{"a": 1}]),
        ("Long", [], ["x", 1]),
        ("Switch", [True, False, 0, "x", None], [{"a": 1}]),
        ("Choice", ["a", 3, 3.0, wrapped("a")], ["c", 4, None, True, wrapped("c")]),
        ("OldChoice", ["a", "b"], ["c", "", None]),
        ("NoChoice", [], ["a", ""]),
        ("OddChoice", [], ["a"]),
        ("Color", ["#fff", 5, None, {"r": 1}, wrapped([1, 2])], []),
        ("Low", [], [{"points": 1}, 5]),
        ("Or", ["x", 5], []),
        ("Optional", [0, 5], [-1]),
    ],
)
def test_constants(class_type: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert is_sure(shown(class_type, value=value)), value
    for value in bad:
        assert not is_sure(shown(class_type, value=value)), value


WHOLE = node("Whole", value=1)


@pytest.mark.parametrize(
    ("maker", "class_type", "expected"),
    [
        (WHOLE, "Whole", True),
        (WHOLE, "Number", False),
        (WHOLE, "Either", True),
        (node("Either", value=1), "Number", True),
        (node("Either", value=1), "Text", False),
        (WHOLE, "Or", True),
        (node("Or", value=1), "Whole", True),
        (node("Or", value=1), "OldChoice", True),
        (WHOLE, "Matched", True),
        (node("Matched", value=1), "Choice", True),
        (node("Choice", value="a"), "Choice", False),
        (node("Choice", value="a"), "OldChoice", False),
        (node("Text", value="a"), "OldChoice", False),
        (node("Listed", value=1), "Or", False),
        (node("Nameless", value=1), "Choice", False),
        (node("Nameless", value=1), "Text", False),
    ],
)
def test_links(maker: dict[str, Any], class_type: str, expected: bool) -> None:
    assert is_sure(linked(maker, class_type)) is expected


@pytest.mark.parametrize("value", [[], ["x"], ["a", "b"], [1, 2, 3]])
def test_lists_that_are_no_links(value: Any) -> None:
    assert not is_sure(shown("Text", value=value))


@pytest.mark.parametrize(
    ("class_type", "inputs", "expected"),
    [
        ("Chooser", {"mode": "on", "mode.size": 9}, True),
        ("Chooser", {"mode": "on", "mode.size": 10}, False),
        ("Chooser", {"mode": "on"}, False),
        ("Chooser", {"mode": "off"}, True),
        ("Chooser", {"mode": "else"}, False),
        ("Chooser", {}, False),
        ("Nested", {"mode": "off"}, False),
        ("OddMode", {"mode": "on"}, False),
        ("NoMode", {"mode": "on"}, False),
        ("BadMode", {"mode": "on"}, False),
        ("Slot", {}, False),
        ("NoList", {}, False),
        ("Batch", {}, False),
    ],
)
def test_inputs_that_depend_on_others(class_type: str, inputs: dict[str, Any], expected: bool) -> None:
    assert is_sure(shown(class_type, **inputs)) is expected


def test_a_list_that_grows() -> None:
    picture = node("VAEDecode", samples=["5", 0], vae=["4", 2])
    prompt = make_prompt() | {"10": picture, "11": node("Batch", **{"images.image0": ["10", 0]})}
    assert is_sure(prompt | {"12": node("Show", source=["11", 0])})


@pytest.mark.parametrize("class_type", ["Mine", "Elsewhere"])
def test_classes_from_outside_may_check_by_themselves(class_type: str) -> None:
    assert not is_sure(shown(class_type))


def test_some_of_comfyuis_classes_check_by_themselves() -> None:
    assert not is_sure(shown("LoadAudio", audio="a.wav"))
    assert not is_sure(shown("LoadImage", image="a.png"))


def test_an_output_is_asked_for() -> None:
    assert not is_sure({"1": WHOLE})
    assert is_sure(make_prompt(), partial_execution_targets=["9"])
    assert not is_sure(make_prompt(), partial_execution_targets=["8"])


@pytest.mark.parametrize("link", [["gone", 0], ["1", 1], ["1", -1], ["1", True], ["1", 0.0]])
def test_links_to_nowhere(link: list[Any]) -> None:
    """Of workflows that were not judged."""
    nodes = {"1": WHOLE, "2": node("Show", source=["1", 0])}
    plans = plans_of(nodes, CATALOGUE)
    assert is_surely_valid(nodes, plans, ["2"])
    nodes["2"]["inputs"]["source"] = link
    assert not is_surely_valid(nodes, plans, ["2"])


def test_what_no_output_needs_is_not_looked_at() -> None:
    loose = {"20": node("LoadImage", image="a.png"), "21": node("ImageBlur", image=["20", 0])}
    assert is_sure(make_prompt() | loose)
    assert not is_sure(make_prompt() | loose | {"22": node("Show", source=["21", 0])})
    assert is_sure(make_prompt() | loose | {"22": node("Show", source=["21", 0])}, partial_execution_targets=["9"])


def test_what_cannot_run_does_not_count() -> None:
    """The judge leaves it out, so ComfyUI never sees it."""
    broken = {"20": node("SaveImage", images=["gone", 0], filename_prefix="x")}
    assert is_sure(make_prompt() | broken)
