"""Limits as the SDKs take them, and keys of submissions."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from tests.proxy.relay import Loses
from tests.v2.conversation import Exchange
from tests.v2.sdk import WRITTEN_APART, SdkError
from tests.v2.world import OpenWorld, World, saving_new, slow

SDKS = WRITTEN_APART

POLLS = 200


async def test_submit_waits_for_a_place_in_the_queue(world: World, kind: str) -> None:
    await world.limit("alice", "queued_jobs = 1")
    sdk = await world.sdk(kind)
    first = await sdk.call("submit", graph=slow())
    second = sdk.begin("submit", graph=saving_new())
    while not refusals(world, 429):
        await sdk.call("get", job=first["id"])
    await sdk.call("cancel", job=first["id"])
    job = await second.value()
    assert (await sdk.call("result", job=job["id"]))["status"] == "succeeded"
    tries = [each for each in world.recorder.exchanges("POST") if each.path == "/api/v2/jobs"]
    keys = {each.request_headers["idempotency-key"] for each in tries[1:]}
    assert len(keys) == 1, "a try that was refused leaves the key as it was"
    assert {each.json()["error"]["code"] for each in refusals(world, 429)} == {"queue_full"}


def refusals(world: World, status: int) -> list[Exchange]:
    return [each for each in world.recorder.exchanges("POST", "/api/v2/jobs") if each.status == status]


async def test_submit_waits_where_it_came_too_often(world: World, kind: str) -> None:
    await world.limit("alice", 'prompts = "1/second"')
    sdk = await world.sdk(kind)
    jobs = await asyncio.gather(*(sdk.call("submit", graph=saving_new()) for _ in range(3)))
    assert len({job["id"] for job in jobs}) == 3
    assert {each.json()["error"]["code"] for each in refusals(world, 429)} == {"rate_limited"}


async def test_a_spent_budget_is_told_at_once(world: World, kind: str) -> None:
    """As 429 with hours to wait the SDK would sleep a minute for nothing."""
    await world.limit("alice", 'gpu_seconds = "1/day"')
    sdk = await world.sdk(kind)
    await sdk.call("run", graph=slow(seconds=2.0, steps=4))
    error = await sdk.refused("submit", graph=saving_new())
    assert (error.bases[0], error.status) == ("InsufficientCredits", 402)


async def test_two_hundred_looks_at_a_job_in_a_minute_are_not_refused(world: World, kind: str) -> None:
    """Under the limits that ship: an SDK that waits dies of a single refusal. A dozen jobs that are waited for are this many looks."""
    await world.limit("alice")
    sdk = await world.sdk(kind)
    job = await sdk.call("submit", graph=slow())
    for _ in range(POLLS // 10):
        await asyncio.gather(*(sdk.call("get", job=job["id"]) for _ in range(10)))
    await sdk.call("cancel", job=job["id"])
    statuses = {each.status for each in world.recorder.exchanges("GET", f"/api/v2/jobs/{job['id']}")}
    assert statuses == {200}


async def test_looking_at_jobs_does_not_use_up_what_other_requests_need(world: World, kind: str) -> None:
    await world.limit("alice", 'requests = "30/minute"')
    sdk = await world.sdk(kind)
    job = await sdk.call("submit", graph=slow())
    for _ in range(60):
        await sdk.call("get", job=job["id"])
    assert (await sdk.call("cancel", job=job["id"]))["id"] == job["id"]


async def test_a_key_is_taken_once(world: World, kind: str) -> None:
    sdk, key, before = await world.sdk(kind), str(uuid.uuid4()), await jobs_of(world)
    first = await sdk.call("submit", graph=saving_new(), idempotency_key=key)
    for graph in (saving_new(), slow()):
        error = await sdk.refused("submit", graph=graph, idempotency_key=key)
        assert (error.bases[0], error.code, error.status) == ("IdempotencyKeyReuse", "idempotency_key_reuse", 422)
    assert (await sdk.call("result", job=first["id"]))["status"] == "succeeded"
    assert (await sdk.refused("submit", graph=saving_new(), idempotency_key=key)).code == "idempotency_key_reuse"
    assert not [each for each in world.recorder.exchanges() if "idempotency-replayed" in each.headers]
    assert set(await jobs_of(world)) - set(before) == {first["id"]}


async def jobs_of(world: World, who: str = "alice") -> list[str]:
    """Before a real ComfyUI there may be older ones."""
    asking = await world.sdk("sync", who)
    return [each["id"] for each in await asking.call("list", limit=100)]


async def test_the_same_submission_twice_is_refused_too(world: World, kind: str) -> None:
    """Never replayed: the contract has it so, and the SDK's users are told to look for the first job."""
    sdk, key, graph = await world.sdk(kind), str(uuid.uuid4()), saving_new()
    await sdk.call("run", graph=graph)
    first = await sdk.call("submit", graph=graph, idempotency_key=key)
    error = await sdk.refused("submit", graph=graph, idempotency_key=key)
    assert error.code == "idempotency_key_reuse"
    assert (await sdk.call("result", job=first["id"]))["status"] == "succeeded"


