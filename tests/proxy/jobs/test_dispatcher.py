"""Who is given to ComfyUI: each once, as many as there is room for, and what becomes of those that it does not take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from policy.call import Place, UpstreamReply
from proxy.jobs import dispatcher, sender
from proxy.jobs.job import Job, JobState, Outcome
from proxy.jobs.job_rows import Given
from proxy.persistence.operations import DatabaseUnavailable, Operation, Statement
from proxy.upstream.client import Upstream
from tests.proxy.jobs.asked import AskedComfy
from tests.proxy.jobs.following import ALICE, MALLORY, Following, following
from tests.proxy.upstreams import GUARD_S, serving


async def _nothing() -> None:
    return


class Comfy(AskedComfy):
    """Takes jobs. before: done before it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], Awaitable[None]] = _nothing

    async def answer(self, call: str) -> web.StreamResponse | None:
        assert call == "POST /prompt"
        await self.before()
        return None

    def value(self) -> Any:
        return {"error": {"message": "no"}}

    @property
    def taken(self) -> list[tuple[str, float]]:
        return [(document["prompt_id"], document["number"]) for document in self.documents("POST /prompt")]

    @property
    def ids(self) -> list[str]:
        return [prompt_id for prompt_id, _ in self.taken]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "TRY_AGAIN_S", 0.0)


@pytest.fixture
def comfy() -> Comfy:
    return Comfy()


@pytest.fixture
async def parts(comfy: Comfy) -> AsyncIterator[Following]:
    async with serving(comfy) as url:
        upstream = Upstream(url, GUARD_S)
        async with following(upstream) as parts:
            yield parts
        await upstream.stop()


async def test_each_is_given_once_and_no_more_than_there_is_room_for(parts: Following, comfy: Comfy) -> None:
    jobs = [await parts.recorded(place=Place.WAITING) for _ in range(5)]
    await asyncio.gather(*(parts.dispatcher.dispatch() for _ in range(3)))
    assert comfy.taken == [(job.prompt_id, job.number) for job in jobs[:2]]
    assert [job.state for job in jobs] == [JobState.DISPATCHED] * 2 + [JobState.WAITING] * 3
    await parts.endings.taken_out(jobs[0], was_watched=True)
    await parts.dispatcher.dispatch()
    assert comfy.ids == [job.prompt_id for job in jobs[:3]]
    assert comfy.taken[2][1] > comfy.taken[1][1]


async def test_tenants_come_in_turn(parts: Following, comfy: Comfy) -> None:
    many = [await parts.recorded(MALLORY, Place.WAITING) for _ in range(4)]
    own = await parts.recorded(ALICE, Place.WAITING)
    await parts.dispatcher.dispatch()
    assert comfy.ids == [many[0].prompt_id, own.prompt_id]


async def test_while_comfyui_is_not_ready_nothing_is_given(parts: Following, comfy: Comfy) -> None:
    job = await parts.recorded(place=Place.WAITING)
    parts.is_ready = False
    await parts.dispatcher.dispatch()
    assert (comfy.taken, job.state) == ([], JobState.WAITING)


async def test_a_comfyui_that_is_not_there_has_got_nothing(parts: Following, comfy: Comfy) -> None:
    job = await parts.recorded(place=Place.WAITING)
    nowhere = parts.sender._upstream = Upstream("http://127.0.0.1:9", 1.0)
    await parts.dispatcher.dispatch()
    await nowhere.stop()
    assert job.state is JobState.WAITING
    assert (await parts.stored(job.prompt_id)).state == "waiting"


async def test_a_comfyui_that_does_not_answer_may_have_got_it(parts: Following, comfy: Comfy) -> None:
    """It is nowhere else until the queue watcher knows."""
    comfy.status = 0
    job = await parts.recorded(place=Place.WAITING)
    for _ in range(3):
        await parts.dispatcher.dispatch()
    assert (comfy.ids, job.state, job.is_in_flight) == ([job.prompt_id], JobState.SENT, False)
    assert (await parts.stored(job.prompt_id)).state == "dispatched"


async def test_a_comfyui_that_is_starting_gets_it_later(parts: Following, comfy: Comfy) -> None:
    comfy.status = 503
    job = await parts.recorded(place=Place.WAITING)
    await parts.dispatcher.dispatch()
    assert job.state is JobState.WAITING
    comfy.status = 200
    await parts.dispatcher.dispatch()
    assert (comfy.ids, job.state) == ([job.prompt_id] * 2, JobState.DISPATCHED)


