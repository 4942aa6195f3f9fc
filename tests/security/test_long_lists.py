"""A tenant that has its long history searched keeps nobody's reading waiting."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from policy.principal import TenantId
from policy.v2.effects import ListJobs
from policy.v2.jobs import Status
from proxy.jobs.job_rows import COLUMNS, PLACES, StoredState
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_reading import find
from proxy.persistence.operations import Operation, Statement
from proxy.persistence.sqlite_file import STATE_FILE
from proxy.v2 import job_operations
from proxy.v2.job_views import JobViews
from tests.proxy.conftest import opened
from tests.proxy.jobs.stored import row
from tests.proxy.upstreams import GUARD_S

ALICE = TenantId("alice")
JOBS = 1000
SEARCHES = 20


def put_many() -> Operation[None]:
    for number in range(JOBS):
        job = row(f"{number:05}", "alice", created_at_s=float(number // 10), state=StoredState.SUCCEEDED)
        yield Statement(f"INSERT INTO jobs ({COLUMNS}) VALUES ({PLACES})", job)
        yield Statement("INSERT INTO job_labels VALUES (?, ?, ?, ?)", (job.prompt_id, "alice", "run", "7"))


async def test_who_reads_meanwhile_waits_for_a_part_of_one_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_operations, "LOOKED_AT", 5)
    async with opened(tmp_path / STATE_FILE) as database, asyncio.timeout(GUARD_S):
        await database.run(put_many)
        views = JobViews(database, JobRegistry(), None, None, lambda: 60.0)  # type: ignore[arg-type]
        nothing = ListJobs(statuses=frozenset(), labels={"run": "8"}, limit=50, after=None)
        searches = [asyncio.ensure_future(views.page(ALICE, nothing)) for _ in range(SEARCHES)]
        for _ in range(5):
            assert await database.read(find, "nobody's") is None
            await asyncio.sleep(0)
        assert not [search for search in searches if search.done()]
        await searches[0]
        await asyncio.sleep(0)
        assert [search.done() for search in searches] == [True] + [False] * (SEARCHES - 1)
        assert [page.jobs for page in await asyncio.gather(*searches)] == [()] * SEARCHES


@pytest.mark.parametrize("looked_at", [1, 7, 10, JOBS, 2 * JOBS])
async def test_what_is_searched_in_parts_is_found_as_at_once(
    looked_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_operations, "LOOKED_AT", looked_at)
    async with opened(tmp_path / STATE_FILE) as database, asyncio.timeout(GUARD_S):
        await database.run(put_many)
        views = JobViews(database, JobRegistry(), None, None, lambda: 60.0)  # type: ignore[arg-type]
        found: list[str] = []
        after = None
        while True:
            page = await views.page(
                ALICE, ListJobs(statuses=frozenset({Status.SUCCEEDED}), labels={}, limit=300, after=after)
            )
            found += [job.prompt_id for job in page.jobs]
            if (after := page.next) is None:
                break
        assert found == [f"{number:05}" for number in reversed(range(JOBS))]