async def test_of_many_at_once_one_is_taken(world: World, kind: str) -> None:
    sdk, key, graph, before = await world.sdk(kind), str(uuid.uuid4()), saving_new(), await jobs_of(world)
    calls = [sdk.begin("submit", graph=graph, idempotency_key=key) for _ in range(8)]
    outcomes = [await call.outcome() for call in calls]
    taken = [each for each in outcomes if not isinstance(each, SdkError)]
    assert len(taken) == 1
    assert {each.code for each in outcomes if isinstance(each, SdkError)} == {"idempotency_key_reuse"}
    assert set(await jobs_of(world)) - set(before) == {taken[0]["id"]}


async def test_a_key_is_free_again_when_the_submission_was_refused(world: World, kind: str) -> None:
    sdk, key, broken = await world.sdk(kind), str(uuid.uuid4()), saving_new()
    broken["2"]["inputs"]["images"] = ["nowhere", 0]
    forbidden = saving_new() | {"3": {"class_type": "CheckpointSave", "inputs": {}}}
    for graph, code in ((broken, "invalid_workflow"), (forbidden, "forbidden"), ({}, "invalid_workflow")):
        assert (await sdk.refused("submit", graph=graph, idempotency_key=key)).code == code
    job = await sdk.call("submit", graph=saving_new(), idempotency_key=key)
    assert (await sdk.call("result", job=job["id"]))["status"] == "succeeded"


async def test_a_key_is_the_tenants_own(world: World, kind: str) -> None:
    alice, mallory, key = await world.sdk(kind), await world.sdk(kind, "mallory"), str(uuid.uuid4())
    jobs = [await each.call("submit", graph=saving_new(), idempotency_key=key) for each in (alice, mallory)]
    assert jobs[0]["id"] != jobs[1]["id"]
    assert jobs[1]["id"] in await jobs_of(world, "mallory")


@pytest.mark.parametrize("loses", [Loses.ANSWER, Loses.SUBMISSION])
async def test_a_key_stays_taken_when_nobody_knows_the_outcome(
    target: str, worlds: OpenWorld, kind: str, loses: Loses
) -> None:
    """ComfyUI alone can judge this workflow, and hangs up in the middle. The gate may find out what became of it, or say that it does not know."""
    async with worlds(target, has_relay=True) as world:
        assert world.relay is not None
        sdk, key, graph = await world.sdk(kind), str(uuid.uuid4()), slow(seconds=0.2, steps=2)
        world.relay.loses = loses
        outcome = await sdk.begin("submit", graph=graph, idempotency_key=key).outcome()
        assert not isinstance(outcome, SdkError) or outcome.status in (502, 503, 504), outcome
        assert world.relay.submissions >= 1
        world.relay.loses = Loses.NOTHING
        error = await sdk.refused("submit", graph=graph, idempotency_key=key)
        assert error.code == "idempotency_key_reuse"


async def test_what_is_reserved_is_refused(world: World) -> None:
    """The SDKs have no field for these."""
    reserved: tuple[dict[str, Any], ...] = ({"webhook_url": "https://example.com"}, {"inputs": {}})
    for more in (*reserved, {"extra_data": {"other": "x"}}):
        body = {"workflow": saving_new(), **more}
        async with world.gate.call("POST", "/api/v2/jobs", "alice", json=body) as answer:
            refusal = await answer.json()
        assert (answer.status, refusal["error"]["code"]) in ((422, "invalid_workflow"), (422, "invalid_request"))
