"""What becomes of a job that fails, by the class of its error: what is tried once more, what never is, and what the tenant is told."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from policy.rules.overtime import KIND
from proxy.jobs import housekeeping
from tests.contract.driver import Comfy, loading, png
from tests.faults.programs import GUARD_S
from tests.faults.recording import Record, recording_pack, work
from tests.matrix.world import World, open_world


@dataclass
class Installation:
    """A gate before a stand-in whose classes write down what they do."""

    world: World
    record: Record
    folder: Path

    @property
    def alice(self) -> Comfy:
        return self.world.alice

    def events(self, name: str) -> list[str]:
        return [line.event for line in self.record.lines() if line.name == name]

    def asked(self, path: str) -> int:
        """How often the gate sent this path to ComfyUI."""
        return sum(each.raw_path.removeprefix("/api") == path for each in self.world.standin.received)

    async def entry(self, prompt_id: str) -> dict[str, Any]:
        """The history entry of a job that has ended; waits for it."""
        while prompt_id not in (history := (await self.alice.get(f"/history/{prompt_id}")).json()):
            await asyncio.sleep(0)
        entry: dict[str, Any] = history[prompt_id]
        return entry

    async def status(self, prompt_id: str) -> str:
        row = (await self.alice.get(f"/api/jobs/{prompt_id}")).json()
        return str(row["status"])


@asynccontextmanager
async def opened(folder: Path, *, limits: str = "", jobs: str = "") -> AsyncIterator[Installation]:
    """limits and jobs: lines of `[limits.default]` and `[jobs]`."""
    record = Record(folder / "record.jsonl")
    more = f"{limits}\n[jobs]\n{jobs}"
    async with asyncio.timeout(GUARD_S), open_world(folder, more=more, pack=recording_pack(record)) as world:
        yield Installation(world, record, folder)


def error_of(entry: dict[str, Any]) -> dict[str, Any]:
    """The data of the message that ended it."""
    assert entry["status"]["status_str"] == "error"
    kind, data = entry["status"]["messages"][-1]
    assert kind == "execution_error"
    error: dict[str, Any] = data
    return error


async def test_a_job_for_which_memory_was_short_is_tried_once_more(tmp_path: Path) -> None:
    """After ComfyUI was asked to free what it can; the client is told of the end alone."""
    async with opened(tmp_path) as house, house.alice.socket() as socket:
        prompt_id = await house.alice.queue(work("a", 0.0, memory_errors=1), client_id=socket.sid)
        await socket.end_of(prompt_id)
        entry = await house.entry(prompt_id)
        assert entry["status"]["status_str"] == "success"
        assert entry["outputs"]["1"]["text"] == ["a"]
        assert house.events("a") == ["begin", "raised", "begin", "end"]
        assert house.asked("/free") == 1
        assert "execution_error" not in socket.types(prompt_id)
        assert await house.status(prompt_id) == "completed"


async def test_a_job_for_which_memory_is_short_twice_has_failed(tmp_path: Path) -> None:
    async with opened(tmp_path) as house:
        prompt_id = await house.alice.queue(work("a", 0.0, memory_errors=9))
        following = await house.alice.queue(work("b", 0.0))
        error = error_of(await house.entry(prompt_id))
        assert error["exception_type"].endswith("OutOfMemoryError")
        assert (await house.entry(following))["status"]["status_str"] == "success"
        assert house.events("a") == ["begin", "raised"] * 2
        assert house.asked("/free") == 1
        assert await house.status(prompt_id) == "failed"


async def test_a_job_that_fails_by_itself_is_not_tried_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as house:
        prompt_id = await house.alice.queue(work("a", 0.0, other_errors=1))
        following = await house.alice.queue(work("b", 0.0))
        assert error_of(await house.entry(prompt_id))["exception_type"] == "RuntimeError"
        assert (await house.entry(following))["status"]["status_str"] == "success"
        assert house.events("a") == ["begin", "raised"]
        assert house.asked("/free") == 0


async def test_a_job_that_waits_does_not_use_up_its_time_and_one_that_ran_too_long_is_not_tried_again(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, limits="job_seconds = 1", jobs="window = 1") as house:
        house.record.hold.touch()
        first = await house.alice.queue(work("first", 0.0, waits=True))
        following = [await house.alice.queue(work(f"after-{number}", 0.4)) for number in range(3)]
        error = error_of(await house.entry(first))
        assert error["exception_type"] == KIND
        for prompt_id in following:  # the last one has waited for more than a second
            assert (await house.entry(prompt_id))["status"]["status_str"] == "success"
        assert house.events("first") == ["begin", "stopped"]


async def test_a_job_whose_file_is_gone_when_its_turn_comes_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    async with opened(tmp_path, jobs="window = 1") as house:
        await house.alice.put("face.png", png())
        house.record.hold.touch()
        await house.alice.queue(work("first", 0.0, waits=True))
        prompt_id = await house.alice.queue(loading("face.png"))
        following = await house.alice.queue(work("after", 0.0))
        (uploaded,) = (house.folder / "comfyui" / "input").rglob("face.png")
        uploaded.unlink()
        house.record.hold.unlink()
        error = error_of(await house.entry(prompt_id))
        assert error["exception_type"] == "ValidationFailed"
        assert "tenants/" not in str(error), "SECURITY: how ComfyUI calls a tenant's file is nobody's business"
        assert (await house.entry(following))["status"]["status_str"] == "success"
        assert await house.status(prompt_id) == "failed"
        assert prompt_id not in [line.prompt_id for line in house.record.lines()]


@pytest.fixture
def cleans_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much is looked for all the time, and not once a minute."""
    monkeypatch.setattr(housekeeping, "RETAIN_EACH_S", 0.01)


