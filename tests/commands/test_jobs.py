"""`comfygate jobs` beside a gate that runs, and without one."""

from __future__ import annotations

import asyncio
import math
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.commands.draining import what_is_left
from proxy.commands.job_texts import cells_of, describe, in_columns, note_of
from proxy.commands.terminal import progress_line
from proxy.jobs.job_rows import JobRow, StoredState
from proxy.jobs.operator_operations import Load
from proxy.persistence.migrations import MIGRATIONS
from proxy.persistence.sqlite_file import STATE_FILE
from standin import StandIn
from tests.commands.cli import Said, aside, comfygate
from tests.commands.served import GUARD_S, Served, served, started
from tests.commands.test_serve import needs_signals
from tests.contract.driver import loading, previewing, slow
from tests.harness import write_config

NO_JOB = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def config(tmp_path: Path, comfy: StandIn) -> tuple[Path, dict[str, str]]:
    """One job at a time."""
    return write_config(tmp_path, comfy.url, more="[jobs]\nwindow = 1\n")


@pytest.fixture
async def gate(config: tuple[Path, dict[str, str]]) -> AsyncIterator[Served]:
    async with served(*config) as gate:
        yield gate


@pytest.fixture
def file(config: tuple[Path, dict[str, str]]) -> Path:
    return config[0]


async def submit(gate: Served, graph: dict[str, Any], who: str = "alice", **more: Any) -> str:
    status, document = await gate.ask("POST", "/prompt", who, json={"prompt": graph, **more})
    assert status == 200, document
    return str(document["prompt_id"])


async def jobs(file: Path, *words: object) -> Said:
    return await aside("jobs", *words, "--config", file)


async def listed(file: Path, *words: object) -> list[dict[str, Any]]:
    said = await jobs(file, "list", "--json", *words)
    assert said.code == 0, said.err
    return [orjson.loads(line) for line in said.out.splitlines()]


async def until(file: Path, prompt_id: str, state: str) -> dict[str, Any]:
    """As it is shown when it is in that state."""
    async with asyncio.timeout(GUARD_S):
        while (job := orjson.loads((await jobs(file, "show", prompt_id, "--json")).out))["state"] != state:
            pass
    return dict(job)


async def test_jobs_are_listed_with_the_newest_first(gate: Served, file: Path) -> None:
    running = await submit(gate, slow())
    await until(file, running, "running")
    waiting = await submit(gate, previewing(1), "mallory", client_id="phone")

    head, *rows = (await jobs(file, "list")).out.splitlines()
    assert head.split() == ["ID", "TENANT", "STATE", "SUBMITTED", "TIME", "NOTE"]
    assert [row.split()[:3] for row in rows] == [[waiting, "mallory", "waiting"], [running, "alice", "running"]]
    assert [job["id"] for job in await listed(file)] == [waiting, running]
    assert [job["id"] for job in await listed(file, "--tenant", "alice")] == [running]
    assert [job["id"] for job in await listed(file, "--state", "waiting")] == [waiting]
    assert [job["id"] for job in await listed(file, "--limit", 1)] == [waiting]
    assert (await jobs(file, "list", "--tenant", "nobody")).err == "There is no such job.\n"

    shown = orjson.loads((await jobs(file, "show", waiting, "--json")).out)
    assert (shown["client_id"], shown["state"], shown["started_at"], shown["attempts"]) == (
        "phone",
        "waiting",
        None,
        [],
    )
    said = (await jobs(file, "show", running)).out
    assert f"job          {running}\n" in said
    assert "state        running, runs " in said
    assert "attempt 1" in said


async def test_a_job_that_waits_is_canceled_at_once(gate: Served, file: Path) -> None:
    await submit(gate, slow())
    waiting = await submit(gate, previewing(2))

    said = await jobs(file, "cancel", waiting)

    assert (said.code, said.out) == (0, f"Job {waiting} of alice is canceled.\n")
    async with asyncio.timeout(GUARD_S):
        while any(item[1] == waiting for item in (await gate.ask("GET", "/queue"))[1]["queue_pending"]):
            pass
    assert await gate.ask("GET", f"/history/{waiting}") == (200, {})
    assert (await jobs(file, "cancel", waiting)).err == f"Job {waiting} is canceled already.\n"
    assert (
        await jobs(file, "retry", waiting)
    ).err == f"Job {waiting} is canceled: only a job that failed can be tried again.\n"


