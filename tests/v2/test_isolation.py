"""Another tenant's things answer as things that are not there: the same words, and ComfyUI is not asked."""

from __future__ import annotations

import re
import uuid
from typing import Any

from tests.v2.sdk import WRITTEN_APART, Sdk, SdkError
from tests.v2.world import World, as_bytes, new_picture, saving_new, slow, with_picture

SDKS = WRITTEN_APART

OWN_QUESTIONS = {"/api/jobs", "/api/queue", "/api/object_info"}
"""What the gate asks by itself, whoever is there."""
NO_HASH = "blake3:" + "5e" * 32


def words(error: SdkError, *ids: str) -> tuple[Any, ...]:
    """All that is told, without what names the request or the thing asked for."""
    text = repr((error.bases, error.message, error.code, error.status, error.retry_after, error.details))
    for each in ids:
        text = text.replace(each, "<id>")
    return (re.sub(r"'request_id': '[^']+'", "", text),)


async def compared(sdk: Sdk, do: str, theirs: dict[str, Any], nothing: dict[str, Any]) -> SdkError:
    ids = [str(value) for given in (theirs, nothing) for value in given.values() if isinstance(value, str)]
    one, other = await sdk.refused(do, **theirs), await sdk.refused(do, **nothing)
    assert words(one, *ids) == words(other, *ids), f"{do} tells them apart"
    return one


async def test_every_call_with_anothers_id_is_a_miss(world: World, kind: str) -> None:
    alice, mallory = await world.sdk(kind), await world.sdk(kind, "mallory")
    before = await mallory.call("list") if mallory.has_labels else []
    asset = await alice.call("upload", **as_bytes(new_picture(), "photo.png"))
    done = await alice.call("run", graph=saving_new())
    running = await alice.call("submit", graph=slow())
    await alice.begin("events", job=running["id"]).until(lambda event: event["kind"] == "progress")
    nobody = str(uuid.uuid4())
    asked = len(world.comfy.received) if world.comfy else 0
    for job in (done["id"], running["id"]):
        for do in ("get", "workflow", "events", "cancel"):
            error = await compared(mallory, do, {"job": job}, {"job": nobody})
            assert (error.bases[0], error.status) == ("NotFound", 404)
    for one in (asset["id"], done["outputs"][0]["id"]):
        for do in ("asset", "delete"):
            error = await compared(mallory, do, {"asset": one}, {"asset": nobody})
            assert (error.bases[0], error.status) == ("NotFound", 404)
        answers = [await content(world, each) for each in (one, nobody)]
        assert answers[0] == answers[1]
        assert answers[0][0] == 404
        graphs = [with_picture({"__type": "core/ASSET", "info": {"id": each}}) for each in (one, nobody)]
        refusals = [await mallory.refused("submit", graph=graph) for graph in graphs]
        assert words(refusals[0], one) == words(refusals[1], nobody)
        assert refusals[0].code == "missing_asset"
    assert [await mallory.call("exists", hash=each) for each in (asset["hash"], NO_HASH)] == [False, False]
    error = await compared(mallory, "from_hash", {"hash": asset["hash"]}, {"hash": NO_HASH})
    assert (error.bases[-1], error.code, error.status) == ("object", "blob_not_found", 404) or kind == "node"
    if mallory.has_labels:
        assert await mallory.call("list") == before
    if world.comfy is not None:
        paths = {each.raw_path.partition("?")[0] for each in world.comfy.received[asked:]}
        assert paths <= OWN_QUESTIONS, "ComfyUI was asked for it"
    assert (await alice.call("get", job=running["id"]))["status"] == "running"
    assert (await alice.call("asset", asset=asset["id"]))["id"] == asset["id"]
    assert (await alice.call("get", job=done["id"]))["outputs"] == done["outputs"]
    await alice.call("cancel", job=running["id"])


async def content(world: World, asset: str) -> tuple[int, str]:
    async with world.gate.call("GET", f"/api/v2/assets/{asset}/content", "mallory") as answer:
        text = (await answer.text()).replace(asset, "<id>")
        return answer.status, re.sub(r'"request_id": ?"[^"]+"', "", text)


async def test_the_same_bytes_of_two_tenants_are_two_uploads(world: World, kind: str) -> None:
    alice, mallory = await world.sdk(kind), await world.sdk(kind, "mallory")
    picture = new_picture()
    first = await alice.call("upload", **as_bytes(picture, "photo.png"))
    second = await mallory.call("upload", **as_bytes(picture, "photo.png"))
    assert (first["created_new"], second["created_new"]) == (True, True)
    assert first["id"] != second["id"]
    await alice.call("delete", asset=first["id"])
    assert await mallory.call("exists", hash=second["hash"]) is True
    job = await mallory.call("run", graph=with_picture({"$asset": second["id"]}))
    assert job["status"] == "succeeded"


async def test_no_answer_names_the_tenants_folder(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    job = await sdk.call("run", graph=with_picture({"$bytes": as_bytes(new_picture(), "photo.png")}))
    await sdk.call("workflow", job=job["id"])
    await sdk.begin("events", job=job["id"]).value()
    for exchange in world.recorder.exchanges():
        if not exchange.path.endswith("/content"):
            assert b"alice" not in exchange.body, str(exchange)
            assert b"comfygate_tenant" not in exchange.body, str(exchange)
