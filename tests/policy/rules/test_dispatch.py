"""policy/rules/dispatch.py"""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from policy.needs import NO_NEEDS, Needs
from policy.rules.dispatch import at_first, body_at

NEEDS = Needs(
    prefixes=(("9", "filename_prefix"), ("10", "prefix"), ("11", "filename_prefix")), folders=(("10", "folder"),)
)


def body(**inputs: Any) -> bytes:
    return orjson.dumps({"prompt": {"9": {"class_type": "SaveImage", "inputs": inputs}, **OTHERS}, "client_id": "a.b"})


OTHERS = {
    "10": {"class_type": "Pack", "inputs": {"folder": "tenants/alice", "prefix": "img"}},
    "11": {"class_type": "SaveImage", "inputs": {}},
}


def prefix_in(sent: bytes, node_id: str = "9", name: str = "filename_prefix") -> Any:
    return orjson.loads(sent)["prompt"][node_id]["inputs"][name]


@pytest.mark.parametrize(
    ("prefix", "comfyui", "expected"),
    [
        ("tenants/alice/ComfyUI", "gpu-2", "tenants/alice/@gpu-2/ComfyUI"),
        ("tenants/alice/cats/%year%/x", "gpu-2", "tenants/alice/@gpu-2/cats/%year%/x"),
        ("tenants/alice/@gpu-2/ComfyUI", "gpu-2", "tenants/alice/@gpu-2/ComfyUI"),
        ("tenants/alice/@gpu-3/ComfyUI", "gpu-2", "tenants/alice/@gpu-2/ComfyUI"),
        ("tenants/alice/@gpu-3/@gpu-2/x", "", "tenants/alice/x"),
        ("tenants/alice/cats/@gpu-2/x", "", "tenants/alice/cats/@gpu-2/x"),
    ],
)
def test_a_job_saves_where_the_comfyui_does_that_runs_it(prefix: str, comfyui: str, expected: str) -> None:
    assert prefix_in(body_at(body(filename_prefix=prefix), NEEDS, comfyui)) == expected


@pytest.mark.parametrize("folder", ["@gpu-%width%", "@%year%", "@gpu-[time(%S)]", "@gpu-{n}", "@$n", "@gpu-2/@<n>"])
def test_no_name_becomes_that_of_a_comfyui(folder: str) -> None:
    sent = body(filename_prefix=f"tenants/alice/{folder}/cats/x")
    assert prefix_in(body_at(sent, NEEDS, "")) == "tenants/alice/cats/x"
    assert prefix_in(body_at(sent, NEEDS, "gpu-2")) == "tenants/alice/@gpu-2/cats/x"
    assert prefix_in(body_at(body(filename_prefix=f"tenants/alice/{folder}"), NEEDS, "")).startswith("tenants/alice/@")


def test_nothing_else_changes() -> None:
    sent = body(filename_prefix="tenants/alice/x", image="tenants/alice/@gpu-3/y.png [output]", text="tenants/alice/z")
    made = orjson.loads(body_at(sent, NEEDS, "gpu-2"))
    made["prompt"]["9"]["inputs"]["filename_prefix"] = "tenants/alice/x"
    made["prompt"]["10"]["inputs"]["folder"] = "tenants/alice"
    assert made == orjson.loads(sent)


def test_a_folder_that_is_written_is_the_comfyuis_own_and_a_bare_name_in_it_stays() -> None:
    made = body_at(body(filename_prefix="tenants/alice/x"), NEEDS, "gpu-2")
    assert prefix_in(made, "10", "folder") == "tenants/alice/@gpu-2"
    assert prefix_in(made, "10", "prefix") == "img"


@pytest.mark.parametrize(
    ("sent", "needs", "comfyui"),
    [
        (body(filename_prefix="tenants/alice/x"), NEEDS, ""),
        (body(filename_prefix="tenants/alice/@gpu-2/x"), NO_NEEDS, "gpu-2"),
        (body(filename_prefix=["4", 0]), Needs(prefixes=(("9", "filename_prefix"),)), "gpu-2"),
    ],
)
def test_what_needs_no_change_stays(sent: bytes, needs: Needs, comfyui: str) -> None:
    assert body_at(sent, needs, comfyui) == sent


