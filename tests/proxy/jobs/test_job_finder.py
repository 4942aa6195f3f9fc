"""A job whose submission got no answer is found where ComfyUI has it, by its owner and by admins, and by nobody else."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import aiohttp
import pytest

from policy.principal import Principal, Role, parse_tenant
from proxy.http.errors import UpstreamUnavailable
from proxy.jobs.job_finder import JobFinder
from proxy.upstream.client import Upstream
from standin import StandIn
from tests.contract.driver import saving, slow
from tests.proxy.jobs.following import following
from tests.proxy.upstreams import GUARD_S

ALICE = Principal("a", parse_tenant("alice"))
MALLORY = Principal("m", parse_tenant("mallory"))
ADMIN = Principal("o", parse_tenant("alice"), Role.ADMIN)


class Beside:
    """A gate's finder that has seen nothing, and what it is asked for, sent past it."""

    def __init__(self, comfy: StandIn, session: aiohttp.ClientSession, upstream: Upstream) -> None:
        self._comfy, self._session, self._upstream = comfy, session, upstream

    async def send(self, client_id: str, *, runs: bool) -> str:
        prompt_id = str(uuid.uuid4())
        graph = slow() if runs else saving("beside")
        document = {"prompt": graph, "client_id": client_id, "prompt_id": prompt_id}
        async with self._session.post(f"{self._comfy.url}/prompt", json=document) as answer:
            assert answer.status == 200, await answer.text()
        async with asyncio.timeout(GUARD_S):
            while not runs:
                async with self._session.get(f"{self._comfy.url}/history/{prompt_id}") as answer:
                    if prompt_id in await answer.json():
                        break
        return prompt_id

    async def interrupt(self) -> None:
        async with self._session.post(f"{self._comfy.url}/interrupt") as answer:
            assert answer.status == 200

    async def has(self, caller: Principal, prompt_id: str, *, is_settled: bool = True) -> bool:
        """What a gate answers that knows nothing yet, so that no answer comes from what an earlier question has brought."""
        async with following(self._upstream) as parts:
            if is_settled:
                parts.watcher.is_settled.set()
            return await JobFinder(self._upstream, parts.registry, parts.records, parts.watcher).has(caller, prompt_id)


@pytest.fixture
async def beside(comfy: StandIn) -> AsyncIterator[Beside]:
    upstream = Upstream(comfy.url, GUARD_S)
    async with aiohttp.ClientSession() as session:
        yield Beside(comfy, session, upstream)
    await upstream.stop()


@pytest.mark.parametrize("runs", [True, False])
async def test_a_job_is_found_in_queue_or_history_by_its_owner(beside: Beside, runs: bool) -> None:
    prompt_id = await beside.send("alice.tab", runs=runs)
    found = [await beside.has(caller, prompt_id) for caller in (ALICE, MALLORY, ADMIN)]
    assert found == [True, False, True]
    if runs:
        await beside.interrupt()


async def test_what_no_tenant_sent_is_an_admins_alone(beside: Beside) -> None:
    prompt_id = await beside.send("somebody", runs=False)
    found = [await beside.has(caller, prompt_id) for caller in (ALICE, MALLORY, ADMIN)]
    assert found == [False, False, True]


async def test_what_is_not_there_is_nobodys(beside: Beside) -> None:
    assert not await beside.has(ALICE, str(uuid.uuid4()))
    assert not await beside.has(ADMIN, str(uuid.uuid4()))


async def test_not_knowing_is_not_a_no(beside: Beside, comfy: StandIn) -> None:
    with pytest.raises(UpstreamUnavailable):
        await beside.has(ALICE, str(uuid.uuid4()), is_settled=False)
    await comfy.stop()
    with pytest.raises(UpstreamUnavailable):
        await beside.has(ALICE, str(uuid.uuid4()))
    await comfy.start()
