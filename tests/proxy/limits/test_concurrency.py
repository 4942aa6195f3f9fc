"""Slots in memory: exactly as many as there are, and none lost."""

from __future__ import annotations

import asyncio

import pytest

from policy.principal import TenantId
from proxy.config.limits import LimitsSettings
from proxy.http.errors import LimitExceeded
from proxy.limits.concurrency import CLAIM_GRACE_S, ConcurrencyLimits, SocketSlot
from tests.proxy.conftest import Clock, allotment, context

ALICE, BOB = TenantId("alice"), TenantId("bob")


async def claimed(slots: ConcurrencyLimits, tenant: TenantId, ids: range) -> list[str]:
    """The ids that got a slot, all asked for at once."""

    async def claim(prompt_id: str) -> str | None:
        try:
            await slots.claim_job(tenant, prompt_id)
        except LimitExceeded:
            return None
        return prompt_id

    answers = await asyncio.gather(*(claim(f"{tenant}-{index}") for index in ids))
    return [prompt_id for prompt_id in answers if prompt_id is not None]


async def test_of_1000_simultaneous_claims_exactly_10_pass_and_nothing_stays_claimed(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({"queued_jobs": 10}), clock=clock)
    passed = await claimed(slots, ALICE, range(1000))
    assert len(passed) == 10
    assert slots.jobs_of(ALICE) == 10
    for prompt_id in passed:
        slots.free_job(prompt_id)
        slots.free_job(prompt_id)
    assert slots.jobs_of(ALICE) == 0
    assert len(await claimed(slots, ALICE, range(1000, 1020))) == 10


async def test_tenants_have_slots_of_their_own(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({"queued_jobs": 2}), clock=clock)
    assert len(await claimed(slots, ALICE, range(5))) == 2
    assert len(await claimed(slots, BOB, range(5))) == 2


async def test_a_full_queue_says_so(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({"queued_jobs": 1}), clock=clock)
    await slots.claim_job(ALICE, "1")
    await slots.claim_job(ALICE, "1")
    with pytest.raises(LimitExceeded) as caught:
        await slots.claim_job(ALICE, "2")
    assert caught.value.message == (
        "1 jobs of the tenant are in ComfyUI's queue already. Wait for one to finish, or cancel one."
    )
    assert (caught.value.reason, caught.value.retry_after_s) == ("queue-full", 5.0)


async def test_a_tenant_with_no_running_jobs_may_run_nothing(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({"running_jobs": 0}), clock=clock)
    with pytest.raises(LimitExceeded, match="may run no jobs"):
        await slots.claim_job(ALICE, "1")
    assert len(await claimed(ConcurrencyLimits(allotment({"running_jobs": 1}), clock=clock), ALICE, range(3))) == 3


async def test_whether_there_is_room_is_asked_without_taking_any(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({"queued_jobs": 2}), clock=clock)
    for _ in range(5):
        slots.check_job(ALICE)
    assert len(await claimed(slots, ALICE, range(5))) == 2
    slots.check_job(BOB)
    with pytest.raises(LimitExceeded, match="2 jobs of the tenant are in ComfyUI's queue already"):
        slots.check_job(ALICE)
    with pytest.raises(LimitExceeded, match="may run no jobs"):
        ConcurrencyLimits(allotment({"running_jobs": 0}), clock=clock).check_job(ALICE)
    ConcurrencyLimits(allotment({"queued_jobs": None}), clock=clock).check_job(ALICE)


async def test_comfyuis_queue_is_the_truth(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({"queued_jobs": 3}), clock=clock)
    await slots.claim_job(ALICE, "here")
    await slots.claim_job(ALICE, "gone")
    assert slots.reconcile({"here": ALICE, "gone": ALICE, "of another gate": BOB}) == []
    assert (slots.jobs_of(ALICE), slots.jobs_of(BOB)) == (2, 1)
    assert slots.reconcile({"here": ALICE}) == ["gone", "of another gate"]
    assert (slots.jobs_of(ALICE), slots.jobs_of(BOB)) == (1, 0)


async def test_those_that_have_changed_are_enough(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({"queued_jobs": 3}), clock=clock)
    slots.reconcile({"here": ALICE, "gone": ALICE})
    assert slots.reconcile({"new": BOB}, {"gone", "new", "unknown"}) == ["gone"]
    assert (slots.jobs_of(ALICE), slots.jobs_of(BOB)) == (1, 1)


