from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.judge import judge_document
from policy.learn import explain, learn
from policy.violation import Reason, Violation
from tests.policy.graphs import CATALOGUE, make_policy, make_prompt, refused, run


def test_the_classes_of_all_workflows_are_listed() -> None:
    text = learn([make_prompt(), {"prompt": {"1": {"class_type": "Paid", "inputs": {}}}, "client_id": "x"}])
    assert tomllib.loads(text)["allow"] == [
        "CLIPTextEncode",
        "CheckpointLoaderSimple",
        "EmptyLatentImage",
        "KSampler",
        "Paid",
        "SaveImage",
        "VAEDecode",
    ]
    assert text.startswith("# 7 classes of 2 workflows, the largest of 7 nodes\n")


def test_what_is_permitted_already_stands_in_a_comment() -> None:
    text = learn([{"1": {"class_type": "Old"}, "2": {"class_type": "New"}}], lambda name: name == "Old")
    assert tomllib.loads(text)["allow"] == ["New"]
    assert '# permitted already: "Old"' in text


def test_what_was_learnt_permits_what_it_was_learnt_from() -> None:
    policy = make_policy(allow=tomllib.loads(learn([make_prompt()]))["allow"])
    judge_document({"prompt": make_prompt()}, policy, CATALOGUE)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"nodes": [], "links": []}, "workflow 1 is in the web UI's save format"),
        ({"prompt": {"nodes": []}}, "workflow 1 is in the web UI's save format"),
        ([], "workflow 1 is not a workflow in the API format: export one"),
        ({}, "workflow 1 is not a workflow in the API format: export one"),
        ({"1": []}, "workflow 1 is not a workflow in the API format: export one"),
        ({"1": {"class_type": 5}}, "workflow 1 is not a workflow in the API format: export one"),
    ],
)
def test_other_documents_are_errors(document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learn([document])


def test_a_node_may_be_called_prompt() -> None:
    assert "Odd" in learn([{"prompt": {"class_type": "Odd", "inputs": {}}}])


@given(st.text())
def test_every_name_is_written_as_toml(name: str) -> None:
    assert tomllib.loads(learn([{"1": {"class_type": name}}]))["allow"] == [name]


def test_a_permitted_workflow_is_explained() -> None:
    prompt = make_prompt()
    prompt["3"]["inputs"]["steps"] = ["20", 0]
    prompt["20"] = {"class_type": "PrimitiveInt", "inputs": {"value": 9}}
    text = explain(run(prompt, make_policy(inputs={"*.steps": {"max": 9}})))
    assert text == "permitted: 8 nodes\n  node 3 steps: linked to the constant 9\n"


def test_a_refused_workflow_is_explained() -> None:
    text = explain(refused(make_prompt(), make_policy(inputs={"*.steps": {"max": 9}})))
    assert "refused (policy-violation)" in text
    assert "  node 3 KSampler: value-too-large: steps, found 20, allowed: at most 9\n" in text
    assert explain(Violation(Reason.BODY_MALFORMED, "No.")) == "refused (body-malformed): No.\n"
