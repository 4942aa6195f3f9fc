"""The stream of a job's events, as the SDKs iterate over it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.driver import node
from tests.v2.conversation import Exchange, frames_of
from tests.v2.pack import failing, showing
from tests.v2.sdk import KINDS
from tests.v2.world import World, as_bytes, new_color, new_picture, saving_new, slow, with_picture

LINE_ENDS = "a\u2028b\u2029c\u0085d"
"""What httpx takes for the end of a line, and JSON does not escape."""
NAME = "größe 漢字 🎨.png"


def is_progress(event: dict[str, Any]) -> bool:
    return bool(event["kind"] == "progress")


def brief() -> dict[str, Any]:
    """Long enough that there is progress to be told, with two outputs at different times."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": new_color()}},
        "2": node("SlowProgress", image=["1", 0], seconds=2.0, steps=20),
        "3": node("SaveImage", images=["2", 0], filename_prefix="v2"),
        "4": node("PreviewImage", images=["2", 0]),
    }


async def test_two_clients_see_everything_of_one_job(world: World, kind: str) -> None:
    """Each with its own SDK: this kind, and the next."""
    first, second = await world.sdk(kind), await world.sdk(KINDS[(KINDS.index(kind) + 1) % len(KINDS)])
    blocker = await first.call("submit", graph=slow())
    job = await first.call("submit", graph=brief())
    streams = [each.begin("events", job=job["id"]) for each in (first, second)]
    for stream in streams:
        await stream.until(lambda event: event["kind"] == "statusChange" and event["status"] == "queued")
    await first.call("cancel", job=blocker["id"])
    done = await first.call("result", job=job["id"])
    for stream in streams:
        await stream.value()
        statuses = stream.statuses()
        assert statuses == sorted(statuses, key=("queued", "running", "succeeded").index), "never back"
        assert statuses[-2:] == ["running", "succeeded"]
        assert stream.events[-1]["kind"] == "statusChange"
        values = [event["value"] for event in stream.events if is_progress(event)]
        assert len(values) > 1
        assert values == sorted(values)
        assert 0 <= values[0] < values[-1] <= 1
        outputs = [event["output"] for event in stream.events if event["kind"] == "outputReady"]
        assert sorted(each["id"] for each in outputs) == sorted(each["id"] for each in done["outputs"])
        assert {each["node_id"] for each in outputs} == {"3", "4"}