@pytest.mark.usefixtures("cleans_at_once")
async def test_no_more_than_the_newest_jobs_are_kept(tmp_path: Path) -> None:
    async with opened(tmp_path, jobs="history_jobs = 3") as house:
        ids = []
        for number in range(6):
            ids.append(await house.alice.queue(work(f"job-{number}", 0.0)))
            await house.entry(ids[-1])
        while len(history := (await house.alice.get("/history")).json()) > 3:
            await asyncio.sleep(0)
        assert list(history) == ids[3:]
        for prompt_id in ids[:3]:
            assert (await house.alice.get(f"/history/{prompt_id}")).json() == {}
            assert (await house.alice.get(f"/api/jobs/{prompt_id}")).status == 404


@pytest.mark.usefixtures("cleans_at_once")
async def test_what_is_kept_is_counted_by_bytes_for_each_tenant(tmp_path: Path) -> None:
    async with opened(tmp_path, jobs='history_bytes = "32KiB"') as house:
        neighbours = await house.world.mallory.queue(work("mallory", 0.0))
        ids = []
        for number in range(6):  # each is some 10 KiB, however well it is packed
            note = secrets.token_hex(10_000)
            ids.append(
                await house.alice.queue(work(f"job-{number}", 0.0), extra_data={"extra_pnginfo": {"note": note}})
            )
            await house.entry(ids[-1])
        while len(history := (await house.alice.get("/history")).json()) > 3:
            await asyncio.sleep(0)
        assert list(history) == ids[-len(history) :]
        assert list((await house.world.mallory.get("/history")).json()) == [neighbours]


@pytest.mark.usefixtures("cleans_at_once")
async def test_a_job_is_kept_no_longer_than_told(tmp_path: Path) -> None:
    async with opened(tmp_path, jobs='history = "1s"') as house:
        prompt_id = await house.alice.queue(work("a", 0.0))
        await house.entry(prompt_id)
        while (await house.alice.get("/history")).json():
            await asyncio.sleep(0)
        assert (await house.alice.get(f"/api/jobs/{prompt_id}")).status == 404