async def test_of_a_canceled_job_a_gate_that_starts_again_knows_nothing(config: tuple[Path, dict[str, str]]) -> None:
    """Not even a number is missing."""
    file = config[0]
    async with served(*config) as gate:
        running = await submit(gate, slow())
        waiting = await submit(gate, previewing(7))
        last = await submit(gate, previewing(8))
        for prompt_id in (waiting, running):
            assert (await jobs(file, "cancel", prompt_id)).code == 0
        await until(file, last, "succeeded")
    async with served(*config) as gate:
        _, answer = await gate.ask("GET", "/api/jobs")
        assert [(row["id"], row["priority"]) for row in answer["jobs"]] == [(last, 2), (running, 1)]
        assert await gate.ask("GET", f"/api/jobs/{waiting}") == (404, {"error": "Job not found"})


async def test_a_job_that_runs_is_stopped_by_the_gate(gate: Served, file: Path) -> None:
    running = await submit(gate, slow())
    await until(file, running, "running")

    said = await jobs(file, "cancel", running)

    assert (said.code, said.out) == (0, f"Job {running} of alice is canceled.\n")
    _, history = await gate.ask("GET", f"/history/{running}")
    assert history[running]["status"]["messages"][-1][0] == "execution_interrupted"


async def test_a_job_that_failed_is_tried_again(gate: Served, file: Path) -> None:
    failing = await submit(gate, loading(""))
    before = await until(file, failing, "failed")
    assert (before["failing_class"], len(before["attempts"])) == ("LoadImage", 1)
    blocking = await submit(gate, slow())
    await until(file, blocking, "running")

    said = await jobs(file, "retry", failing)

    assert (said.code, said.out) == (0, f"Job {failing} of alice waits again.\n")
    assert (await listed(file, "--state", "waiting"))[0]["id"] == failing
    assert (await jobs(file, "cancel", blocking)).code == 0
    after = await until(file, failing, "failed")
    assert len(after["attempts"]) == 2
    assert (await gate.ask("GET", f"/history/{failing}"))[1][failing]["status"]["status_str"] == "error"


async def test_comfyui_is_drained(gate: Served, file: Path, comfy: StandIn) -> None:
    running = await submit(gate, slow())
    await until(file, running, "running")
    waiting = await submit(gate, previewing(3))

    said = await jobs(file, "drain", "--wait", "0")
    assert said.code == 1
    assert "ComfyUI has 1 job, 1 of them running; 1 job waits in the gate\n" in said.err
    assert (
        "ComfyUI still has 1 job after 0 s. No job is given to ComfyUI, until `comfygate jobs drain --off`." in said.err
    )

    draining = asyncio.create_task(jobs(file, "drain"))
    await gate.ask("POST", "/interrupt", json={"prompt_id": running})
    said = await draining
    assert said.code == 0, said.err
    assert said.out.startswith("ComfyUI has none of the gate's jobs; 1 job waits in the gate.")
    also = await submit(gate, previewing(4))
    unsure = await submit(gate, loading(""))  # of which only ComfyUI knows whether it is valid
    assert [job["id"] for job in await listed(file, "--state", "waiting")] == [unsure, also, waiting]
    assert "No job is given to ComfyUI" in (await jobs(file, "list")).err

    assert (await jobs(file, "drain", "--off")).out == "Jobs are given to ComfyUI again.\n"
    await until(file, waiting, "succeeded")
    await until(file, also, "succeeded")
    assert (await jobs(file, "cancel", also)).err == f"Job {also} is done already.\n"


async def test_one_that_is_alone_has_no_name_to_drain_it_by(gate: Served, file: Path, comfy: StandIn) -> None:
    for more in ((), ("--off",)):
        said = await jobs(file, "drain", "--comfyui", "default", *more)
        assert (said.code, said.out, said.err) == (1, "", "There is one ComfyUI: leave --comfyui out.\n")
    running = await submit(gate, slow())
    await until(file, running, "running")
    said = await aside("comfyui", "list", "--json", "--config", file)
    known = {"name": "default", "url": comfy.url, "jobs": 1, "running": 1, "window": 1, "answers": True, "stuck": False}
    assert orjson.loads(said.out) == known | {"drained": False}
    assert (await jobs(file, "drain", "--wait", "0")).code == 1
    assert orjson.loads((await aside("comfyui", "list", "--json", "--config", file)).out) == known | {"drained": True}


