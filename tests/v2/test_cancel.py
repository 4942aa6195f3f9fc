"""Cancelling: what waits, what runs, and what a client is told from then on."""

from __future__ import annotations

from tests.v2.world import World, saving_new, slow

STATES_AFTER = ("canceling", "canceled")


async def test_a_job_that_waits_is_canceled_at_once_and_for_good(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    running = await sdk.call("submit", graph=slow())
    # More of them than ComfyUI is given at once: the last one waits in the gate.
    waiting = [await sdk.call("submit", graph=saving_new()) for _ in range(4)]
    assert {each["status"] for each in waiting} == {"queued"}
    for job in (waiting[-1], waiting[0]):
        assert (await sdk.call("cancel", job=job["id"]))["status"] in STATES_AFTER
        assert (await sdk.call("wait", job=job["id"]))["status"] == "canceled"
        assert (await sdk.call("cancel", job=job["id"]))["status"] == "canceled"
        error = await sdk.refused("result", job=job["id"])
        assert (error.bases[0], "canceled" in error.message) == ("JobFailed", True)
    await sdk.call("cancel", job=running["id"])
    assert [(await sdk.call("wait", job=each["id"]))["status"] for each in waiting[1:3]] == ["succeeded"] * 2
    assert (await sdk.call("get", job=waiting[0]["id"]))["status"] == "canceled"


async def test_a_job_that_runs_is_canceling_and_never_running_again(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    job = await sdk.call("submit", graph=slow())
    events = sdk.begin("events", job=job["id"])
    await events.until(lambda event: event["kind"] == "progress" and (event["step"] or 0) > 1)
    waiting = sdk.begin("wait", job=job["id"])
    assert (await sdk.call("cancel", job=job["id"]))["status"] in STATES_AFTER
    seen = []
    while (status := (await sdk.call("get", job=job["id"]))["status"]) != "canceled":
        seen.append(status)
    assert set(seen) <= {"canceling"}
    assert (await waiting.value())["status"] == "canceled"
    await events.value()
    told = events.statuses()
    assert told[-1] == "canceled"
    assert "running" not in told[told.index("canceling") :] if "canceling" in told else True
    assert (await sdk.call("cancel", job=job["id"]))["status"] == "canceled"


async def test_what_a_canceled_job_had_made_stays(world: World, kind: str) -> None:
    sdk, graph = await world.sdk(kind), slow()
    graph["9"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "early"}}
    graph["2"]["inputs"]["image"] = ["9b", 0]
    graph["9b"] = {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}
    job = await sdk.call("submit", graph=graph)
    events = sdk.begin("events", job=job["id"])
    await events.until(lambda event: event["kind"] == "progress" and (event["step"] or 0) > 1)
    before = await sdk.call("get", job=job["id"])
    await sdk.call("cancel", job=job["id"])
    after = await sdk.call("wait", job=job["id"])
    assert after["status"] == "canceled"
    assert after["outputs"] == before["outputs"]
