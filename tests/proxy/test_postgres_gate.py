"""A gate that remembers in PostgreSQL: over a restart, at two gates, and when it is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.config import ConfigError
from proxy.jobs.job import JobState
from proxy.persistence.sqlite_file import STATE_FILE
from standin import StandIn
from tests.contract.driver import saving, unique
from tests.harness import Running, running_gate
from tests.postgres import PostgresServer
from tests.proxy.test_idempotency import jobs_of, sent
from tests.proxy.upstreams import GUARD_S
from tests.proxy.websocket.test_event_sessions import dial, read_until, submit


def jobs_in(url: str) -> str:
    return f'[jobs]\ndatabase = "{url}"\n'


async def log_in(gate: Running) -> str:
    """The session's cookie."""
    form, origin = {"key": gate.keys["alice"]}, {"Origin": gate.url}
    async with gate.call("POST", "/gate/login", None, data=form, headers=origin) as answer:
        assert answer.status == 303
        return answer.headers["Set-Cookie"].partition(";")[0]


async def log_out(gate: Running, cookie: str) -> None:
    assert await gate.status("POST", "/gate/logout", None, headers={"Cookie": cookie, "Origin": gate.url}) == 200


async def is_in(gate: Running, cookie: str) -> bool:
    return await gate.status("GET", "/gate/me", None, headers={"Cookie": cookie}) == 200


async def test_what_the_gate_remembers_is_there_after_a_restart(
    tmp_path: Path, comfy: StandIn, postgres_url: str
) -> None:
    prefix, key = unique("pg"), unique("key")
    async with running_gate(tmp_path, comfy.url, more=jobs_in(postgres_url)) as gate:
        ended, kept = await log_in(gate), await log_in(gate)
        await log_out(gate, ended)
        first = await sent(gate.session, gate.url, gate.headers("alice"), saving(prefix), key)
        headers = gate.headers("alice")
        assert first.status == 200
    assert not (tmp_path / "state" / STATE_FILE).exists()
    file = (tmp_path / "config.toml").read_text(encoding="utf-8")
    async with running_gate(tmp_path, comfy.url, more=jobs_in(postgres_url)) as gate:
        gate.config_file.write_text(file, encoding="utf-8")  # with the keys of before
        assert await gate.gate.reload(gate.config_file)
        assert [await is_in(gate, cookie) for cookie in (ended, kept)] == [False, True]
        again = await sent(gate.session, gate.url, headers, saving(prefix), key)
        assert (again.status, again.headers.get("Idempotency-Replayed")) == (200, "true")
        assert await jobs_of(gate.session, comfy.url, prefix) == 1


async def test_a_logout_at_one_gate_holds_at_the_other(tmp_path: Path, comfy: StandIn, postgres_url: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "secret").write_text("s" * 64, encoding="ascii")
    more = f'{jobs_in(postgres_url)}[sessions]\nsecret_file = "{(tmp_path / "secret").as_posix()}"\n'
    async with (
        running_gate(tmp_path / "one", comfy.url, more=more) as one,
        running_gate(tmp_path / "two", comfy.url, more=more) as two,
    ):
        two.config_file.write_text(one.config_file.read_text(encoding="utf-8"), encoding="utf-8")  # the same keys
        assert await two.gate.reload(two.config_file)
        cookie = await log_in(one)
        assert await is_in(two, cookie)
        await log_out(one, cookie)
        async with asyncio.timeout(GUARD_S):
            while await is_in(two, cookie):
                await asyncio.sleep(0.05)


async def test_a_database_that_is_not_there_stops_the_start_with_a_sentence(tmp_path: Path, comfy: StandIn) -> None:
    with pytest.raises(ConfigError, match=r"jobs\.database: cannot be used: postgresql://127\.0\.0\.1:1/jobs: "):
        await running_gate(tmp_path, comfy.url, more=jobs_in("postgresql://gate@127.0.0.1:1/jobs")).__aenter__()


async def test_nothing_is_accepted_while_it_cannot_be_kept(
    tmp_path: Path, comfy: StandIn, own_postgres: PostgresServer
) -> None:
    prefix, key = unique("pg"), unique("key")
    async with running_gate(tmp_path, comfy.url, more=jobs_in(own_postgres.url())) as gate:
        await asyncio.to_thread(own_postgres.kill)
        refused = await sent(gate.session, gate.url, gate.headers("alice"), saving(prefix), key)
        assert refused.status == 503
        assert "Retry-After" in refused.headers
        await asyncio.to_thread(own_postgres.start)
        async with asyncio.timeout(GUARD_S):
            while True:
                answer = await sent(gate.session, gate.url, gate.headers("alice"), saving(prefix), key)
                if answer.status == 200:
                    break
                assert answer.status == 503
                await asyncio.sleep(0.05)
        assert await jobs_of(gate.session, comfy.url, prefix) == 1


@asynccontextmanager
async def two_gates(folder: Path, comfyui: str, jobs: str) -> AsyncIterator[tuple[Running, Running]]:
    for name in ("one", "two"):
        (folder / name).mkdir()
    async with (
        running_gate(folder / "one", comfyui, more=jobs) as one,
        running_gate(folder / "two", comfyui, more=jobs) as two,
    ):
        yield one, two


async def test_a_client_hears_the_end_of_a_job_that_another_gate_has_taken(
    tmp_path: Path, comfy: StandIn, postgres_url: str
) -> None:
    """ComfyUI's events may come to the gate with the socket before that gate knows of the job, and then are nobody's."""
    async with two_gates(tmp_path, comfy.url, jobs_in(postgres_url)) as (one, two), dial(two, "alice") as socket:
        replica, knows = two.gate.dependencies.jobs.replica, asyncio.Event()
        catch_up = replica.catch_up

        async def late() -> None:
            await knows.wait()
            await catch_up()

        replica.catch_up = late  # type: ignore[method-assign]
        sent = [await submit(one, "alice"), await submit(one, "alice")]
        async with asyncio.timeout(GUARD_S):
            while len(await one.json("GET", "/history", "alice")) < len(sent):
                await asyncio.sleep(0.05)
        knows.set()
        missed = await read_until(socket, "execution_success") + await read_until(socket, "execution_success")
        assert sorted(ends_in(missed)) == sorted(sent)
        next_one = await submit(one, "alice")
        assert ends_in(await read_until(socket, "execution_success")) == [next_one], "nothing is told twice"


async def test_a_client_hears_at_any_gate_that_its_job_has_failed(
    tmp_path: Path, comfy: StandIn, postgres_url: str
) -> None:
    """The gate that gave it to ComfyUI says so; ComfyUI does not."""
    jobs = f"{jobs_in(postgres_url)}retry_interrupted = false\n"
    async with two_gates(tmp_path, comfy.url, jobs) as (one, two), dial(two, "alice") as socket:
        prompt_id = await submit(one, "alice", seconds=GUARD_S)
        job = one.gate.dependencies.registry.job(prompt_id)
        assert job is not None
        async with asyncio.timeout(GUARD_S):
            while job.state is not JobState.RUNNING:
                await asyncio.sleep(0.05)
        await one.gate.dependencies.jobs.endings.lost(job, has_run=True)
        assert ends_in(await read_until(socket, "execution_error")) == [prompt_id]
        async with one.session.post(f"{comfy.url}/interrupt") as answer:
            assert answer.status == 200


def ends_in(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["prompt_id"] for event in events if event["type"] in ("execution_success", "execution_error")]