@needs_signals
async def test_who_stops_waiting_is_told_that_draining_goes_on(gate: Served, file: Path) -> None:
    running = await submit(gate, slow())
    await until(file, running, "running")
    async with started("jobs", "drain", "--config", str(file)) as process:
        await process.said("ComfyUI has 1 job")
        process.process.send_signal(signal.SIGINT)
        assert await process.ended() == 1
        await process.said("Not waited for any longer. No job is given to ComfyUI")


def test_on_a_terminal_progress_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    running = JOB._replace(state=StoredState.RUNNING, lease_until_s=math.inf)
    with progress_line() as tell:
        for given in ([running, running._replace(lease_until_s=0.0)], [running], [running]):
            tell(what_is_left(Load(True, given, 0)))
    first = "ComfyUI has 2 jobs, 2 of them running; 0 jobs wait in the gate; no gate follows 1: start it, and it sees how they end"
    second = "ComfyUI has 1 job, 1 of them running; 0 jobs wait in the gate"
    assert capsys.readouterr().err == f"{first}\r{second:<{len(first)}}\n"


@asynccontextmanager
async def killed(config: tuple[Path, dict[str, str]]) -> AsyncIterator[tuple[str, str]]:
    """A gate that was killed while a job ran and another one waited; their ids."""
    async with served(*config) as gate:
        running = await submit(gate, slow())
        await until(config[0], running, "running")
        waiting = await submit(gate, previewing(5))
        gate.send(signal.SIGKILL)
        await gate.process.ended()
    yield running, waiting


