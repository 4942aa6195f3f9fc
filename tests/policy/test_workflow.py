from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.violation import Reason, Violation
from policy.workflow import (
    MALFORMED,
    MAX_ERRORS,
    Fault,
    Findings,
    NodeReason,
    find_bad_ids,
    hash_shape,
    read_fields,
    read_prompt,
    refuse,
    shorten,
)

NODE = {"class_type": "X", "inputs": {}}
OTHERS = (
    st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
)


def read(body: dict[str, Any]) -> tuple[Any, list[str]]:
    findings = Findings()
    fields = read_fields(body, findings)
    return fields, findings.general


def test_a_graph_is_read() -> None:
    assert read_prompt({"prompt": {"1": NODE}, "front": True}) == {"1": NODE}
    assert read_prompt({"prompt": {"prompt": NODE}}) == {"prompt": NODE}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "body-not-object"),
        (None, "body-not-object"),
        ("x", "body-not-object"),
        ({}, "prompt-missing"),
        ({"prompt": None}, "prompt-missing"),
        ({"prompt": []}, "prompt-missing"),
        ({"1": NODE}, "prompt-missing: the body is a workflow"),
        ({"prompt": {"prompt": {"1": NODE}}}, "prompt-missing: there is a body of its own"),
        ({"prompt": {"prompt": {"1": NODE}, "client_id": "c"}}, "prompt-missing: there is a body of its own"),
        ({"nodes": [], "links": []}, "ui-format"),
        ({"prompt": {"nodes": [], "links": []}}, "ui-format"),
        ({"prompt": {}}, "prompt-empty"),
    ],
)
def test_a_body_without_a_graph_is_malformed(body: Any, code: str) -> None:
    with pytest.raises(Violation) as caught:
        read_prompt(body)
    assert caught.value.reason is Reason.WORKFLOW_MALFORMED
    assert caught.value.details.startswith(code)


def test_the_ui_format_is_told_how_to_export() -> None:
    with pytest.raises(Violation, match="Export"):
        read_prompt({"prompt": {"nodes": [{"id": 1}], "version": 0.4}})


def test_all_fields_are_read() -> None:
    fields, faults = read(
        {
            "client_id": "c",
            "prompt_id": "p",
            "priority": 2,
            "number": "first",
            "front": "no",
            "partial_execution_targets": ["2"],
            "extra_data": {
                "client_id": "ignored",
                "extra_pnginfo": {"workflow": {"id": "w", "nodes": []}, "other": 1},
                "preview_method": "taesd",
                "comfy_usage_source": "comfyui-frontend",
                "auth_token_comfy_org": "t",
                "api_key_comfy_org": "k",
                "create_time": 1,
                "surprise": 1,
            },
        }
    )
    assert faults == []
    assert (fields.client_id, fields.prompt_id, fields.priority, fields.targets) == ("c", "p", 2.0, ("2",))
    assert fields.extra_data == {
        "extra_pnginfo": {"workflow": {"id": "w", "nodes": []}, "other": 1},
        "preview_method": "taesd",
        "comfy_usage_source": "comfyui-frontend",
        "surprise": 1,
    }
    assert fields.notices == ()
    assert fields.credentials == {"auth_token_comfy_org": "t", "api_key_comfy_org": "k"}


def test_absent_and_null_fields_have_defaults() -> None:
    for body in ({}, dict.fromkeys(("client_id", "prompt_id", "priority", "extra_data", "partial_execution_targets"))):
        fields, faults = read(body)
        assert faults == []
        assert (fields.client_id, fields.prompt_id, fields.priority, fields.targets) == (None, None, 0.0, None)
        assert fields.extra_data == {}
        assert fields.credentials == {}


def test_the_client_id_of_extra_data_counts_when_there_is_no_other() -> None:
    assert read({"extra_data": {"client_id": "e"}})[0].client_id == "e"