async def test_a_claim_on_its_way_is_not_taken_for_vanished(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({"queued_jobs": 3}), clock=clock)
    await slots.claim_job(ALICE, "on its way")
    clock.pass_s(CLAIM_GRACE_S - 1)
    assert slots.reconcile({}) == []
    clock.pass_s(2)
    assert slots.reconcile({}) == ["on its way"]
    assert slots.jobs_of(ALICE) == 0


async def test_a_restart_counts_what_is_queued(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({"queued_jobs": 3}), clock=clock)
    slots.reconcile({f"old-{index}": ALICE for index in range(5)})
    assert await claimed(slots, ALICE, range(3)) == []
    slots.reconcile({"old-0": ALICE})
    assert len(await claimed(slots, ALICE, range(9))) == 2


async def test_a_limit_set_by_a_reload_counts_what_was_queued_before(clock: Clock) -> None:
    limits = allotment({"queued_jobs": None})
    slots = ConcurrencyLimits(limits, clock=clock)
    assert len(await claimed(slots, ALICE, range(20))) == 20
    limits.apply(LimitsSettings.model_validate({"default": {"queued_jobs": 10}}), {"alice": "default"})
    with pytest.raises(LimitExceeded):
        await slots.claim_job(ALICE, "one more")


async def test_websockets_are_counted_by_tenant_and_by_key(clock: Clock) -> None:
    limits = allotment(
        {"websockets": 3, "websockets_per_key": 2}, {("alice", "small"): "small"}, small={"websockets": 1}
    )
    slots = ConcurrencyLimits(limits, clock=clock)
    await slots.claim_socket(context(subject="small"))
    with pytest.raises(LimitExceeded, match="1 WebSockets of the key are open already"):
        await slots.claim_socket(context(subject="small"))
    first = await slots.claim_socket(context(subject="other"))
    await slots.claim_socket(context(subject="other"))
    with pytest.raises(LimitExceeded, match="3 WebSockets of the tenant"):
        await slots.claim_socket(context(subject="third"))
    first.release()
    first.release()
    await slots.claim_socket(context(subject="other"))
    with pytest.raises(LimitExceeded):
        await slots.claim_socket(context(subject="third"))
    await slots.claim_socket(context("bob", "other"))


async def test_a_limit_set_by_a_reload_counts_sockets_that_were_open_before(clock: Clock) -> None:
    for name, size in (("websockets", 3), ("websockets_per_key", 2)):
        none = {"websockets": None, "websockets_per_key": None}
        limits = allotment(none)
        slots = ConcurrencyLimits(limits, clock=clock)
        open_ones = [await slots.claim_socket(context()) for _ in range(size)]
        limits.apply(LimitsSettings.model_validate({"default": {"websockets": 100, name: size}}), {"alice": "default"})
        with pytest.raises(LimitExceeded, match=f"{size} WebSockets"):
            await slots.claim_socket(context())
        open_ones[0].release()
        await slots.claim_socket(context())


async def test_websockets_without_a_limit_are_not_counted(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({"websockets": None, "queued_jobs": None}), clock=clock)
    for _ in range(100):
        await slots.claim_socket(context())
    assert slots.remaining(context()) == []


async def test_a_failed_claim_holds_nothing(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({"websockets": 5, "websockets_per_key": 1}), clock=clock)
    await slots.claim_socket(context())
    for _ in range(10):
        with pytest.raises(LimitExceeded):
            await slots.claim_socket(context())
    for index in range(4):
        await slots.claim_socket(context(subject=f"other-{index}"))


async def test_connections_are_bounded_in_all(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({}), max_connections=3, clock=clock)
    held = [slots.claim_connection() for _ in range(5)]
    assert [slot is not None for slot in held] == [True, True, True, False, False]
    with held[0] or SocketSlot(lambda: None):
        pass
    assert slots.claim_connection() is not None
    assert slots.claim_connection() is None


async def test_what_is_left_is_told(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({"queued_jobs": 10, "websockets": 8}), clock=clock)
    await slots.claim_job(ALICE, "1")
    await slots.claim_socket(context())
    left = {item.name: (item.size, item.total, item.remaining) for item in slots.remaining(context())}
    assert left == {"queued-jobs": ("10", 10, 9), "websockets": ("8", 8, 7)}


async def test_without_redis_there_are_no_leases_to_keep(clock: Clock) -> None:
    slots = ConcurrencyLimits(allotment({}), clock=clock)
    await slots.start()
    await slots.stop()