async def test_progress_counts_nodes_and_steps(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    job = await sdk.call("submit", graph=brief())
    events = sdk.begin("events", job=job["id"])
    await events.value()
    told = [event for event in events.events if is_progress(event)]
    assert {event["nodes_total"] for event in told} == {4}
    assert all(0 <= event["nodes_done"] <= 4 for event in told)
    stepping = [event for event in told if event["current_node"] == "2" and event["step"] is not None]
    assert stepping
    assert {event["steps"] for event in stepping} == {20}


async def test_who_comes_late_is_told_how_far_it_is(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    job = await sdk.call("submit", graph=slow())
    early = sdk.begin("events", job=job["id"])
    before = await early.until(lambda event: is_progress(event) and (event["step"] or 0) > 1)
    late = sdk.begin("events", job=job["id"])
    first = await late.until(lambda event: True)
    assert (first["kind"], first["status"]) == ("statusChange", "running")
    second = await late.until(is_progress)
    assert late.events.index(second) == 1
    assert second["value"] >= before["value"]
    polled = world.recorder.exchanges("GET", f"/api/v2/jobs/{job['id']}")
    await sdk.call("get", job=job["id"])
    shown = world.recorder.exchanges("GET", f"/api/v2/jobs/{job['id']}")
    (poll,) = [each for each in shown if each.target.endswith(job["id"]) and each not in polled]
    assert poll.json()["progress"]["value"] >= before["value"]
    await sdk.call("cancel", job=job["id"])
    await late.value()
    await early.value()


async def test_the_events_of_a_job_that_has_ended_are_its_state(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    job = await sdk.call("run", graph=saving_new())
    events = sdk.begin("events", job=job["id"])
    await events.value()
    assert events.statuses() == ["succeeded"]
    (stream,) = world.recorder.exchanges("GET", f"/api/v2/jobs/{job['id']}/events")
    assert frames_of(stream.body)[-1].event == "status"
    assert stream.is_whole


async def test_a_place_in_the_queue_is_told_and_counts_from_one(world: World, kind: str) -> None:
    """As in Comfy-Org's own server: the next one is at 1, and one that runs has no place."""
    sdk = await world.sdk(kind)
    running = await sdk.call("submit", graph=slow())
    await sdk.begin("events", job=running["id"]).until(is_progress)
    jobs = [await sdk.call("submit", graph=saving_new()) for _ in range(3)]
    streams = [sdk.begin("events", job=job["id"]) for job in jobs]
    first = [await stream.until(lambda event: event["kind"] == "statusChange") for stream in streams]
    assert [(event["status"], event["queue_position"]) for event in first] == [("queued", n) for n in (1, 2, 3)]
    await sdk.call("cancel", job=jobs[0]["id"])
    await streams[2].until(lambda event: event["kind"] == "statusChange" and event["queue_position"] == 2)
    (shown,) = [each for each in world.recorder.exchanges("POST", "/api/v2/jobs") if _is(each, running["id"])]
    await sdk.call("get", job=running["id"])
    await sdk.call("cancel", job=running["id"])
    for stream in streams:
        await stream.value()
    assert [stream.statuses()[-1] for stream in streams] == ["canceled", "succeeded", "succeeded"]
    assert shown.status == 201


def _is(exchange: Exchange, job_id: str) -> bool:
    return exchange.path == "/api/v2/jobs" and bool(exchange.json()["id"] == job_id)


async def test_one_stream_too_many_is_told_in_words_of_the_contract(world: World, kind: str) -> None:
    await world.limit("alice", "websockets = 1")
    sdk = await world.sdk(kind)
    job = await sdk.call("submit", graph=slow())
    first = sdk.begin("events", job=job["id"])
    await first.until(is_progress)
    second = sdk.begin("events", job=job["id"])
    if kind == "node":  # it waits, as long as it is told, and comes again
        while not [each for each in world.recorder.exchanges("GET") if each.status == 429]:
            await sdk.call("get", job=job["id"])
        (refusal,) = [each for each in world.recorder.exchanges("GET") if each.status == 429]
        assert refusal.json()["error"]["code"] == "too_many_streams"
    else:
        with pytest.raises(Exception, match="too_many_streams"):
            await second.value()
    await sdk.call("cancel", job=job["id"])
    await first.value()


async def test_a_stream_is_ascii_whatever_it_names(standin_world: World, kind: str) -> None:
    """That it is, is looked at in every test (bodies.py): some readers end a line where Unicode does."""
    sdk = await standin_world.sdk(kind)
    blocker = await sdk.call("submit", graph=slow())
    job = await sdk.call("submit", graph=showing({"images": [{"filename": NAME, "subfolder": "", "type": "output"}]}))
    events = sdk.begin("events", job=job["id"])
    await events.until(lambda event: True)
    await sdk.call("cancel", job=blocker["id"])
    (output,) = (await sdk.call("result", job=job["id"]))["outputs"]
    await events.value()
    assert output["name"] == NAME
    assert [event["output"] for event in events.events if event["kind"] == "outputReady"] == [output]


async def test_ends_of_lines_arrive_in_messages_and_in_names(standin_world: World, kind: str) -> None:
    sdk = await standin_world.sdk(kind)
    job = await sdk.call("submit", graph=failing(LINE_ENDS))
    events = sdk.begin("events", job=job["id"])
    assert LINE_ENDS in (await sdk.call("wait", job=job["id"]))["error"]["message"]
    await events.value()
    assert events.statuses()[-1] == "failed"
    asset = await sdk.call("upload", **as_bytes(new_picture(), f"{LINE_ENDS}.png"))
    assert (await sdk.call("asset", asset=asset["id"]))["file_path"] == f"{LINE_ENDS}.png"
    assert (await sdk.call("run", graph=with_picture({"$asset": asset["id"]})))["status"] == "succeeded"