@given(st.sampled_from(["client_id", "prompt_id"]), OTHERS.filter(lambda value: type(value) not in (str, int, float)))
def test_ids_of_other_types_are_refused(name: str, bad: Any) -> None:
    assert read({name: bad})[1] == [f"field-malformed: `{name}` must be a string, or left out"]


@pytest.mark.parametrize("number", [1, 1.5, -7])
def test_a_number_for_a_client_id_is_read_as_its_text(number: float) -> None:
    assert read({"client_id": number})[0].client_id == str(number)
    assert read({"prompt_id": number})[1] == ["field-malformed: `prompt_id` must be a string, or left out"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"extra_data": {"client_id": ["x"]}}, "client_id"),
        ({"extra_data": []}, "extra_data"),
        ({"extra_data": "x"}, "extra_data"),
        ({"priority": "1"}, "priority"),
        ({"priority": True}, "priority"),
        ({"partial_execution_targets": "12"}, "partial_execution_targets"),
        ({"partial_execution_targets": [["1"]]}, "partial_execution_targets"),
        ({"partial_execution_targets": {"1": 1}}, "partial_execution_targets"),
    ],
)
def test_fields_of_other_types_are_refused(body: dict[str, Any], name: str) -> None:
    faults = read(body)[1]
    assert [fault.split("`")[1] for fault in faults] == [name]


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"extra_pnginfo": "x"}, "extra_pnginfo"),
        ({"extra_pnginfo": {"workflow": []}}, "extra_pnginfo"),
        ({"extra_pnginfo": {"a\nb": 1}}, "extra_pnginfo.a\nb"),
        ({"extra_pnginfo": {"x" * 79: 1}}, f"extra_pnginfo.{'x' * 66}"),
        ({"comfy_usage_source": ["x"]}, "comfy_usage_source"),
        ({"comfy_usage_source": "x" * 1001}, "comfy_usage_source"),
        ({"preview_method": {"a": 1}}, "preview_method"),
        ({"mine": {"a": 1}}, "mine"),
    ],
)
def test_extra_data_that_cannot_be_kept_is_told(extra: dict[str, Any], named: str) -> None:
    fields, faults = read({"extra_data": extra})
    assert (fields.extra_data, fields.credentials, faults) == ({}, {}, [])
    assert [notice.code for notice in fields.notices] == ["extra-data-left-out"]
    assert fields.notices[0].message.endswith(f": {named}.")


@pytest.mark.parametrize(
    "extra",
    [
        {"extra_pnginfo": None},
        {"extra_pnginfo": {"workflow": None}},
        {"extra_pnginfo": {}},
        {"mine": None},
        {"client_id": "x", "create_time": 1},
        {"auth_token_comfy_org": ["t"]},
        {"auth_token_comfy_org": "t" * 9000},
    ],
)
def test_extra_data_that_means_nothing_is_left_out(extra: dict[str, Any]) -> None:
    fields, faults = read({"extra_data": extra})
    assert (fields.extra_data, fields.credentials, fields.notices, faults) == ({}, {}, (), [])


def test_extra_data_is_bounded() -> None:
    fields, _ = read({"extra_data": {f"x{number}": number for number in range(40)}})
    assert len(fields.extra_data) == 32
    assert fields.notices[0].message.endswith("x32, x33, x34, x35, x36.")


@given(OTHERS.filter(lambda value: type(value) is not dict), st.booleans())
def test_a_workflow_that_is_no_object_is_left_out(bad: Any, is_inside: bool) -> None:
    fields, faults = read({"extra_data": {"extra_pnginfo": {"workflow": bad} if is_inside else bad}})
    assert (fields.extra_data, faults) == ({}, [])


def test_a_workflow_id_that_is_no_text_is_left_out() -> None:
    fields, _ = read({"extra_data": {"extra_pnginfo": {"workflow": {"id": 5, "nodes": []}}}})
    assert fields.extra_data == {"extra_pnginfo": {"workflow": {"nodes": []}}}
    assert "extra_pnginfo.workflow.id" in fields.notices[0].message


