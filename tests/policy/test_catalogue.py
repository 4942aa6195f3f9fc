from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.catalogue import MAX_GROWN, Catalogue, NodeClass, expand_inputs, list_options, read_catalogue, read_inputs
from tests.policy.graphs import CATALOGUE, OBJECT_INFO


def read_one(entry: Any) -> NodeClass | None:
    return read_catalogue({"C": entry}).get("C")


def read_class(**inputs: Any) -> NodeClass:
    found = read_one({"input": {"required": inputs}})
    assert found is not None
    return found


def test_classes_are_read() -> None:
    found = CATALOGUE.classes["KSampler"]
    assert found.inputs["steps"].type == "INT"
    assert found.inputs["steps"].options["max"] == 10000
    assert found.inputs["steps"].is_required
    assert not found.inputs["denoise"].is_required
    assert found.inputs["sampler_name"].choices == ("euler", "dpmpp_2m")
    assert found.inputs["sampler_name"].type == "COMBO"
    assert CATALOGUE.classes["Tags"].inputs["tags"].choices == ("a", "b")
    assert found.outputs == ("LATENT",)
    assert found.document is OBJECT_INFO["KSampler"]
    assert CATALOGUE.classes["SaveImage"].is_output_node
    assert CATALOGUE.classes["SaveImage"].display_name == "Save Image"
    assert CATALOGUE.get("Ghost") is None


@pytest.mark.parametrize("document", [None, [], "x", 5])
def test_other_documents_are_an_empty_catalogue(document: Any) -> None:
    assert read_catalogue(document) == Catalogue()


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"input": []},
        {"input": {"required": []}},
        {"input": {"required": {"x": "INT"}}},
        {"input": {"required": {"x": []}}},
        {"input": {"optional": {"x": [{"a": 1}]}}},
    ],
)
def test_what_is_not_understood_is_left_out(entry: Any) -> None:
    assert read_one(entry) is None


@pytest.mark.parametrize(
    ("entry", "is_api"),
    [
        ({"input": {}}, False),
        ({"input": {"hidden": []}}, False),
        ({"input": {}, "api_node": True}, True),
        ({"input": {"hidden": {"auth_token_comfy_org": ["AUTH_TOKEN_COMFY_ORG"]}}}, True),
        ({"input": {"hidden": {"auth_token": "AUTH_TOKEN_COMFY_ORG"}}}, True),
        ({"input": {"hidden": {"unique_id": "UNIQUE_ID", "prompt": ["PROMPT"]}}}, False),
    ],
)
def test_classes_that_call_paid_services_are_known(entry: Any, is_api: bool) -> None:
    found = read_one(entry)
    assert found is not None
    assert found.is_api_node is is_api


def test_outputs_that_are_no_list_are_none() -> None:
    found = read_one({"input": {}, "output": "IMAGE"})
    assert found is not None
    assert found.outputs == ()


def test_fixed_inputs_expand_to_themselves() -> None:
    found = CATALOGUE.classes["KSampler"]
    assert expand_inputs(found, {}) == found.inputs


def test_lists_grow_by_prefix_and_by_name() -> None:
    batch = expand_inputs(CATALOGUE.classes["Batch"], {})
    assert list(batch) == ["images.image0", "images.image1", "images.image2"]
    assert [spec.is_required for spec in batch.values()] == [True, False, False]
    assert batch["images.image0"].type == "IMAGE"
    template = {"input": {"optional": {"v": ["*", {}]}}, "names": ["a", "b"], "min": 1}
    named = expand_inputs(read_class(values=["COMFY_AUTOGROW_V3", {"template": template}]), {})
    assert {name: spec.is_required for name, spec in named.items()} == {"values.a": False, "values.b": False}


def test_lists_grow_to_comfyuis_bound_only() -> None:
    template = {"input": {"required": {"v": ["*"]}}, "prefix": "v", "max": 10**9}
    assert len(expand_inputs(read_class(v=["COMFY_AUTOGROW_V3", {"template": template}]), {})) == MAX_GROWN


@pytest.mark.parametrize(
    "template",
    [
        None,
        {},
        {"input": {}, "names": ["a"]},
        {"input": {"required": {"v": "*"}}, "names": ["a"]},
        {"input": {"required": {"v": ["*"]}}},
        {"input": {"required": {"v": ["*"]}}, "prefix": "v", "max": "3"},
        {"input": {"required": {"v": ["*"]}}, "names": "ab"},
    ],
)
def test_lists_that_are_not_understood_have_no_inputs(template: Any) -> None:
    assert expand_inputs(read_class(v=["COMFY_AUTOGROW_V3", {"template": template}]), {}) == {}


def test_choices_bring_inputs_of_their_own() -> None:
    found = CATALOGUE.classes["Resize"]
    assert set(expand_inputs(found, {"resize_type": "by factor"})) == {
        "image",
        "resize_type",
        "resize_type.multiplier",
    }
    for other in ({}, {"resize_type": "x"}, {"resize_type": ["1", 0]}, {"resize_type.width": 1}):
        assert set(expand_inputs(found, other)) == {"image", "resize_type"}


def test_choices_nest() -> None:
    template = {"input": {"required": {"i": ["IMAGE"]}}, "prefix": "i", "max": 1}
    deep = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "y", "inputs": {"required": {"n": ["INT"]}}}]}]
    inner = {"required": {"deep": deep}, "optional": {"pics": ["COMFY_AUTOGROW_V3", {"template": template}]}}
    outer = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "k", "inputs": inner}, {"key": "e"}]}]
    found = read_class(c=outer)
    assert set(expand_inputs(found, {"c": "k", "c.deep": "y"})) == {"c", "c.deep", "c.deep.n", "c.pics.i0"}
    assert set(expand_inputs(found, {"c": "e"})) == {"c"}


def test_slots_bring_inputs_when_they_are_filled() -> None:
    found = read_class(s=["COMFY_DYNAMICSLOT_V3", {"inputs": {"optional": {"n": ["INT"]}}}])
    assert set(expand_inputs(found, {})) == {"s"}
    assert set(expand_inputs(found, {"s": ["1", 0]})) == {"s", "s.n"}


def test_options_that_are_not_understood_are_left_out() -> None:
    options = [{"key": "a"}, {"key": 5}, "b", {}]
    assert list_options(read_class(c=["COMFY_DYNAMICCOMBO_V3", {"options": options}]).inputs["c"]) == [{"key": "a"}]
    assert list_options(read_class(c=["COMFY_DYNAMICCOMBO_V3", {}]).inputs["c"]) == []


@pytest.mark.parametrize("sections", [None, [], {}, {"required": None}])
def test_no_sections_are_no_inputs(sections: Any) -> None:
    assert read_inputs(sections) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["INT", "COMFY_AUTOGROW_V3"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["input", "required", "optional", "hidden", "output", "template", "options", "key"]), inner
        )
    ),
)


@given(JSON)
def test_reading_is_total(document: Any) -> None:
    for found in read_catalogue({"C": document}).classes.values():
        expand_inputs(found, {})
    read_catalogue(document)