async def test_without_a_gate(config: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    file = config[0]
    monkeypatch.setattr("proxy.commands.jobs._CANCEL_S", 0.0)
    async with killed(config) as (running, waiting):
        assert [job["id"] for job in await listed(file)] == [waiting, running]
        assert (await jobs(file, "cancel", waiting)).code == 0
        said = await jobs(file, "cancel", running)
        assert said.code == 1
        assert said.err.startswith(f"Job {running} is running, and no gate has stopped it within 0 s.")
        assert (await jobs(file, "drain", "--wait", "0")).code == 1
        await _let_leases_end(file)
        said = await jobs(file, "drain", "--wait", "0s")
        assert "no gate follows 1: start it, and it sees how they end" in said.err
        assert "No gate follows it." in (await jobs(file, "list")).out
        async with served(*config):
            await until(file, running, "canceled")


async def _let_leases_end(file: Path) -> None:
    with closing(sqlite3.connect(file.parent / "state" / STATE_FILE)) as database, database:
        database.execute("UPDATE jobs SET lease_until_s = 1.0 WHERE ended_at_s IS NULL")


@pytest.mark.parametrize("command", ["show", "cancel", "retry"])
async def test_a_job_that_there_is_not(gate: Served, file: Path, command: str) -> None:
    said = await jobs(file, command, NO_JOB)
    assert (said.code, said.out, said.err) == (1, "", f"There is no job {NO_JOB}.\n")
    assert (await jobs(file, command, "a\x1b[31m")).err == "There is no such job.\n"


async def test_no_job_at_all(gate: Served, file: Path) -> None:
    said = await jobs(file, "list")
    assert (said.code, said.out, said.err) == (0, "", "There is no job.\n")
    assert await listed(file) == []


def _fails_with(file: Path, words: str) -> None:
    for command in (("list",), ("show", NO_JOB), ("cancel", NO_JOB), ("retry", NO_JOB), ("drain",), ("drain", "--off")):
        said = comfygate("jobs", *command, "--config", file)
        assert (said.code, said.out) == (1, "")
        assert words in said.err


def test_where_no_gate_has_run_nothing_is_made(tmp_path: Path) -> None:
    file, _ = write_config(tmp_path, "http://127.0.0.1:1")
    state = tmp_path / "state" / STATE_FILE
    _fails_with(
        file, f"cannot be used (server.state_dir): {state} is not there: no gate has run with this configuration yet"
    )
    assert not state.parent.exists()


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (len(MIGRATIONS) + 1, "was written by a newer comfygate"),
        (len(MIGRATIONS) - 1, "was written by an older comfygate: start the gate, which brings it up to date"),
    ],
)
def test_a_database_of_another_version_is_left_as_it_is(tmp_path: Path, version: int, words: str) -> None:
    file, _ = write_config(tmp_path, "http://127.0.0.1:1")
    state = tmp_path / "state" / STATE_FILE
    state.parent.mkdir()
    with closing(sqlite3.connect(state)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    before = state.read_bytes()
    _fails_with(file, words)
    assert state.read_bytes() == before


def test_a_damaged_database_stays_where_it_is(tmp_path: Path) -> None:
    file, _ = write_config(tmp_path, "http://127.0.0.1:1")
    state = tmp_path / "state" / STATE_FILE
    state.parent.mkdir()
    state.write_bytes(b"no database" * 100)
    _fails_with(file, f"{STATE_FILE}: file is not a database. Run this as the user that the gate runs as")
    assert [each.name for each in state.parent.iterdir()] == [STATE_FILE]


def test_postgresql_that_is_not_there_or_empty(tmp_path: Path, postgres_url: str) -> None:
    for url, words in (
        ("postgresql://gate@127.0.0.1:1/jobs", "cannot be used (jobs.database): postgresql://127.0.0.1:1/jobs: "),
        (postgres_url, "it has no tables of a gate: no gate has run with this configuration yet"),
    ):
        file, _ = write_config(tmp_path, "http://127.0.0.1:1", more=f'[jobs]\ndatabase = "{url}"\n')
        _fails_with(file, words)


async def test_with_postgresql(tmp_path: Path, comfy: StandIn, postgres_url: str) -> None:
    file, keys = write_config(tmp_path, comfy.url, more=f'[jobs]\nwindow = 1\ndatabase = "{postgres_url}"\n')
    async with served(file, keys) as gate:
        running = await submit(gate, slow())
        await until(file, running, "running")
        waiting = await submit(gate, previewing(6))
        assert (await jobs(file, "cancel", running)).code == 0
        await until(file, waiting, "succeeded")
        assert (await jobs(file, "drain")).code == 0
        assert [job["id"] for job in await listed(file)] == [waiting, running]


@pytest.mark.parametrize("wait", ["soon", "-1", ""])
def test_a_time_that_is_none(tmp_path: Path, wait: str) -> None:
    said = comfygate("jobs", "drain", "--wait", wait, "--config", tmp_path / "config.toml")
    assert said.code == 1
    assert said.err.startswith(f"--wait {wait!r}: write a duration such as 30s")


def test_a_configuration_with_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[jobs]\nwindow = 0\n")
    _fails_with(file, "jobs.window: input should be greater than or equal to 1")


JOB = JobRow(NO_JOB, "alice", client_id="phone", created_at_s=100.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"attempts": '[{"at": 1}]'}, "tried 1 times before"),
        ({"state": StoredState.DISPATCHED, "lease_until_s": 999.0}, ""),
        ({"state": StoredState.RUNNING, "lease_until_s": 1.0}, "No gate follows it."),
        ({"state": StoredState.RUNNING, "lease_until_s": 999.0, "wish": "cancel"}, "to be canceled"),
        ({"state": StoredState.FAILED, "error": "node", "failing_class": "LoadImage"}, "node: LoadImage"),
        ({"state": StoredState.FAILED, "error": "comfyui-gone"}, "comfyui-gone"),
    ],
)
def test_what_is_unusual_about_a_job(changes: dict[str, Any], expected: str) -> None:
    assert note_of(JOB._replace(**changes), 200.0) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "waits 1m"),
        ({"state": StoredState.RUNNING, "started_at_s": 190.0}, "runs 10s"),
        ({"state": StoredState.SUCCEEDED, "started_at_s": 100.0, "ended_at_s": 100.0 + 7200}, "ran 2h"),
        ({"state": StoredState.CANCELED, "ended_at_s": 150.0}, "never ran"),
    ],
)
def test_how_long_it_took(changes: dict[str, Any], expected: str) -> None:
    assert cells_of(JOB._replace(**changes), 200.0)[4] == expected


def test_a_terminal_is_sent_no_control_characters() -> None:
    job = JOB._replace(client_id="phone\x1b[31m", failing_class="A\nB", state=StoredState.FAILED, error="x")
    assert "\x1b" not in describe(job, 200.0)
    assert "phone?[31m" in describe(job, 200.0)
    assert in_columns([cells_of(job, 200.0)]).endswith("x: A?B")
