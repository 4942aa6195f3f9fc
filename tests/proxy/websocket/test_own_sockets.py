"""The gate's own sockets to ComfyUI: open before a job of the API can run, and again when they were lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from policy.principal import TenantId
from policy.rules.results import SDK_CLIENT
from proxy.jobs.events import JobEvents, SocketReports
from proxy.jobs.job import Job
from proxy.jobs.registry import JobRegistry
from proxy.upstream.client import Upstream
from proxy.websocket import kept_sockets
from proxy.websocket.event_sessions import EventSessions
from proxy.websocket.own_sockets import OwnSockets
from proxy.websocket.send_queue import SendQueue
from standin import StandIn
from tests.proxy.upstreams import GUARD_S

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
GATE = "this one"


async def _no_entry(job: Job) -> None:
    return None


class Ears:
    """Sockets to a stand-in, beside a registry whose jobs the test makes."""

    def __init__(self, url: str) -> None:
        self.upstream = Upstream(url, 1.0)
        self.registry = JobRegistry()
        reports = SocketReports(self.registry, JobEvents(), lambda prompt_id: None)
        self.sessions = EventSessions(
            self.upstream, reconnect_grace_s=lambda: 0.0, reports=reports, read_entry=_no_entry
        )
        self.is_connected = True
        self.own = OwnSockets(self.sessions, self.registry, GATE, lambda: self.is_connected)

    def job(self, tenant: TenantId = ALICE, client_id: str = SDK_CLIENT, gate: str = GATE) -> Job:
        job = self.registry.claim(tenant, None, client_id=client_id)
        job.gate = gate
        return job

    def hears(self, tenant: TenantId = ALICE) -> bool:
        stream = self.sessions.stream(tenant, SDK_CLIENT)
        return stream is not None and stream.is_open

    async def until(self, *, is_heard: bool) -> None:
        async with asyncio.timeout(GUARD_S):
            while self.hears() is not is_heard:
                await asyncio.sleep(0.005)


@pytest.fixture
async def ears(comfy: StandIn, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ears]:
    monkeypatch.setattr(kept_sockets, "_TRY_AGAIN_S", (0.01,))
    made = Ears(comfy.url)
    yield made
    await made.own.stop()
    await made.sessions.stop()
    await made.upstream.stop()


async def test_one_is_open_before_a_job_goes_to_comfyui(ears: Ears) -> None:
    await ears.own.prepare(ears.job(client_id="tab"))
    assert not ears.hears()
    await ears.own.prepare(ears.job())
    first = ears.sessions.stream(ALICE, SDK_CLIENT)
    await ears.own.prepare(ears.job())
    assert ears.sessions.stream(ALICE, SDK_CLIENT) is first is not None
    assert not ears.hears(MALLORY)


async def test_while_comfyui_is_away_nobody_waits_for_one(ears: Ears) -> None:
    ears.is_connected = False
    ears.job()
    await ears.own.listen(ALICE)
    assert not ears.hears()


async def test_all_who_need_one_have_one_when_comfyui_is_there(ears: Ears) -> None:
    ears.job()
    ears.job(MALLORY, gate="another one")
    ears.job(MALLORY, client_id="tab")
    await ears.own.listen_for_all()
    assert ears.hears()
    assert not ears.hears(MALLORY)


async def test_one_that_is_lost_is_opened_again_as_long_as_a_job_needs_it(ears: Ears, comfy: StandIn) -> None:
    job = ears.job()
    await ears.own.listen(ALICE)
    port = comfy.port
    await comfy.stop()
    await ears.until(is_heard=False)
    await ears.own.listen(ALICE)  # which fails, and costs nobody anything
    await comfy.start(port=port)
    await ears.until(is_heard=True)
    ears.registry.release(job.prompt_id)
    await comfy.stop()
    await ears.until(is_heard=False)
    assert not ears.own._kept._opening
    await comfy.start(port=port)


async def test_one_is_closed_when_nobody_needs_it(ears: Ears, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_sockets, "LOOK_EACH_S", 0.02)
    job = ears.job()
    await ears.own.listen(ALICE)
    stream = ears.sessions.stream(ALICE, SDK_CLIENT)
    assert stream is not None
    client = SendQueue()
    stream.attach(client)
    ears.registry.release(job.prompt_id)
    before = ears.own._kept._looks[ALICE]
    async with asyncio.timeout(GUARD_S):
        while ears.own._kept._looks[ALICE] is before:
            await asyncio.sleep(0.005)
    assert ears.hears(), "a client of the tenant's listens under the same id"
    stream.detach(client)
    ears.sessions.leave(stream)
    assert stream.is_open, "whoever keeps it open closes it"
    await ears.until(is_heard=False)
    assert not ears.own._kept._looks


async def test_one_is_opened_anew_when_another_gate_is_gone_whose_job_this_one_follows_now(ears: Ears) -> None:
    job = ears.job(gate="another one")
    ears.own.taken_over(job)
    await ears.until(is_heard=True)
    first = ears.sessions.stream(ALICE, SDK_CLIENT)
    ears.own.taken_over(ears.job(client_id="tab"))
    assert ears.sessions.stream(ALICE, SDK_CLIENT) is first
    ears.own.taken_over(job)
    async with asyncio.timeout(GUARD_S):
        while ears.sessions.stream(ALICE, SDK_CLIENT) in (first, None):
            await asyncio.sleep(0.005)


async def test_one_stays_open_while_another_gate_has_jobs(ears: Ears) -> None:
    """To close it would take that gate's off ComfyUI's list."""
    job = ears.job()
    await ears.own.listen(ALICE)
    ears.job(gate="another one")
    ears.registry.release(job.prompt_id)
    ears.own._kept._look(ALICE)
    assert ears.hears()
