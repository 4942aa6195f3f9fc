"""ComfyUI's verdict of a job that has to wait, asked of the stand-in: the job is not left there, and what has come to its turn stays."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from policy.call import TryJob, UpstreamCall, UpstreamReply
from policy.rules.jobs import json_call
from policy.rules.prompt import LAST_PLACE
from proxy.http.errors import UpstreamUnavailable
from proxy.jobs.queue_reader import get_call
from proxy.jobs.trial import try_job
from proxy.upstream.client import Upstream
from standin import StandIn
from tests.contract.driver import saving, slow
from tests.proxy.upstreams import GUARD_S


class Asked:
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.calls: list[str] = []

    async def __call__(self, call: UpstreamCall) -> UpstreamReply:
        self.calls.append(f"{call.method} {call.target}")
        return await self._upstream.ask(call, time_limit_s=GUARD_S)

    async def ids(self) -> list[list[str]]:
        """What runs, and what waits."""
        queue = (await self(get_call("queue"))).value
        return [[item[1] for item in queue[part]] for part in ("queue_running", "queue_pending")]

    async def busy(self) -> str:
        """A job runs until it is interrupted."""
        prompt_id = str(uuid.uuid4())
        await self(json_call("POST", ("prompt",), {"prompt": slow(), "prompt_id": prompt_id, "number": 1.0}))
        async with asyncio.timeout(GUARD_S):
            while (await self.ids())[0] != [prompt_id]:
                pass
        return prompt_id


@pytest.fixture
async def asked(comfy: StandIn) -> AsyncIterator[Asked]:
    upstream = Upstream(comfy.url, GUARD_S)
    yield Asked(upstream)
    await upstream.ask(json_call("POST", ("interrupt",), {}), time_limit_s=GUARD_S)
    await upstream.stop()


def wish(graph: Any) -> TryJob:
    prompt_id = str(uuid.uuid4())
    document = {"prompt": graph, "prompt_id": prompt_id, "number": LAST_PLACE + 1}
    return TryJob(prompt_id, json_call("POST", ("prompt",), document))


async def test_what_comfyui_takes_is_taken_back(asked: Asked) -> None:
    running = await asked.busy()
    tried = await try_job(asked, wish(saving("tried")), 1)
    assert tried is not None
    assert (tried.reply.status, tried.is_there) == (200, False)
    assert await asked.ids() == [[running], []]


async def test_what_comfyui_refuses_is_told_in_its_own_words(asked: Asked) -> None:
    await asked.busy()
    tried = await try_job(asked, wish({"1": {"class_type": "Absent", "inputs": {}}}), 1)
    assert tried is not None
    assert (tried.reply.status, tried.is_there) == (400, False)
    assert "error" in orjson.loads(tried.reply.body or b"{}")
    assert not any("delete" in call for call in asked.calls)


async def test_an_idle_comfyui_is_not_asked(asked: Asked) -> None:
    assert await try_job(asked, wish(saving("idle")), 1) is None
    assert not any(call.startswith("POST") for call in asked.calls)


async def test_what_has_come_to_its_turn_meanwhile_stays(asked: Asked) -> None:
    running, tried = await asked.busy(), wish(slow())

    async def late(call: UpstreamCall) -> UpstreamReply:
        if call.method == "POST" and call.target == "/queue":
            await asked(json_call("POST", ("interrupt",), {"prompt_id": running}))
            async with asyncio.timeout(GUARD_S):
                while (await asked.ids())[0] != [tried.prompt_id]:
                    pass
        return await asked(call)

    outcome = await try_job(late, tried, 1)
    assert outcome is not None
    assert (outcome.reply.status, outcome.is_there) == (200, True)


async def test_where_it_cannot_be_taken_back_nothing_is_known(asked: Asked) -> None:
    await asked.busy()

    async def stubborn(call: UpstreamCall) -> UpstreamReply:
        return UpstreamReply(500, None) if call.target == "/queue" and call.method == "POST" else await asked(call)

    with pytest.raises(UpstreamUnavailable):
        await try_job(stubborn, wish(saving("left")), 1)
