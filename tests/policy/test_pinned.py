from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.pinned import is_same, read_pinned
from policy.settings import PinnedFile
from policy.violation import Reason
from tests.policy.graphs import codes, make_policy, make_prompt, refused, run

PINS = [{"file": "w.json", "free": ["6.text", "3.seed"]}]


def pinned_policy(**fields: Any) -> Any:
    documents = {"w.json": make_prompt(), "v.json": {"prompt": make_prompt() | {"10": make_prompt()["9"]}}}
    return make_policy(**{"documents": documents, "workflows": PINS, "allow": []} | fields)


def test_the_pinned_workflow_runs() -> None:
    judged = run(make_prompt(), pinned_policy())
    assert judged.nodes == make_prompt()


def test_free_inputs_may_be_other() -> None:
    prompt = make_prompt()
    prompt["6"]["inputs"]["text"] = "a harbour"
    prompt["3"]["inputs"]["seed"] = 9
    assert run(prompt, pinned_policy()).nodes["6"]["inputs"]["text"] == "a harbour"


def test_numbers_are_compared_as_numbers_and_titles_not_at_all() -> None:
    prompt = make_prompt()
    prompt["3"]["inputs"]["denoise"] = 1.0
    prompt["9"]["_meta"] = {"title": "other"}
    run(prompt, pinned_policy())


WRONG = "workflow-not-pinned"


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        ("3", "steps", 21),
        ("3", "denoise", True),
        ("5", "width", 1024),
        ("9", "filename_prefix", "y"),
        ("3", "latent_image", ["3", 0]),
        ("3", "positive", ["7", 0]),
        ("6", "text", ["7", 0]),
        ("9", "undeclared", 1),
    ],
)
def test_anything_else_is_refused(node: str, name: str, value: Any) -> None:
    prompt = make_prompt()
    prompt[node]["inputs"][name] = value
    violation = refused(prompt, pinned_policy())
    if value != ["3", 0]:
        assert codes(violation) == {(node, name, WRONG)}
        assert violation.reason is Reason.POLICY_VIOLATION


def test_absent_inputs_and_nodes_are_differences() -> None:
    prompt = make_prompt()
    del prompt["6"]["inputs"]["text"]
    del prompt["3"]["inputs"]["denoise"]
    assert codes(refused(prompt, pinned_policy())) == {("6", "text", WRONG), ("3", "denoise", WRONG)}
    prompt = make_prompt()
    del prompt["9"]
    assert f"{WRONG}: nodes 9 of w.json are missing" in refused(prompt, pinned_policy()).details


def test_other_classes_and_more_nodes_are_differences() -> None:
    prompt = make_prompt()
    prompt["9"]["class_type"] = "VAEDecode"
    prompt["11"] = make_prompt()["9"]
    violation = refused(prompt, pinned_policy())
    assert codes(violation) == {("9", None, WRONG), ("11", None, WRONG)}
    assert "no such node" in violation.node_errors["11"]["errors"][0]["details"]


def test_one_of_several_is_enough_and_the_nearest_is_named() -> None:
    policy = pinned_policy(workflows=[{"file": "v.json"}, *PINS])
    run(make_prompt(), policy)
    run(make_prompt() | {"10": make_prompt()["9"]}, policy)
    prompt = make_prompt()
    prompt["3"]["inputs"]["steps"] = 21
    assert "as in w.json" in refused(prompt, policy).details
    assert "as in w.json" in refused(prompt, pinned_policy(workflows=[*PINS, {"file": "v.json"}])).details


def test_lines_bind_free_inputs_too() -> None:
    prompt = make_prompt()
    prompt["3"]["inputs"]["seed"] = 9
    policy = pinned_policy(inputs={"KSampler.seed": {"max": 8}})
    assert codes(refused(prompt, policy)) == {("3", "seed", "value-too-large")}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"nodes": [], "links": []}, "save format"),
        ([], "not a workflow"),
        ({}, "not a workflow"),
        ({"1": {"class_type": "X"}}, "not a workflow"),
        ({"1": {"class_type": 1, "inputs": {}}}, "not a workflow"),
        ({"1": []}, "not a workflow"),
        ({"prompt": {}}, "not a workflow"),
        ({"6": {"class_type": "X", "inputs": {}}}, "has no input 6.text"),
        ({"1": {"class_type": "X", "inputs": {"text": 1}}}, "has no input 6.text"),
    ],
)
def test_files_without_meaning_are_errors(document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_pinned(PinnedFile(file="w", free=("6.text",)), {"w": document})


def test_a_file_that_was_not_read_is_an_error() -> None:
    with pytest.raises(ValueError, match="could not be read"):
        read_pinned(PinnedFile(file="w"), {})


def test_a_node_may_be_called_prompt() -> None:
    pin = read_pinned(PinnedFile(file="w"), {"w": {"prompt": {"class_type": "X", "inputs": {}}}})
    assert pin.classes == {"X"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (8, 8.0, True),
        (True, 1, False),
        (0, False, False),
        ("8", 8, False),
        (None, None, True),
        ([1, {"a": 2.0}], [1.0, {"a": 2}], True),
        ([1], [1, 2], False),
        ([1], [2], False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1}, {"a": True}, False),
        ({}, [], False),
    ],
)
def test_json_values_are_compared(one: Any, other: Any, same: bool) -> None:
    assert is_same(one, other) is same
    assert is_same(other, one) is same


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_every_value_is_the_same_as_itself(value: Any) -> None:
    assert is_same(value, value)
