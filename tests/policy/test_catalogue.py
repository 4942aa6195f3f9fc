from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.catalogue import (
    MAX_GROWN,
    Catalogue,
    InputSpec,
    NodeClass,
    expand_inputs,
    list_options,
    read_catalogue,
    read_catalogue_text,
    read_inputs,
)
from policy.members import each_member


def entry(required: Any = None, optional: Any = None, **more: Any) -> dict[str, Any]:
    return {"input": {"required": required or {}, "optional": optional or {}}, "output": ["IMAGE"]} | more


def read_one(document: Any) -> NodeClass:
    node_class = read_catalogue({"Node": document}).get("Node")
    assert node_class is not None
    return node_class


def names_of(node_class: NodeClass, **given: Any) -> list[str]:
    return list(expand_inputs(node_class, given))


def test_a_class_is_read_with_its_inputs() -> None:
    document = entry(
        {"width": ["INT", {"min": 1}], "mode": [["a", "b"], {"image_upload": True}]},
        {"kind": ["COMBO", {"options": ["x"]}], "free": ["COMBO", {}]},
        output_node=True,
        python_module="comfy_extras.nodes_x",
        display_name="A node",
    )
    node_class = read_one(document)
    assert node_class.inputs["width"] == InputSpec("width", "INT", None, {"min": 1}, True)
    assert node_class.inputs["mode"] == InputSpec("mode", "COMBO", ("a", "b"), {"image_upload": True}, True)
    assert node_class.inputs["kind"].choices == ("x",)
    assert not node_class.inputs["kind"].is_required
    assert node_class.inputs["free"].choices is None
    assert (node_class.is_output_node, node_class.is_api_node) == (True, False)
    assert (node_class.python_module, node_class.display_name) == ("comfy_extras.nodes_x", "A node")
    assert node_class.outputs == ("IMAGE",)
    assert node_class.document == document


def test_a_class_is_read_once_when_it_is_looked_up() -> None:
    classes = read_catalogue({name: entry({"width": ["INT", {}]}) for name in ("A", "B", "C")}).classes
    assert (list(classes), len(classes), "B" in classes, "D" in classes) == (["A", "B", "C"], 3, True, False)
    assert classes["B"] is classes.get("B")
    assert classes.get("D") is None
    with pytest.raises(KeyError):
        classes["D"]


def test_a_look_at_all_keeps_none() -> None:
    classes = read_catalogue({name: entry({name: ["INT", {}]}) for name in ("A", "B", "C")}).classes
    kept = classes["A"]
    first = list(classes.in_turn(lambda name: name != "B"))
    assert [each.name for each in first] == ["A", "C"]
    assert [list(each.inputs) for each in first] == [["A"], ["C"]]
    assert first[0] is kept
    assert first[1] is not classes["C"]


def test_a_class_that_cannot_be_written_again_is_left_out() -> None:
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    assert list(read_catalogue({"A": entry({}), "B": entry({"x": ["INT", {"deep": deep}]})}).classes) == ["A"]


@pytest.mark.parametrize("document", [None, [], "x", 5])
def test_a_catalogue_that_is_not_understood_is_empty(document: Any) -> None:
    assert read_catalogue(document) == Catalogue()
    assert read_catalogue(document).get("KSampler") is None


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"input": None},
        {"input": []},
        entry({"x": []}),
        entry({"x": "INT"}),
        entry({"x": [5]}),
        {"input": {"required": [1]}},
        {"input": {"required": {}, "optional": "x"}},
    ],
)
def test_a_class_that_is_not_understood_is_unknown(document: Any) -> None:
    assert read_catalogue({"Node": document, "Good": entry()}).classes.keys() == {"Good"}


@pytest.mark.parametrize("outputs", [None, "IMAGE", {}, 5])
def test_outputs_of_another_shape_are_none(outputs: Any) -> None:
    assert read_one(entry(output=outputs)).outputs == ()


@pytest.mark.parametrize(
    ("more", "is_api_node"),
    [
        ({"api_node": True}, True),
        ({"api_node": "yes"}, False),
        ({"input": {"hidden": {"token": "AUTH_TOKEN_COMFY_ORG"}}}, True),
        ({"input": {"hidden": {"token": ["AUTH_TOKEN_COMFY_ORG"]}}}, True),
        ({"input": {"hidden": {"prompt": "PROMPT"}}}, False),
        ({"input": {"hidden": ["AUTH_TOKEN_COMFY_ORG"]}}, False),
    ],
)
def test_classes_that_call_paid_services_are_known_by_flag_or_token(more: dict[str, Any], is_api_node: bool) -> None:
    assert read_one(entry() | more).is_api_node is is_api_node


def test_hidden_inputs_are_named() -> None:
    assert read_one({"input": {"hidden": {"prompt": "PROMPT"}}}).hidden == {"prompt"}


def test_plain_inputs_expand_to_themselves() -> None:
    assert names_of(read_one(entry({"a": ["INT"], "b": ["IMAGE"]}))) == ["a", "b"]


