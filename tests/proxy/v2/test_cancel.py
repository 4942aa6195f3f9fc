"""Cancelling through the whole gate: what waits has ended at once, what runs is being ended until it has, and neither is ever taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from standin import StandIn
from tests.contract.driver import saving, slow, unique
from tests.harness import Running, running_gate
from tests.proxy.v2.asking import JOBS, ask, cancel, job, listed, submitted, until
from tests.proxy.v2.restarting import restarted


async def fill(gate: Running) -> tuple[str, str]:
    """One job that runs, and one that ComfyUI has next."""
    running = await submitted(gate, slow())
    await until(gate, running, "running")
    return running, await submitted(gate, slow())


async def test_what_waits_is_canceled_at_once_and_stays_listed(gate: Running) -> None:
    running, _ = await fill(gate)
    waiting = await submitted(gate, saving(unique()), metadata={"a": "b"})
    answer = await cancel(gate, waiting)
    assert (answer.status, answer.body["status"]) == (200, "canceled")
    assert answer.body["completed_at"] is not None
    assert (answer.body["started_at"], answer.body["queue_position"]) == (None, None)
    assert set(answer.body["metrics"].values()) == {None}
    assert await listed(gate, "?metadata[a]=b&status=canceled") == [waiting]
    assert (await job(gate, waiting))["metadata"] == {"a": "b"}
    absent = await ask(gate, "GET", f"{JOBS}/{waiting}/workflow")
    assert absent.refusal == (404, "not_found")
    assert (await job(gate, running))["status"] == "running"
    assert gate.comfy is not None
    assert not [call for call in gate.comfy.received if waiting.encode() in call.body and "prompt" in call.raw_path]


async def test_what_comfyui_has_next_is_canceled_without_having_run(gate: Running) -> None:
    running, following = await fill(gate)
    answer = await cancel(gate, following)
    assert answer.body["status"] in ("canceling", "canceled")
    assert set(await until(gate, following, "canceled")) <= {"canceling", "canceled"}
    assert (await job(gate, following))["started_at"] is None
    assert (await job(gate, running))["status"] == "running", "the neighbour in the queue goes on"


async def test_what_runs_is_being_canceled_until_it_is(gate: Running) -> None:
    running, _ = await fill(gate)
    answer = await cancel(gate, running)
    assert answer.body["status"] in ("canceling", "canceled")
    assert set(await until(gate, running, "canceled")) <= {"canceling", "canceled"}
    done = await job(gate, running)
    assert done["started_at"] is not None
    assert (await cancel(gate, running)).body == done, "a second time changes nothing"


async def test_what_has_ended_stays_as_it_ended(gate: Running) -> None:
    done = await submitted(gate, saving(unique()))
    await until(gate, done, "succeeded")
    before = await job(gate, done)
    answer = await cancel(gate, done)
    assert (answer.status, answer.body) == (200, before)


async def test_a_neighbours_job_is_not_canceled(gate: Running) -> None:
    running, following = await fill(gate)
    waiting = await submitted(gate, slow())
    for job_id in (running, following, waiting):
        assert (await cancel(gate, job_id, "mallory")).refusal == (404, "job_not_found")
    assert [(await job(gate, job_id))["status"] for job_id in (running, following, waiting)] == [
        *("running", "queued", "queued"),
    ]


async def test_the_place_in_the_queue_is_among_ones_own(gate: Running) -> None:
    await fill(gate)
    others = [await submitted(gate, slow()) for _ in range(3)]
    foreign = await submitted(gate, slow(), "mallory")
    assert [(await job(gate, job_id))["queue_position"] for job_id in others] == [2, 3, 4]
    assert (await job(gate, foreign, "mallory"))["queue_position"] == 1
    await cancel(gate, others[0])
    assert [(await job(gate, job_id))["queue_position"] for job_id in others] == [None, 2, 3]


class Deaf:
    """Before ComfyUI: what would end a job is lost while `is_deaf`."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self.is_deaf = True

    @asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, back = await asyncio.open_connection(self._parts.hostname, self._parts.port)

        async def forth() -> None:
            while data := await reader.read(65536):
                if self.is_deaf and data.startswith((b"POST /queue", b"POST /interrupt")):
                    return
                back.write(data)

        async def home() -> None:
            while data := await answers.read(65536):
                writer.write(data)

        ways = [asyncio.ensure_future(forth()), asyncio.ensure_future(home())]
        try:
            with suppress(ConnectionError):
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for each in (writer, back):
                each.transport.abort()


@pytest.mark.parametrize("is_next", [False, True])
async def test_a_job_that_is_being_canceled_never_runs_again(tmp_path: Path, comfy: StandIn, is_next: bool) -> None:
    """Over a restart of the gate too: whoever was told that it ends may rely on it, whenever ComfyUI hears of it."""
    deaf = Deaf(comfy.url)
    async with deaf.run() as url, running_gate(tmp_path, url) as gate:
        chosen = (await fill(gate))[is_next]
        assert (await cancel(gate, chosen)).body["status"] == "canceling"
        assert await listed(gate, "?status=canceling") == [chosen]
        assert chosen not in await listed(gate, "?status=running,queued")
        async with restarted(gate):
            assert (await job(gate, chosen))["status"] == "canceling"
            assert await listed(gate, "?status=canceling") == [chosen]
        deaf.is_deaf = False
        async with restarted(gate):
            assert set(await until(gate, chosen, "canceled")) <= {"canceling", "canceled"}
            assert await listed(gate, "?status=canceled") == [chosen]
