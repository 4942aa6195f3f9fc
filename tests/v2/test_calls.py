"""Each call of the SDKs, as their users make it: sync, async and TypeScript."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from policy.prompt_ids import is_prompt_id
from tests.contract.driver import Graph, unique
from tests.v2.pack import failing
from tests.v2.sdk import WITH_LABELS, WRITTEN_APART
from tests.v2.world import (
    World,
    as_bytes,
    decoded,
    new_picture,
    pixels,
    saving_new,
    slow,
    with_picture,
)

SDKS = WRITTEN_APART


async def test_a_picture_goes_in_and_comes_out(world: World, kind: str, tmp_path: Path) -> None:
    sdk, picture = await world.sdk(kind), new_picture()
    graph = with_picture({"$bytes": as_bytes(picture, "photo.png")})
    submitted = await sdk.call("submit", graph=graph)
    assert is_prompt_id(submitted["id"])
    assert submitted["status"] in ("queued", "running")
    job = await sdk.call("result", job=submitted["id"])
    (output,) = job["outputs"]
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert (output["node_id"], output["type"], output["content_type"]) == ("2", "image", "image/png")
    assert output["job_id"] == job["id"]
    assert output["name"].startswith("v2_")
    which = {"job": job["id"], "output": output["id"]}
    whole = decoded(await sdk.call("read", **which))
    assert pixels(whole) == pixels(picture)
    assert output["size_bytes"] == len(whole)
    assert decoded(await sdk.call("read", range=[1, 3], **which)) == whole[1:4] == b"PNG"
    saved = await sdk.call("save", path=str(tmp_path / "saved.png"), **which)
    assert await asyncio.to_thread(Path(saved).read_bytes) == whole
    if kind != "node":
        assert decoded(await sdk.call("stream", **which)) == whole
    assert (await sdk.call("get", job=job["id"]))["outputs"] == [output]


async def test_run_submits_and_waits(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    job = await sdk.call("run", graph=saving_new())
    assert (job["status"], len(job["outputs"])) == ("succeeded", 1)


async def test_a_range_beyond_the_end_is_refused(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    job = await sdk.call("run", graph=saving_new())
    error = await sdk.refused("read", job=job["id"], output=job["outputs"][0]["id"], range=[10_000_000, 10_000_001])
    assert error.status == 416


async def test_the_workflow_of_a_job_is_what_was_submitted(world: World, kind: str) -> None:
    sdk, graph = await world.sdk(kind), saving_new("mine/v2")
    running, done = await sdk.call("submit", graph=slow()), await sdk.call("submit", graph=graph)
    assert await sdk.call("workflow", job=done["id"]) == {"graph": graph, "format": "api"}  # while it waits
    await sdk.call("cancel", job=running["id"])
    await sdk.call("result", job=done["id"])
    assert await sdk.call("workflow", job=done["id"]) == {"graph": graph, "format": "api"}


async def test_the_workflow_of_a_job_with_a_picture_can_be_submitted_again(world: World, kind: str) -> None:
    sdk, picture = await world.sdk(kind), new_picture()
    first = await sdk.call("run", graph=with_picture({"$bytes": as_bytes(picture, "photo.png")}))
    shown = await sdk.call("workflow", job=first["id"])
    again = await sdk.call("run", graph=shown["graph"])
    read = await sdk.call("read", job=again["id"], output=again["outputs"][0]["id"])
    assert pixels(decoded(read)) == pixels(picture)


async def test_a_workflow_that_comfyui_does_not_take_names_the_nodes(world: World, kind: str) -> None:
    sdk, graph = await world.sdk(kind), saving_new()
    graph["2"]["inputs"]["images"] = ["nowhere", 0]
    error = await sdk.refused("submit", graph=graph)
    assert (error.bases[0], error.code, error.status) == ("InvalidWorkflow", "invalid_workflow", 422)
    assert error.details is not None
    assert error.request_id or kind == "node"  # which reads it for models alone


async def test_a_workflow_that_breaks_the_policy_is_forbidden_and_the_node_named(world: World, kind: str) -> None:
    sdk, graph = await world.sdk(kind), saving_new()
    graph["3"] = {"class_type": "CheckpointSave", "inputs": {}}
    error = await sdk.refused("submit", graph=graph)
    assert (error.bases[0], error.code, error.status) == ("Forbidden", "forbidden", 403)
    assert error.details is not None
    assert error.details["type"] == "policy_violation"
    assert "3" in error.details["node_errors"]


async def test_an_export_of_the_web_ui_is_told_apart(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    exported = {"nodes": [], "links": [], "version": 0.4}  # with last_node_id the SDK refuses it by itself
    error = await sdk.refused("submit", graph=exported)
    assert (error.bases[0], error.code, error.status) == ("WorkflowFormatUi", "workflow_format_ui", 422)


async def test_a_wrong_key_is_unauthorized(world: World, kind: str) -> None:
    sdk = await world.sdk(kind, COMFY_API_KEY="cg_AAAAAAAA_" + "A" * 43)
    error = await sdk.refused("get", job="7f3d2c1b-9a8e-4d6f-b012-3c4d5e6f7a8b")
    assert (error.bases[0], error.code, error.status) == ("Unauthorized", "unauthorized", 401)


async def test_a_job_that_fails_tells_where(world: World, kind: str) -> None:
    """The stand-in has a node that fails with any text; a real ComfyUI fails on a pattern that is none."""
    sdk = await world.sdk(kind)
    graph = failing("It broke") if world.comfy else _failing_anywhere()
    submitted = await sdk.call("submit", graph=graph)
    job = await sdk.call("wait", job=submitted["id"])
    assert (job["status"], job["outputs"]) == ("failed", [])
    assert job["error"]["code"] == "node_execution_error"
    assert (job["error"]["node_id"], job["error"]["class_type"]) == ("1", graph["1"]["class_type"])
    assert job["error"]["message"]
    assert job["error"]["traceback"] is None
    error = await sdk.refused("result", job=submitted["id"])
    assert (error.bases[0], error.code) == ("JobFailed", "node_execution_error")


def _failing_anywhere() -> Graph:
    inputs = {"string": "a", "regex_pattern": "(", "replace": "", "case_insensitive": True, "multiline": False}
    more = {"dotall": False, "count": 0}
    return {
        "1": {"class_type": "RegexReplace", "inputs": inputs | more},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }


async def test_cancelling_what_has_ended_changes_nothing(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    job = await sdk.call("run", graph=saving_new())
    assert await sdk.call("cancel", job=job["id"]) == job
    assert await sdk.call("cancel", job=job["id"]) == job


async def test_assets_are_uploaded_found_again_and_deleted(world: World, kind: str, tmp_path: Path) -> None:
    sdk, picture = await world.sdk(kind), new_picture()
    file = tmp_path / "photo.png"
    file.write_bytes(picture)
    first = await sdk.call("upload", path=str(file))
    assert (first["created_new"], first["file_path"], first["job_id"]) == (True, "photo.png", None)
    assert await sdk.call("exists", hash=first["hash"]) is True
    second = await sdk.call("upload", path=str(file))
    assert (second["created_new"], second["hash"]) == (False, first["hash"])
    shown = await sdk.call("asset", asset=first["id"])
    assert (shown["id"], shown["hash"]) == (first["id"], first["hash"])
    await sdk.call("delete", asset=first["id"])
    if second["id"] != first["id"]:
        await sdk.call("delete", asset=second["id"])
    gone = await sdk.refused("delete", asset=first["id"])
    assert (gone.bases[0], gone.status) == ("NotFound", 404)
    assert (await sdk.refused("asset", asset=first["id"])).status == 404
    assert await sdk.call("exists", hash=first["hash"]) is False


async def test_the_same_bytes_under_another_name_have_that_name(world: World, kind: str) -> None:
    sdk, picture = await world.sdk(kind), new_picture()
    first = await sdk.call("upload", **as_bytes(picture, "first.png"))
    second = await sdk.call("upload", **as_bytes(picture, "second.png"))
    assert second["id"] != first["id"]
    assert second["created_new"] is False
    names = [(await sdk.call("asset", asset=each["id"]))["file_path"] for each in (first, second)]
    assert names == ["first.png", "second.png"]
    uploads = world.recorder.exchanges("POST", "/api/v2/assets/from-hash")
    assert [each.json()["file_path"] for each in uploads] == ["second.png"]


async def test_an_upload_that_is_not_what_it_says_is_refused(world: World, kind: str) -> None:
    """No SDK sends a wrong hash, so this is the SDK's own request with another file in it."""
    sdk = await world.sdk(kind)
    asset = await sdk.call("upload", **as_bytes(new_picture(), "photo.png"))
    (sent,) = [each for each in world.recorder.exchanges("POST") if each.path == "/api/v2/assets"]
    assert sent.json()["hash"] == asset["hash"]
    body = sent.request_body.replace(asset["hash"].encode(), b"blake3:" + b"0" * 64)
    assert body != sent.request_body
    headers = {"Content-Type": sent.request_headers["content-type"]}
    async with world.gate.call("POST", "/api/v2/assets", "alice", data=body, headers=headers) as answer:
        refusal = await answer.json()
    assert (answer.status, refusal["error"]["code"]) == (409, "hash_mismatch")


