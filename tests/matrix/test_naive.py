"""A client that never heard of the gate: it does what ComfyUI's own examples do, and everything is as it would be alone."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image

from tests.contract.driver import Graph, images_of, node, opened, previewing, slow
from tests.matrix.people import COLORS, NUMBERS, Tenant, is_color, picture_in, seen, told, unique
from tests.matrix.world import World


def copying(name: str, prefix: str = "copy") -> Graph:
    return {
        "1": node("LoadImage", image=name),
        "2": node("SaveImage", images=["1", 0], filename_prefix=prefix),
        "3": node("PreviewImage", images=["1", 0]),
    }


async def history_when_done(tenant: Tenant, prompt_id: str) -> dict[str, Any]:
    """Polls, as clients without a WebSocket do."""
    while not (entry := (await tenant.get(f"/history/{prompt_id}")).json()):
        pass
    found: dict[str, Any] = entry[prompt_id]
    return found


async def check_files(tenant: Tenant, entry: dict[str, Any]) -> None:
    assert entry["status"]["status_str"] == "success"
    for item in [*images_of(entry, "2"), *images_of(entry, "3")]:
        answer = await tenant.file(item)
        picture = picture_in(answer.body)
        assert picture is not None, told(answer)
        assert is_color(picture, COLORS[tenant.who])


@pytest.mark.parametrize("subfolder", ["", "mine", "mine/deeper"])
async def test_a_photo_is_used_by_the_name_it_was_given(world: World, subfolder: str) -> None:
    """The UI joins what the upload returned, others use the name they sent, or write where it lies."""
    for tenant in (world.alice, world.mallory):
        stored = await tenant.photo("photo.png", subfolder=subfolder, overwrite="true")
        assert stored == {"name": "photo.png", "subfolder": subfolder, "type": "input"}
        joined = "/".join(part for part in (stored["subfolder"], stored["name"]) if part)
        for name in (joined, f"{joined} [input]"):
            prompt_id = await tenant.queue(copying(name))
            await check_files(tenant, await history_when_done(tenant, prompt_id))
        answer = await tenant.view("photo.png", subfolder=subfolder, type="input")
        picture = picture_in(answer.body)
        assert picture is not None
        assert is_color(picture, COLORS[tenant.who])


async def test_two_photos_of_one_name_are_kept_as_comfyui_keeps_them(world: World) -> None:
    name = unique("photo")
    assert (await world.alice.photo(f"{name}.png"))["name"] == f"{name}.png"
    answer = await world.alice.upload(f"{name}.png", b"\x89PNG\r\n\x1a\nother")
    assert answer.json()["name"] == f"{name} (1).png", "in her own folder there was one"
    assert (await world.mallory.photo(f"{name}.png"))["name"] == f"{name}.png", "in hers there was none"


async def test_an_output_is_loaded_again(world: World) -> None:
    """`name [output]`, in a folder, and a temp file of an own job."""
    tenant = world.mallory
    await tenant.photo("photo.png", overwrite="true")
    entry = await tenant.run(copying("photo.png", "deep/er/copy"))
    saved, shown = images_of(entry, "2")[0], images_of(entry, "3")[0]
    assert saved["subfolder"] == "deep/er"
    for name in (f"deep/er/{saved['filename']} [output]", f"{shown['filename']} [temp]"):
        prompt_id = await tenant.queue(copying(name))
        await check_files(tenant, await history_when_done(tenant, prompt_id))


async def test_a_workflow_out_of_a_picture_runs_again(world: World) -> None:
    """What ComfyUI embedded comes in the tenant's own words; whoever else has the picture can do nothing with the names in it."""
    tenant = world.alice
    for name, subfolder in (("by-mail.png", ""), ("by-mail.png", "mine")):
        await tenant.photo(name, subfolder=subfolder, overwrite="true")
        ui = {"id": "wf", "nodes": [], "note": "own"}
        where = f"{subfolder}/{name}".strip("/")
        graph = copying(where, "again/copy") | {
            "4": node("PrimitiveString", value="tenants/alice/x"),
            "5": node("ImageBatch", image1=["1", 0], image2=["1", 0]),
            "6": node("SaveImage", images=["5", 0], filename_prefix="notes/a"),
        }
        entry = await tenant.run(graph, extra_data={"extra_pnginfo": {"workflow": ui}})
        picture = opened((await tenant.file(images_of(entry, "2")[0])).body)
        texts = getattr(picture, "text")  # noqa: B009 - PNG alone has it
        embedded = json.loads(texts["prompt"])
        assert embedded["1"]["inputs"]["image"] == where
        assert json.loads(texts["workflow"]) == ui
        again = await tenant.run(embedded, extra_data={"extra_pnginfo": {"workflow": ui}})
        await check_files(tenant, again)
        assert images_of(again, "2")[0]["subfolder"] == "again"
        assert again["prompt"][2]["1"]["inputs"]["image"] == where
        # Other tenants get such a picture by mail: the names in it lead nowhere.
        answer = await world.mallory.submit({"1": embedded["1"], "3": embedded["3"]})
        status, _, body = seen(answer)
        assert status == 400, told(answer)
        assert b"custom_validation_failed" in body


