from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from policy.texts import fill_dates
from tests.policy.tenants import caller_of, refusal, rewrite_workflow

ALICE = caller_of("alice")


CHAIN = {
    "1": {"class_type": "PrimitiveString", "inputs": {"value": " proj"}},
    "2": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "x-y"}},
    "3": {"class_type": "StringTrim", "inputs": {"string": ["1", 0], "mode": "Both"}},
    "4": {"class_type": "StringReplace", "inputs": {"string": ["2", 0], "find": "-", "replace": "+"}},
    "5": {"class_type": "StringConcatenate", "inputs": {"string_a": ["3", 0], "string_b": ["4", 0], "delimiter": "/"}},
    "6": {"class_type": "PrimitiveString", "inputs": {"value": "../bob/x"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "x"}},
    "8": {"class_type": "StringTrim", "inputs": {"string": ["1", 0], "mode": "Middle"}},
    "9": {"class_type": "StringTrim", "inputs": {"string": "x" * 1025, "mode": "Left"}},
    "10": {"class_type": "StringReplace", "inputs": {"string": "a" * 99, "find": "a", "replace": "b" * 99}},
    "11": {"class_type": "PackText", "inputs": {"value": "x"}},
    "12": {"class_type": "Gone", "inputs": {}},
    "13": {"class_type": "StringConcatenate", "inputs": {"string_a": "x", "string_b": ["7", 0], "delimiter": ""}},
}


def linked(source: str) -> dict[str, Any]:
    nodes = {node_id: node for node_id, node in CHAIN.items() if node_id != "12"}
    return nodes | {"s": {"class_type": "SaveImage", "inputs": {"filename_prefix": [source, 0]}}}


@pytest.mark.parametrize(
    ("source", "upstream"),
    [("1", "tenants/alice/ proj"), ("3", "tenants/alice/proj"), ("5", "tenants/alice/proj/x+y")],
)
def test_a_link_to_constants_is_followed(source: str, upstream: str) -> None:
    assert rewrite_workflow(linked(source), ALICE)["s"]["inputs"]["filename_prefix"] == upstream


@pytest.mark.parametrize("source", ["7", "8", "9", "10", "11", "12", "13"])
def test_a_link_to_what_only_the_job_knows_is_refused(source: str) -> None:
    violation = refusal(rewrite_workflow, linked(source), ALICE)
    assert [error["type"] for error in violation.node_errors["s"]["errors"]] == ["file-input-linked"]


def test_a_followed_text_is_judged_like_a_literal() -> None:
    violation = refusal(rewrite_workflow, linked("6"), ALICE)
    assert [error["type"] for error in violation.node_errors["s"]["errors"]] == ["file-input-refused"]


@pytest.mark.parametrize(
    ("source", "value"), [("2", ["2", 0]), ("4", ["4", 0]), ("7", ["7", 0]), ("14", "tenants/alice/a.png")]
)
@pytest.mark.parametrize("name", ["any", "anything"])
def test_a_text_that_comes_by_a_link_into_an_undeclared_input_is_judged(source: str, value: Any, name: str) -> None:
    nodes = linked("1") | {
        "14": {"class_type": "PrimitiveString", "inputs": {"value": "a.png"}},
        "p": {"class_type": "PackAny", "inputs": {name: [source, 0]}},
    }
    assert rewrite_workflow(nodes, ALICE)["p"]["inputs"][name] == value


@pytest.mark.parametrize("text", ["tenants/bob/a.png", "/var/lib/x", "a/../b"])
@pytest.mark.parametrize("name", ["any", "anything"])
def test_a_linked_text_that_leads_elsewhere_is_refused_in_an_undeclared_input(text: str, name: str) -> None:
    for given in (text, ["1", 0], [text], {text: 1}):
        nodes = {
            "1": {"class_type": "PrimitiveString", "inputs": {"value": text}},
            "p": {"class_type": "PackAny", "inputs": {name: given}},
        }
        violation = refusal(rewrite_workflow, nodes, ALICE)
        assert [error["type"] for error in violation.node_errors["p"]["errors"]] == ["file-input-refused"]


def test_a_node_that_many_need_is_followed_once() -> None:
    nodes: dict[str, Any] = {"0": {"class_type": "PrimitiveString", "inputs": {"value": ""}}}
    for number in range(1, 400):
        below = [str(number - 1), 0]
        inputs = {"string_a": below, "string_b": below, "delimiter": ""}
        nodes[str(number)] = {"class_type": "StringConcatenate", "inputs": inputs}
    nodes["s"] = {"class_type": "SaveImage", "inputs": {"filename_prefix": ["399", 0]}}
    nodes["t"] = {"class_type": "EmptyImage", "inputs": {f"{n}.filename_prefix": ["399", 0] for n in range(20_000)}}
    rewritten = rewrite_workflow(nodes, ALICE)
    assert rewritten["s"]["inputs"]["filename_prefix"] == "tenants/alice/ComfyUI"
    assert rewritten["t"]["inputs"]["7.filename_prefix"] == "tenants/alice/ComfyUI"


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("%date:yyyy-MM-dd%", "2026-03-04"),
        ("%date:yy.M.d%_%date:hhmmss%", "26.3.4_050607"),
        ("%date:yyy%", "yyy"),
        ("%date:%x", "x"),
        ("%date%", "%date%"),
        ("%year%", "%year%"),
    ],
)
def test_dates_are_filled_in_as_by_the_web_ui(text: str, filled: str) -> None:
    assert fill_dates(text, datetime(2026, 3, 4, 5, 6, 7)) == filled
