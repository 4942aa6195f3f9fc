"""A job that runs longer than its tenant may: stopped, and told as a failure by every way; the next one runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from policy.rules.overtime import KIND
from tests.contract.conftest import REAL_URL, TARGETS
from tests.contract.driver import images_of, saving, slow
from tests.harness import AUDIT_FILE
from tests.matrix.world import open_world
from tests.proxy.upstreams import GUARD_S


@pytest.mark.parametrize("target", TARGETS)
async def test_a_job_that_runs_too_long_is_stopped(tmp_path: Path, target: str) -> None:
    url = REAL_URL if target == "real" else ""
    async with asyncio.timeout(2 * GUARD_S), open_world(tmp_path, real_url=url, more="job_seconds = 1") as world:
        alice, dependencies = world.alice, world.running.gate.dependencies
        async with alice.socket() as socket:
            prompt_id = await alice.queue(slow(60.0, 6000), client_id=socket.sid)
            following = await alice.queue(saving("after", 1), client_id=socket.sid)
            error = await socket.event("execution_error", prompt_id)
            assert (error["exception_type"], error["node_type"]) == (KIND, "SlowProgress")
            assert "1 s" in error["exception_message"]
            await socket.end_of(following)
            assert "execution_interrupted" not in socket.types(prompt_id)
        for _ in range(2):  # as it is kept, and as it is asked for
            entry = await alice.history(prompt_id)
            assert entry["status"]["status_str"] == "error"
            assert [kind for kind, _ in entry["status"]["messages"]][-1] == "execution_error"
            row = (await alice.get(f"/api/jobs/{prompt_id}")).json()
            assert (row["status"], row["execution_error"]["exception_type"]) == ("failed", KIND)
            listed = (await alice.get("/api/jobs?status=failed")).json()["jobs"]
            assert [each["id"] for each in listed] == [prompt_id]
            while dependencies.registry.active():
                await asyncio.sleep(0)
        assert images_of(await alice.history(following))
    lines = [orjson.loads(line) for line in (tmp_path / AUDIT_FILE).read_bytes().splitlines()]
    (ended,) = [line for line in lines if line["event"] == "job" and line["prompt_id"] == prompt_id]
    assert (ended["outcome"], ended["reason"]) == ("failed", "job-seconds")
    assert 1.0 <= ended["gpu_seconds"] < GUARD_S


async def test_ones_own_interrupt_is_no_failure(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(GUARD_S),
        open_world(tmp_path, more="job_seconds = 3600") as world,
        world.alice.socket() as socket,
    ):
        prompt_id = await world.alice.queue(slow(60.0, 6000), client_id=socket.sid)
        await socket.event("progress", prompt_id)
        await world.alice.post("/interrupt", json={"prompt_id": prompt_id})
        await socket.event("execution_interrupted", prompt_id)
