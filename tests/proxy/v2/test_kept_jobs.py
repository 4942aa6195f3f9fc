"""What is kept of jobs in memory has a bound, whatever each of them made."""

from __future__ import annotations

import pytest

from proxy.jobs.job import Job
from proxy.jobs.job_rows import JobRow
from proxy.v2 import kept_jobs
from proxy.v2.job_operations import StoredJob
from proxy.v2.kept_jobs import MAX_OUTPUTS, KeptJobs
from tests.proxy.v2.stored import made


def stored(name: str, outputs: int = 0) -> StoredJob:
    row = JobRow(prompt_id=name, tenant="alice", sequence=1)
    return StoredJob(row, {}, [made(number, name) for number in range(outputs)], None, is_measured=True)


def job(name: str) -> Job:
    return Job(name, "alice", sequence=1)  # type: ignore[arg-type]


def kept_of(kept: KeptJobs, *names: str) -> list[str]:
    return [name for name in names if kept.of(job(name)) is not None]


def test_the_oldest_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_jobs, "MAX_JOBS", 2)
    kept = KeptJobs()
    for name in ("1", "2", "1", "3"):
        kept.put(stored(name))
    assert kept_of(kept, "1", "2", "3") == ["1", "3"]


def test_jobs_that_made_much_leave_no_room_for_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_jobs, "MAX_ALL_OUTPUTS", 60)
    kept = KeptJobs()
    kept.put(stored("1", 25))
    kept.put(stored("1", 30))  # in the place of the other
    kept.put(stored("2", 30))
    assert kept_of(kept, "1", "2") == ["1", "2"]
    kept.put(stored("3", 1))
    assert kept_of(kept, "1", "2", "3") == ["2", "3"]
    kept.forget("2")
    kept.put(stored("4", MAX_OUTPUTS))
    assert kept_of(kept, "2", "3", "4") == ["3", "4"]
    kept.put(stored("5", MAX_OUTPUTS + 1))
    assert kept_of(kept, "5") == []