async def test_history_and_jobs_tell_of_the_same_in_the_clients_words(world: World) -> None:
    tenant = world.alice
    await tenant.photo("photo.png", overwrite="true")
    sid = unique("sid")
    async with tenant.socket(sid) as socket:
        prompt_id = await tenant.queue(copying("photo.png"), client_id=sid)
        await socket.end_of(prompt_id)
        listed = (await tenant.get("/history")).json()
    entry = listed[prompt_id]
    assert entry == await tenant.history(prompt_id), "as soon as the end was told"
    assert entry["prompt"][2] == copying("photo.png")
    assert entry["prompt"][3]["client_id"] == sid
    assert "tenants" not in json.dumps(listed)
    assert "comfygate" not in json.dumps(listed)
    if tenant.is_current:
        rows = (await tenant.get("/api/jobs?status=completed")).json()["jobs"]
        row = next(row for row in rows if row["id"] == prompt_id)
        assert (row["status"], row["preview_output"]["filename"]) == ("completed", images_of(entry, "2")[0]["filename"])
        one = (await tenant.get(f"/api/jobs/{prompt_id}")).json()
        assert one["workflow"]["prompt"] == copying("photo.png")
        assert one["outputs"]["2"]["images"][0]["filename"] == images_of(entry, "2")[0]["filename"]


async def test_a_job_is_stopped_and_what_waits_is_taken_out(world: World) -> None:
    tenant = world.mallory
    async with tenant.socket() as socket:
        running = await tenant.queue(slow(), client_id=socket.sid)
        await socket.event("progress", running)
        waiting = [await tenant.queue(slow(), client_id=socket.sid) for _ in range(3)]
        queue = (await tenant.get("/queue")).json()
        assert [item[1] for item in queue["queue_pending"]] == waiting
        await tenant.post("/queue", json={"delete": waiting[:1]})
        assert [item[1] for item in (await tenant.get("/queue")).json()["queue_pending"]] == waiting[1:]
        await tenant.post("/queue", json={"clear": True})
        assert (await tenant.get("/queue")).json()["queue_pending"] == []
        assert (await tenant.post("/interrupt")).status == 200
        assert (await socket.event("execution_interrupted"))["prompt_id"] == running
        await socket.end_of(running)
    entry = await tenant.history(running)
    assert entry["status"]["status_str"] == "error"
    await tenant.post("/history", json={"delete": [running]})
    assert (await tenant.get(f"/history/{running}")).json() == {}


async def test_the_first_frame_is_the_status_with_the_sid(world: World) -> None:
    """Also for a client that gives none, whose id is drawn."""
    async with world.alice.socket("") as socket:
        assert socket.sid
        prompt_id = await world.alice.queue(previewing(NUMBERS["alice"]), client_id=socket.sid)
        await socket.end_of(prompt_id)
        assert "executed" in socket.types(prompt_id)


async def test_pictures_come_by_the_socket_whole(world: World) -> None:
    await world.alice.needs("SaveImageWebsocket")
    graph = {
        "1": node("EmptyImage", width=16, height=16, batch_size=1, color=NUMBERS["alice"]),
        "2": node("SaveImageWebsocket", images=["1", 0]),
    }
    async with world.alice.socket() as socket:
        prompt_id = await world.alice.queue(graph, client_id=socket.sid)
        await socket.end_of(prompt_id)
        (frame,) = socket.binary
    assert Image.open(io.BytesIO(frame[8:])).size == (16, 16)
