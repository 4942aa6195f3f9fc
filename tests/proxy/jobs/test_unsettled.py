"""What a ComfyUI was given and has not got keeps its place among its tenant's jobs, whichever gate has given it."""

from __future__ import annotations

import pytest

from policy.call import Place
from policy.placement import Seat
from policy.rules.prompt import LAST_PLACE
from proxy.jobs.idempotency_db import Kept, KeptSubmissions
from proxy.jobs.idempotency_db import Place as KeyPlace
from proxy.jobs.job import Job, JobState
from proxy.jobs.unsettled import SETTLED_S
from proxy.persistence.operations import Database
from tests.proxy.jobs.following import ALICE, MALLORY, SUBMITTED, Following, opened

NOBODY = None
"""No ComfyUI is asked here."""


async def two_gates(database: Database) -> tuple[Following, Following, Job]:
    """And a job of alice's, as the second one knows it, which the first has given."""
    first, second = Following(NOBODY, database, "gate/1"), Following(NOBODY, database, "gate/2")
    sent = await first.recorded(place=Place.NEXT)
    await second.replica.catch_up()
    job = second.registry.job(sent.prompt_id)
    assert job is not None
    return first, second, job


async def given(gate: Following, *seats: Seat) -> list[str]:
    return [each.job.prompt_id for each in await gate.records.give(seats)]


@pytest.mark.parametrize("seats", [(), (Seat("default", 4),)], ids=["one ComfyUI", "of several"])
async def test_nothing_of_its_tenant_is_given_before_it_and_others_are(seats: tuple[Seat, ...]) -> None:
    async with opened() as database:
        _, gate, job = await two_gates(database)
        gate.window = 4
        own, other = await gate.recorded(place=Place.WAITING), await gate.recorded(MALLORY, Place.WAITING)
        assert await given(gate, *seats) == [other.prompt_id]
        job.seen_in = gate.registry.connections.to("default")  # the queue watcher has seen it in ComfyUI's queue
        assert await given(gate, *seats) == [own.prompt_id]


async def test_what_comes_in_meanwhile_waits() -> None:
    async with opened() as database:
        _, gate, job = await two_gates(database)
        assert (await gate.recorded()).state is JobState.WAITING
        assert gate.records.unsettled.tenants() == {ALICE}
        job.seen_in = gate.registry.connections.to("default")
        assert gate.records.unsettled.tenants() == set()


async def test_what_is_noted_with_one_that_waits_is_noted() -> None:
    """An Idempotency-Key, without which a repeat would be another job."""
    async with opened() as database:
        _, gate, _ = await two_gates(database)
        job = gate.registry.claim(ALICE, None, client_id="tab", cost_s=10.0)
        kept = KeptSubmissions(database)
        place, now_s = KeyPlace(ALICE, b"key"), gate.now_s
        note = kept.writing(place, Kept(b"fingerprint", job.prompt_id, now_s), now_s)
        assert await gate.records.record(job, SUBMITTED, Place.NEXT, note=note) is None
        assert await kept.find(place, now_s) is not None


async def test_it_is_not_waited_for_for_ever() -> None:
    """Its gate may be there, and unable to reach ComfyUI."""
    async with opened() as database:
        _, gate, _ = await two_gates(database)
        gate.now_s += SETTLED_S - 1.0
        assert gate.records.unsettled.tenants() == {ALICE}
        gate.now_s += 1.0
        assert gate.records.unsettled.tenants() == set()
        gate.registry.connections.made("default")  # ComfyUI may have been restarted
        assert gate.records.unsettled.tenants() == {ALICE}
        gate.registry.connections.over("default")
        gate.now_s += 2 * SETTLED_S
        assert gate.records.unsettled.tenants() == {ALICE}, "nobody can have seen anything"


async def test_what_comfyui_had_when_the_connection_broke_comes_first() -> None:
    async with opened() as database:
        gate = Following(NOBODY, database)
        await gate.running()
        assert gate.records.unsettled.tenants() == set()
        gate.registry.connections.over("default")
        assert gate.records.unsettled.tenants() == {ALICE}
        assert (await gate.recorded(MALLORY)).state is JobState.WAITING, "nobody would see it begin"


async def test_what_is_only_tried_and_what_this_gate_sends_keeps_nobody_waiting() -> None:
    async with opened() as database:
        _, gate, job = await two_gates(database)
        job.number = LAST_PLACE
        assert gate.records.unsettled.tenants() == set()
        own = Following(NOBODY, database, "gate/3")
        assert (await own.recorded(MALLORY, Place.NEXT)).state is JobState.SENT
        assert own.records.unsettled.tenants() == set()