async def test_what_it_refuses_has_failed_and_the_next_has_its_turn(parts: Following, comfy: Comfy) -> None:
    comfy.status = 400
    jobs = [await parts.recorded(place=Place.WAITING) for _ in range(3)]
    await parts.dispatcher.dispatch()
    comfy.status = 200
    await parts.dispatcher.dispatch()
    assert [job.outcome for job in jobs] == [Outcome.FAILED, Outcome.FAILED, None]
    assert comfy.ids == [job.prompt_id for job in jobs]


@pytest.mark.parametrize("status", [503, 400])
async def test_what_was_not_sent_when_the_database_went_away_is_sent_when_it_is_back(
    status: int, parts: Following, comfy: Comfy
) -> None:
    """503: it has not got the first one either. 400: that one is the queue watcher's."""
    parts.window = 3
    jobs = [await parts.recorded(place=Place.WAITING) for _ in range(3)]
    comfy.status, comfy.before = status, parts.database.close
    with pytest.raises(DatabaseUnavailable):
        await parts.dispatcher.dispatch()
    assert comfy.ids == [jobs[0].prompt_id]
    comfy.status, comfy.before = 200, _nothing
    await parts.database.open()
    await parts.dispatcher.dispatch()
    unsent = jobs if status == 503 else jobs[1:]
    assert comfy.ids[1:] == [job.prompt_id for job in unsent]
    assert {job.state for job in unsent} == {JobState.DISPATCHED}
    assert not jobs[0].is_in_flight


async def test_what_was_canceled_is_not_given(parts: Following, comfy: Comfy) -> None:
    jobs = [await parts.recorded(place=Place.WAITING) for _ in range(2)]
    await parts.records.cancel_waiting(ALICE, [jobs[0].prompt_id])
    await parts.dispatcher.dispatch()
    assert comfy.ids == [jobs[1].prompt_id]


async def test_it_looks_when_it_is_told_to(parts: Following, comfy: Comfy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "LOOK_EACH_S", 3600.0)
    running = asyncio.ensure_future(parts.dispatcher.run())
    job = await parts.recorded(place=Place.WAITING)
    parts.dispatcher.wake()
    async with asyncio.timeout(GUARD_S):
        while not comfy.taken:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    assert comfy.ids == [job.prompt_id]


async def test_where_there_is_no_room_the_database_is_not_asked(
    parts: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "LOOK_EACH_S", 3600.0)
    for _ in range(parts.window):
        await parts.running()
    await parts.recorded(place=Place.WAITING)
    before = await parts.database.run(version)
    running = asyncio.ensure_future(parts.dispatcher.run())
    for _ in range(3):
        parts.dispatcher.wake()
        await asyncio.sleep(0)
    assert await parts.database.run(version) == before, "each writer counts one more"
    running.cancel()
    await asyncio.wait({running})


def version() -> Operation[int]:
    """Behind all that was asked before."""
    [(found,)] = yield Statement("SELECT version FROM store_state")
    return int(found)


async def test_one_that_is_about_to_be_sent_jobs_is_given_no_more(parts: Following) -> None:
    seen = [parts.sender.is_ready]
    parts.sender.begin()
    seen.append(parts.sender.is_ready)
    await parts.sender.send_all(())
    assert [*seen, parts.sender.is_ready] == [True, False, True]


async def test_to_one_that_leaves_nothing_is_sent_any_more(parts: Following, comfy: Comfy) -> None:
    """Also not what was chosen for it already."""
    first, second = [await parts.recorded(place=Place.WAITING) for _ in range(2)]

    async def leave() -> None:
        parts.sender.is_leaving = True

    comfy.before = leave
    await parts.dispatcher.dispatch()
    assert comfy.ids == [first.prompt_id]
    assert (first.state, second.state) == (JobState.DISPATCHED, JobState.WAITING)
    assert not parts.sender.is_ready
    await parts.dispatcher.dispatch()
    parts.sender.is_leaving = False
    assert comfy.ids == [first.prompt_id]
    await parts.dispatcher.dispatch()
    assert comfy.ids == [first.prompt_id, second.prompt_id]


async def test_what_is_prepared_for_one_that_leaves_is_not_sent(parts: Following, comfy: Comfy) -> None:
    job = await parts.recorded(place=Place.WAITING)

    async def prepare(job: Job, given: Given) -> UpstreamReply | None:
        parts.sender.is_leaving = True
        return None

    parts.sender._prepare = prepare
    await parts.dispatcher.dispatch()
    assert (comfy.ids, job.state) == ([], JobState.WAITING)
