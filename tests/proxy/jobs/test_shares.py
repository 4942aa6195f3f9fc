"""Shares of the GPU as they are kept on disk: tags, and the virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

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
