"""Shares of the GPU as they are kept on disk: tags, and the virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.fairness import correction_of
from proxy.jobs import store_operations as store
from proxy.jobs.job_rows import Ended, JobRow, StoredState, Submitted
from proxy.jobs.store_giving import give
from proxy.persistence.sqlite import SqliteDatabase

NOTHING = Submitted(b"{}", b"[]", b"[]")
ENDED = Ended(StoredState.SUCCEEDED, ended_at_s=2.0, started_at_s=1.0, gpu_s=1.0)


async def add(database: SqliteDatabase, tenant: str, name: str, cost_s: float) -> bool:
    """Whether it went to ComfyUI at once."""
    job = JobRow(name, tenant, cost_s=cost_s, comfyui="default")
    row = await database.run(store.add_next, job, NOTHING, 1, 1.0)
    row = await database.run(store.add_waiting, job, NOTHING) if row is None else row
    assert row is not None
    return row.state == StoredState.DISPATCHED


async def finish_and_give(database: SqliteDatabase, name: str) -> list[str]:
    await database.run(store.finish, name, ENDED)
    return [given.job.prompt_id for given in await database.run(give, "default", 1, "gate", 0.0, 10.0, {})]


@pytest.mark.parametrize("is_at_rest", [True, False])
async def test_who_had_the_gpu_alone_owes_nothing_when_it_has_been_idle(tmp_path: Path, is_at_rest: bool) -> None:
    database = SqliteDatabase(tmp_path / "state.db")
    await database.open()
    try:
        assert await add(database, "a", "long", 600.0)
        if is_at_rest:
            assert await finish_and_give(database, "long") == []
            assert await add(database, "b", "b-0", 10.0)
        for number in (1, 2):
            for tenant in ("a", "b"):
                assert not await add(database, tenant, f"{tenant}-{number}", 10.0)
        order = []
        running = ["b-0" if is_at_rest else "long"]
        while running := await finish_and_give(database, running[0]):
            order += running
    finally:
        await database.close()
    assert order == (["a-1", "b-1", "a-2", "b-2"] if is_at_rest else ["b-1", "b-2", "a-1", "a-2"])


@pytest.mark.parametrize("gpu_s", [1.0, 3.0, 10.0])
async def test_shares_are_by_weight_also_where_far_too_much_is_expected(tmp_path: Path, gpu_s: float) -> None:
    """As of a workflow that was never run: several of a tenant's jobs are on their way, each charged with what it does not take."""
    weights, window = {"a": 1.0, "b": 5.0, "c": 1.0}, 4
    database = SqliteDatabase(tmp_path / "state.db")
    await database.open()
    try:
        for number in range(60):
            for tenant in weights:
                job = JobRow(f"{tenant}-{number}", tenant, cost_s=10.0, comfyui="default")
                await database.run(store.add_waiting, job, NOTHING)
        order: list[str] = []
        running: list[JobRow] = []
        while len(order) < 60:
            given = await database.run(give, "default", window, "gate", 0.0, 10.0, weights)
            running += [each.job for each in given]
            order += [each.job.tenant for each in given]
            ended = running.pop(0)
            correction = correction_of(ended.cost_s, ended.span, gpu_s)
            await database.run(store.finish, ended.prompt_id, ENDED._replace(gpu_s=gpu_s, correction=correction))
    finally:
        await database.close()
    assert order[10:].count("b") / len(order[10:]) == pytest.approx(5 / 7, abs=0.08)
