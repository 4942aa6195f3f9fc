from __future__ import annotations

import copy
from typing import Any

import pytest

from policy.catalogue import NodeClass, read_catalogue
from policy.narrowing import narrow_class
from tests.policy.graphs import CATALOGUE, OBJECT_INFO, make_policy


def narrow(name: str, lines: dict[str, Any]) -> Any:
    return narrow_class(CATALOGUE.classes[name], make_policy(inputs=lines))["input"]


def read_class(**inputs: Any) -> NodeClass:
    return read_catalogue({"C": {"input": {"required": inputs}}}).classes["C"]


def narrow_inputs(lines: dict[str, Any], **inputs: Any) -> Any:
    policy = make_policy(allow=["C"], inputs=lines)
    return narrow_class(read_class(**inputs), policy)["input"]["required"]


def test_what_nothing_binds_is_shown_as_it_is() -> None:
    policy = make_policy(inputs={"*.steps": {"max": 50}})
    classes = CATALOGUE.classes
    assert narrow_class(classes["SaveImage"], policy) is classes["SaveImage"].document
    assert narrow_class(classes["KSampler"], policy) is not classes["KSampler"].document


def test_comfyuis_document_is_never_changed() -> None:
    before = copy.deepcopy(OBJECT_INFO)
    lines = {"*.steps": {"max": 5}, "*.width": {"max": 64}, "*.ckpt_name": {"allow": ["sd*"]}, "*.image0": {"const": 1}}
    for found in CATALOGUE.classes.values():
        narrow_class(found, make_policy(inputs=lines))
    assert before == OBJECT_INFO


def test_numbers_show_their_bounds() -> None:
    steps = narrow("KSampler", {"*.steps": {"min": 5, "max": 50}, "KSampler.steps": {"max": 40}})["required"]["steps"]
    assert steps == ["INT", {"default": 20, "min": 5, "max": 40}]
    wider = narrow("KSampler", {"*.cfg": {"min": -5, "max": 500}})
    assert wider == OBJECT_INFO["KSampler"]["input"]


def test_steps_and_allowed_numbers_show() -> None:
    width = narrow("EmptyLatentImage", {"*.width": {"multiple_of": 64}})["required"]["width"]
    assert width[1]["step"] == 64
    width = narrow("EmptyLatentImage", {"*.width": {"allow": [768, 1024]}})["required"]["width"]
    assert (width[1]["min"], width[1]["max"], width[1]["default"]) == (768, 1024, 1024)
    assert narrow_inputs({"C.x": {"min": 2}}, x=["INT", {}])["x"] == ["INT", {"min": 2}]
    assert narrow_inputs({"C.x": {"max": 2}}, x=["FLOAT"])["x"] == ["FLOAT", {"max": 2}]


def test_a_default_that_would_be_refused_is_replaced() -> None:
    assert narrow("KSampler", {"*.steps": {"max": 10}})["required"]["steps"][1]["default"] == 10
    assert narrow("KSampler", {"*.steps": {"min": 30}})["required"]["steps"][1]["default"] == 10000
    assert "default" not in narrow_inputs({"C.x": {"multiple_of": 7}}, x=["INT", {"default": 1}])["x"][1]
    inputs = narrow_inputs({"C.x": {"max": 7}}, x=["INT", {"default": 9, "min": 1}])
    assert inputs["x"][1]["default"] == 7
    assert narrow_inputs({"C.x": {"const": "a"}}, x=["STRING", {"default": "b"}])["x"] == ["STRING", {}]


def test_choices_show_what_is_permitted() -> None:
    names = narrow("CheckpointLoaderSimple", {"*.ckpt_name": {"allow": ["sd_xl*"]}})["required"]["ckpt_name"]
    assert names == [["sd_xl_base.safetensors"], {}]
    combo = ["COMBO", {"options": ["a", "b"], "default": "a"}]
    assert narrow_inputs({"C.x": {"deny": ["a"]}}, x=combo)["x"] == ["COMBO", {"options": ["b"], "default": "b"}]
    assert narrow_inputs({"C.x": {"deny": ["z"]}}, x=combo)["x"] == combo
    old = [["a", "b"], {"default": "b"}]
    assert narrow_inputs({"C.x": {"deny": ["b"]}}, x=old)["x"] == [["a"], {"default": "a"}]
    assert narrow_inputs({"C.x": {"deny": ["a", "b"]}}, x=old)["x"] == [[], {}]


def test_dynamic_choices_are_narrowed_inside() -> None:
    resize = narrow("Resize", {"*.width": {"max": 64}})["required"]["resize_type"][1]["options"]
    assert resize[0]["inputs"]["required"]["width"] == ["INT", {"max": 64}]
    assert resize[1] == OBJECT_INFO["Resize"]["input"]["required"]["resize_type"][1]["options"][1]
    only = narrow("Resize", {"Resize.resize_type": {"allow": ["by factor"]}})["required"]["resize_type"][1]["options"]
    assert [option["key"] for option in only] == ["by factor"]
    default = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "a", "inputs": {}}, {"key": "b"}], "default": "a"}]
    found = narrow_inputs({"C.x": {"deny": ["a"]}}, x=default)["x"][1]
    assert found["default"] == "b"


def test_slots_are_narrowed_inside() -> None:
    slot = ["COMFY_DYNAMICSLOT_V3", {"inputs": {"required": {"n": ["INT", {}]}, "optional": None}}]
    found = narrow_inputs({"C.x.n": {"max": 3}}, x=slot)["x"]
    assert found[1]["inputs"] == {"required": {"n": ["INT", {"max": 3}]}, "optional": None}


@pytest.mark.parametrize(
    ("lines", "is_narrowed"),
    [
        ({"C.x.*": {"max": 3}}, True),
        ({"*.n0": {"max": 3}}, False),
        ({"C.y": {"max": 3}}, False),
    ],
)
def test_lists_that_grow_are_narrowed_when_all_are_bound(lines: dict[str, Any], is_narrowed: bool) -> None:
    template = {"input": {"required": {"n": ["INT", {}]}}, "prefix": "n", "min": 1, "max": 2}
    grown = ["COMFY_AUTOGROW_V3", {"template": template}]
    found = narrow_inputs(lines, x=grown, y=["FLOAT", {}])["x"]
    assert (found != grown) is is_narrowed
    if is_narrowed:
        assert found[1]["template"] == template | {"input": {"required": {"n": ["INT", {"max": 3}]}}}


def test_what_is_not_understood_is_shown_as_it_is() -> None:
    irregular = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "a", "inputs": {"required": {"n": "INT", "m": []}}}]}]
    assert narrow_inputs({"*.y": {"max": 3}}, x=irregular, y=["INT", {}])["x"] == irregular


def test_hidden_inputs_and_the_rest_stay() -> None:
    entry = OBJECT_INFO["KSampler"] | {"name": "KSampler"}
    entry["input"] = entry["input"] | {"hidden": {"unique_id": "UNIQUE_ID"}}
    found = narrow_class(
        read_catalogue({"KSampler": entry}).classes["KSampler"], make_policy(inputs={"*.steps": {"max": 9}})
    )
    assert found["input"]["hidden"] == {"unique_id": "UNIQUE_ID"}
    assert found["name"] == "KSampler"