@pytest.mark.parametrize(
    "prefix",
    [
        "tenants/alice/@gpu-2",
        "tenants/alice/@gpu-2/@gpu-3",
        "tenants/alice/@gpu-2/tenants/bob/x",
        "tenants/alice/@gpu-2/@gpu-3/tenants/bob/@gpu-2/x",
        "tenants/alice/@gpu-2/@gpu-2",
    ],
)
@pytest.mark.parametrize("comfyui", ["", "gpu-2"])
def test_a_tenant_cannot_leave_its_folder_with_the_name_of_a_comfyui(prefix: str, comfyui: str) -> None:
    """What stands before `@NAME` stays before it, and something is left behind it."""
    made = prefix_in(body_at(body(filename_prefix=prefix), NEEDS, comfyui))
    own = f"tenants/alice/@{comfyui}/" if comfyui else "tenants/alice/"
    assert made.startswith(own)
    assert made != own


def test_a_folder_out_of_another_ones_is_its_own() -> None:
    sent = orjson.loads(body())
    sent["prompt"]["10"]["inputs"]["folder"] = "tenants/alice/@gpu-3/@gpu-2"
    assert prefix_in(body_at(orjson.dumps(sent), NEEDS, ""), "10", "folder") == "tenants/alice"


def test_a_client_is_told_of_a_folder_that_is_left_out() -> None:
    sent, notices = at_first(body(filename_prefix="tenants/alice/@gpu-2/x"), NEEDS)
    assert prefix_in(sent) == "tenants/alice/x"
    assert [notice.code for notice in notices] == ["comfyui-folder-left-out"]
    for kept in (body(filename_prefix="tenants/alice/x"), body(filename_prefix="tenants/alice/cats/@gpu-2/x")):
        assert at_first(kept, NEEDS)[1] == ()


def test_a_large_workflow_is_not_read_for_a_name_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what else is in it taken for that name."""
    text = 'x","filename_prefix":"tenants/alice/y'
    sent = body(filename_prefix='tenants/alice/\\"ö\\', text=text, other={"class_type": text})
    needs = Needs(prefixes=(("9", "filename_prefix"),), folders=(("10", "folder"),))
    expected = body_at(sent, needs._replace(prefixes=(*needs.prefixes, ("11", "filename_prefix"))), "gpu-2")
    read: list[int] = []

    def loads(part: Any) -> Any:
        read.append(len(part))
        return json.loads(bytes(part))

    monkeypatch.setattr("policy.rules.dispatch.orjson.loads", loads)
    assert body_at(sent, needs, "gpu-2") == expected
    assert max(read) < 40
    assert prefix_in(expected) == 'tenants/alice/@gpu-2/\\"ö\\'


@pytest.mark.parametrize("elsewhere", ["tenants/alice/x", "tenants/alice", "tenants/x", "tenants/", "x", 7])
def test_a_name_that_stands_elsewhere_too_is_left_there(elsewhere: Any) -> None:
    needs = Needs(prefixes=(("9", "filename_prefix"),))
    sent = body(filename_prefix="tenants/alice/x", other={"filename_prefix": elsewhere})
    made = body_at(sent, needs, "gpu-2")
    assert prefix_in(made) == "tenants/alice/@gpu-2/x"
    assert prefix_in(made, name="other") == {"filename_prefix": elsewhere}


@pytest.mark.parametrize(
    "elsewhere", ["tenants/alice", "tenants/x", "tenants/", "tenants//x", 'tenants/a"b', "tenants/a\\"]
)
def test_what_is_no_name_of_a_tenants_harms_nothing(elsewhere: str) -> None:
    sent = body(filename_prefix=["4", 0], other={"filename_prefix": elsewhere})
    assert body_at(sent, Needs(prefixes=(("9", "filename_prefix"),)), "gpu-2") == sent
    assert orjson.loads(body_at(sent, Needs(folders=(("9", "filename_prefix"),)), "gpu-2"))["client_id"] == "a.b"


def test_a_name_that_is_a_prefix_here_and_a_folder_there() -> None:
    sent = body(name="tenants/alice/x").replace(b'"folder"', b'"name"')
    needs = Needs(prefixes=(("9", "name"),), folders=(("10", "name"),))
    made = body_at(sent, needs, "gpu-2")
    assert prefix_in(made, name="name") == "tenants/alice/@gpu-2/x"
    assert prefix_in(made, "10", "name") == "tenants/alice/@gpu-2"