def test_a_chosen_option_brings_its_inputs() -> None:
    options = [
        {"key": "size", "inputs": {"required": {"width": ["INT"]}}},
        {"key": "factor", "inputs": {"required": {"by": ["FLOAT"]}, "optional": {"deep": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "x"}]}]}}},
        {"key": 5},
        "nonsense",
    ]  # fmt: skip
    node_class = read_one(entry({"mode": ["COMFY_DYNAMICCOMBO_V3", {"options": options}]}))
    assert names_of(node_class, mode="size") == ["mode", "mode.width"]
    assert names_of(node_class, mode="factor") == ["mode", "mode.by", "mode.deep"]
    assert names_of(node_class, mode="other") == ["mode"]
    assert [option["key"] for option in list_options(node_class.inputs["mode"])] == ["size", "factor"]


def test_options_of_another_shape_are_none() -> None:
    assert list_options(InputSpec("x", "COMFY_DYNAMICCOMBO_V3", None, {"options": "size"}, True)) == []


def test_a_filled_slot_brings_its_inputs() -> None:
    node_class = read_one(entry({"slot": ["COMFY_DYNAMICSLOT_V3", {"inputs": {"required": {"width": ["INT"]}}}]}))
    assert names_of(node_class) == ["slot"]
    assert names_of(node_class, slot=["1", 0]) == ["slot", "slot.width"]
    unknown = read_one(entry({"slot": ["COMFY_DYNAMICSLOT_V3", {"inputs": {"required": "x"}}]}))
    assert names_of(unknown, slot=["1", 0]) == ["slot"]


@pytest.mark.parametrize(
    ("template", "expected", "required"),
    [
        ({"input": {"required": {"image": ["IMAGE"]}}, "prefix": "image", "min": 1, "max": 3}, ["i.image0", "i.image1", "i.image2"], 1),
        ({"input": {"required": {"image": ["IMAGE"]}}, "names": ["a", "b"], "min": 2}, ["i.a", "i.b"], 2),
        ({"input": {"optional": {"image": ["IMAGE"]}}, "names": ["a"], "min": 1}, ["i.a"], 0),
        ({"input": {"required": {"image": ["IMAGE"]}}, "names": ["a"], "min": "1"}, ["i.a"], 0),
        ({"input": {"required": {"image": ["IMAGE"]}}, "prefix": "x", "max": 100_000}, [f"i.x{n}" for n in range(MAX_GROWN)], 0),
        ({"input": {"required": {"image": ["IMAGE"]}}, "prefix": "x", "max": "3"}, [], 0),
        ({"input": {"required": {"image": ["IMAGE"]}}, "names": "ab"}, [], 0),
        ({"input": {"required": {}}, "names": ["a"]}, [], 0),
        ({"input": {"required": "x"}, "names": ["a"]}, [], 0),
        ("nonsense", [], 0),
    ],
)  # fmt: skip
def test_a_growing_list_has_an_input_for_each_place(template: Any, expected: list[str], required: int) -> None:
    node_class = read_one(entry({"i": ["COMFY_AUTOGROW_V3", {"template": template}]}))
    expanded = expand_inputs(node_class, {})
    assert list(expanded) == expected
    assert sum(spec.is_required for spec in expanded.values()) == required


@pytest.mark.parametrize("sections", [None, [], {"required": "x"}, {"required": {"a": []}}])
def test_sections_that_are_not_understood(sections: Any) -> None:
    assert read_inputs(sections) in (None, [])


TEXTS = [
    b"{}",
    b' { "A" : {"input": {}} ,\n"B":{"input":{"required":{"x":["INT",{"max":1e3}]}}}\t} ',
    orjson.dumps({"A": entry({"x": ["INT", {}]}), "Wrong": {}, "B": entry({"mode": [["a", "b"]]})}),
    '{"É": {"input": {"required": {"x": ["INT", {"tooltip": "\\u00e9 ü"}]}}}}'.encode(),
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_as_its_document(text: bytes) -> None:
    assert read_catalogue_text(text) == read_catalogue(orjson.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"null",
        b'{"A"',
        b'{"A":',
        b'{"A":{}',
        b'{"A":{},',
        b'{"A":{},}',
        b'{"A" {}}',
        b'{"A":{} "B":{}}',
        b"{1:{}}",
        b"{A:{}}",
        b"{,}",
        b"{}{}",
        b'{"A":{}} x',
        b'{"A":' + b"[" * 100_000,
    ],
    ids=lambda text: text[:20].decode(),
)
def test_what_is_no_object_is_no_catalogue(text: bytes) -> None:
    assert read_catalogue_text(text) is None


def test_numbers_and_texts_that_others_do_not_read_hide_no_class() -> None:
    text = b'{"A": {"input": {"required": {"x": ["INT", {"min": -36893488147419103232, "max": NaN, "tooltip": "\\ud800"}]}}}}'
    catalogue = read_catalogue_text(text)
    assert catalogue is not None
    assert catalogue.classes["A"].inputs["x"].options == {"min": -36893488147419103232.0, "max": None, "tooltip": "?"}


def test_the_last_of_two_classes_of_one_name_counts() -> None:
    one, two = orjson.dumps(entry({"one": ["INT"]})), orjson.dumps(entry({"two": ["INT"]}))
    catalogue = read_catalogue_text(b'{"A":' + one + b',"A":' + two + b"}")
    assert catalogue is not None
    assert list(catalogue.classes["A"].inputs) == ["two"]


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.floats(-1e9, 1e9) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    ),
    st.sampled_from([None, 1]),
)
def test_any_object_is_read_member_by_member(document: dict[str, Any], indent: int | None) -> None:
    assert dict(each_member(json.dumps(document, indent=indent))) == document
