"""What of a text is the gate's, and which texts are a workflow."""

from __future__ import annotations

import json

import pytest

from policy.media.workflow_texts import own_texts, workflow_goes
from tests.policy.media.files import ALICE, OWN, SALTED, filled


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("prompt", SALTED, OWN),
        ("prompt", SALTED.replace('": ', '":').replace(", ", ","), OWN.replace('": ', '":').replace(", ", ",")),
        ("other", SALTED, OWN),
        ("prompt", json.dumps({"1": json.loads(SALTED)["1"], "2": "tenants/alice/"}), json.dumps({"1": json.loads(OWN)["1"], "2": "tenants/alice/"})),
        ("workflow", SALTED, None),
        ("prompt", "tenants/alice/ is no JSON", None),
        ("prompt", '"tenants/alice/"', '"tenants/alice/"'),
        ("prompt", "[" * 100_000 + "tenants/alice", None),
        ("prompt", SALTED.replace("alice", "bob").replace("comfygate_tenant", "other"), None),
    ],
)  # fmt: skip
def test_texts_that_are_the_tenants_own(key: str, text: str, expected: str | None) -> None:
    found = own_texts(ALICE)(key, text.encode())
    assert found == (None if expected is None else filled(expected, len(text.encode())))


def test_names_at_any_depth_and_members_that_comfyui_adds() -> None:
    given = {
        "1": {
            "inputs": {"a": [{"tenants/alice/k.png": ["tenants/alice/v.png", 1.5, None]}]},
            "class_type": "X",
            "is_changed": ["f"],
        }
    }
    text = json.dumps(given).encode()
    found = own_texts(ALICE)("prompt", text)
    assert found is not None
    assert json.loads(found) == {
        "1": {"inputs": {"a": [{"k.png": ["v.png", 1.5, None]}]}, "class_type": "X", "is_changed": ["f"]}
    }


def test_a_spelling_that_needs_more_room_is_written_without_spaces_or_stays() -> None:
    name = "~=" + "=01" * 6

    def graph(value: str) -> dict[str, object]:
        return {"1": {"inputs": {"image": value}, "class_type": "LoadImage"}}

    close = own_texts(ALICE)("prompt", json.dumps(graph(f"tenants/alice/{name}")).encode())
    assert close is not None
    assert json.loads(close) == graph("\1" * 6)
    assert b'": ' not in close
    long = json.dumps(graph("tenants/alice/" + "~=" + "=01" * 60)).encode()
    assert own_texts(ALICE)("prompt", long) is None


@pytest.mark.parametrize(
    ("key", "text", "goes"),
    [
        ("prompt", "x", True), ("Workflow", "", True), ("parameters", "a cat, Steps: 20", False), ("x", ' {"a": 1}', True), ("x", "[1]", True),
        ("x", "[Official] title", False), ("x", "{" * 10, False), ("x", "[" * 100_000, False), ("x", "12", False),
    ],
)  # fmt: skip
def test_texts_that_go(key: str, text: str, *, goes: bool) -> None:
    assert workflow_goes(key, text.encode()) == (b"" if goes else None)


@pytest.mark.parametrize("inner", ["tenants/alice/ and no JSON", json.dumps({"nodes": []})])
def test_a_prompt_in_a_document_that_is_no_workflow_stays(inner: str) -> None:
    text = json.dumps({"prompt": inner, "more": "tenants/alice/"}).encode()
    assert own_texts(ALICE)("comment", text) == text


@pytest.mark.parametrize(
    ("value", "maker", "expected"),
    [
        ("tenants/alice/@gpu-2/cats/x", "gpu-2", "cats/x"),
        ("tenants/alice/@gpu-2", "gpu-2", ""),
        ("tenants/alice/@gpu-2/@gpu-2", "gpu-2", "@gpu-2"),
        ("tenants/alice/@gpu-2/x.png [output]", "gpu-2", "@gpu-2/x.png [output]"),
        ("tenants/alice/@gpu-3/x", "gpu-2", "@gpu-3/x"),
        ("@gpu-2/x", "gpu-2", "@gpu-2/x"),
        ("tenants/alice/@gpu-2/x", "", "@gpu-2/x"),
    ],
)
def test_the_folder_of_the_comfyui_that_ran_it_is_none_of_the_tenants(value: str, maker: str, expected: str) -> None:
    given = {"1": {"inputs": {"a": value, "b": "tenants/alice/y"}, "class_type": "SaveImage"}}
    found = own_texts(ALICE, maker)("prompt", json.dumps(given).encode())
    assert found is not None
    assert json.loads(found)["1"]["inputs"] == {"a": expected, "b": "y"}