@pytest.mark.parametrize(
    "node_id",
    [
        "1",
        "12:3",
        "5.0.0.1",
        "load image",
        "#3",
        "a-b_c",
        "x" * 128,
        "EmptyImage (1)",
        "空图",
        "a/b",
        "test[one]3",
        "'",
    ],
)
def test_ordinary_ids_are_accepted(node_id: str) -> None:
    assert find_bad_ids({node_id: NODE, "other": NODE}) == []


@pytest.mark.parametrize("node_id", ["", "x" * 129, "a\n", "1\n2", "a\x00", "\x7f", "a\u0085", "a\u2028"])
def test_odd_ids_are_refused(node_id: str) -> None:
    assert find_bad_ids({"1": NODE, node_id: NODE}) == [node_id]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "'a'"),
        ("x" * 100, "'" + "x" * 80 + "…'"),
        ([1, 2], "a list of 2"),
        ({"a": 1}, "an object of 1"),
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (1.5, "1.5"),
    ],
)
def test_values_are_shown_short(value: Any, text: str) -> None:
    assert shorten(value) == text


def test_findings_have_comfyuis_shape() -> None:
    findings = Findings()
    findings.raise_if_any()
    findings.add("3", "KSampler", "steps", "Too many.", Fault(NodeReason.VALUE_TOO_LARGE, 99, "at most 50"))
    findings.add("4", "Evil", None, "No.", Fault(NodeReason.CLASS_NOT_PERMITTED, "Evil", "others"))
    with pytest.raises(Violation) as caught:
        findings.raise_if_any()
    assert caught.value.reason is Reason.POLICY_VIOLATION
    assert caught.value.details == "node 3: steps, found 99, allowed: at most 50; node 4: found 'Evil', allowed: others"
    assert caught.value.node_errors["3"] == {
        "errors": [
            {
                "type": "value-too-large",
                "message": "Too many.",
                "details": "steps, found 99, allowed: at most 50",
                "extra_info": {"received_value": "99", "allowed": "at most 50", "input_name": "steps"},
            }
        ],
        "dependent_outputs": [],
        "class_type": "KSampler",
    }
    assert "input_name" not in caught.value.node_errors["4"]["errors"][0]["extra_info"]


def test_one_malformed_part_makes_the_workflow_malformed() -> None:
    findings = Findings()
    findings.add("3", "A", None, "No.", Fault(NodeReason.CLASS_NOT_PERMITTED, "A", "others"))
    findings.add_field("client_id", "a string")
    with pytest.raises(Violation) as caught:
        findings.raise_if_any()
    assert caught.value.reason is Reason.WORKFLOW_MALFORMED
    assert caught.value.details.startswith("field-malformed: `client_id`")


def test_findings_are_bounded() -> None:
    findings = Findings()
    for number in range(MAX_ERRORS + 10):
        findings.add(str(number), "A", None, "No.", Fault(NodeReason.CLASS_NOT_PERMITTED, "A", "others"))
    with pytest.raises(Violation, match="and 495 more"):
        findings.raise_if_any()
    assert len(findings.node_errors) == MAX_ERRORS


def test_refusals_say_their_code_first() -> None:
    for code in NodeReason:
        for details in ("", "more"):
            with pytest.raises(Violation) as caught:
                refuse(code, "No.", details)
            expected = Reason.WORKFLOW_MALFORMED if code in MALFORMED else Reason.POLICY_VIOLATION
            assert caught.value.reason is expected
            assert caught.value.details == (f"{code}: more" if details else code)


def test_like_shapes_have_one_hash() -> None:
    assert hash_shape([("A", (["1", 0], 20))]) == hash_shape([("A", (["1", 0], 20))])
    assert hash_shape([("A", (["1", 0], 20))]) != hash_shape([("A", (["1", 1], 20))])


@given(st.dictionaries(st.text(), st.none(), max_size=5))
def test_id_checks_agree_with_single_ones(nodes: dict[str, None]) -> None:
    assert find_bad_ids(nodes) == [node_id for node_id in nodes if find_bad_ids({node_id: None})]