async def test_a_model_is_no_asset(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    error = await sdk.refused("upload", **as_bytes(new_picture(), "models/checkpoints/x.safetensors"))
    assert (error.bases[0], error.status) == ("Forbidden", 403)


async def test_an_asset_that_is_not_there_cannot_be_used(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    for info in ({"id": "7f3d2c1b-9a8e-4d6f-b012-3c4d5e6f7a8b"}, {"hash": "blake3:" + "0" * 64}, {}, "text"):
        error = await sdk.refused("submit", graph=with_picture({"__type": "core/ASSET", "info": info}))
        assert (error.bases[0], error.code, error.status) == ("MissingAsset", "missing_asset", 422)


@pytest.mark.parametrize("kind", WITH_LABELS)
async def test_labels_are_kept_listed_and_filtered(world: World, kind: str) -> None:
    sdk, mine = await world.sdk(kind), {"test": unique()}
    labels = mine | {"client": "acme", "run.no_1-a": "ä b/c&d=e"}
    without: dict[str, Any] = await sdk.call("run", graph=saving_new())
    ids: list[str] = []
    for metadata in (labels, mine | {"client": "acme"}, mine | {"client": "other"}):
        job = await sdk.call("submit", graph=saving_new(), metadata=metadata)
        assert job["metadata"] == metadata
        ids.insert(0, (await sdk.call("result", job=job["id"]))["id"])
    for options in ({}, {"limit": 1}, {"limit": 2}, {"limit": 3}):
        assert [each["id"] for each in await sdk.call("list", metadata=mine, **options)] == ids, "the newest first"
    listed = (await sdk.call("list", limit=100))[:4]
    assert [each["id"] for each in listed] == [*ids, without["id"]]
    assert [each["status"] for each in listed] == ["succeeded"] * 4
    assert [each["metadata"].get("client") for each in listed] == ["other", "acme", "acme", None]
    assert sorted(listed, key=lambda each: each["create_time"], reverse=True) == listed
    acme = mine | {"client": "acme"}
    assert [each["id"] for each in await sdk.call("list", metadata=acme, limit=1)] == ids[1:]
    assert [each["id"] for each in await sdk.call("list", metadata=labels)] == ids[2:]
    assert await sdk.call("list", metadata=mine | {"client": "nobody"}) == []
    assert (await sdk.call("get", job=ids[2]))["metadata"] == labels


@pytest.mark.parametrize("kind", WITH_LABELS)
async def test_labels_have_bounds(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    for metadata in ({"a b": "c"}, {"a": "b\x00"}, {"a": "\u202e"}, {"a": "x" * 257}, {f"n{n}": "" for n in range(17)}):
        error = await sdk.refused("submit", graph=saving_new(), metadata=metadata)
        assert (error.code, error.status) == ("metadata_invalid", 422)
    error = await sdk.refused("list", metadata={f"n{n}": "" for n in range(4)})
    assert error.code == "invalid_metadata_filter"
    assert (await sdk.refused("list", limit=101)).code == "invalid_request"


async def test_a_key_of_paid_services_stays_with_the_gate(world: World, kind: str) -> None:
    """It is forwarded for nodes that call such a service alone, and stands in no answer and no list of ComfyUI's."""
    sdk, secret = await world.sdk(kind), "comfyui-secret-of-the-test"
    submitted = await sdk.call("submit", graph=saving_new(), api_key=secret)
    await sdk.call("result", job=submitted["id"])
    await sdk.call("workflow", job=submitted["id"])
    (sent,) = [each for each in world.recorder.exchanges("POST") if each.path == "/api/v2/jobs"]
    assert secret.encode() in sent.request_body
    assert not [each for each in world.recorder.exchanges() if secret.encode() in each.body]
    if world.comfy is not None:
        assert secret not in repr(world.comfy.received)
    assert secret not in world.gate.log.getvalue().decode()
