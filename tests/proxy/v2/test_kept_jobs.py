"""What is kept of jobs in memory has a bound, whatever each of them made."""

from __future__ import annotations

import pytest

from policy.v2.jobs import JobView, Status
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


def test_a_job_that_is_kept_is_looked_at_once_as_long_as_it_is_the_same() -> None:
    kept, looks = KeptJobs(), list[StoredJob]()

    def look(of: StoredJob) -> JobView:
        looks.append(of)
        return JobView(of.row.prompt_id, Status.SUCCEEDED, 1.0, 2.0)

    first, again = stored("1"), stored("1", 1)
    kept.put(first)
    assert kept.view(first, 60.0, look) is kept.view(first, 60.0, look)
    assert looks == [first]
    kept.view(first, 90.0, look)  # it is kept for longer by now, and says so
    assert looks == [first, first]
    kept.put(again)
    kept.view(again, 90.0, look)
    kept.view(first, 90.0, look)  # the one that it took the place of
    assert looks == [first, first, again, first]
    kept.forget("1")
    kept.view(again, 90.0, look)
    kept.view(again, 90.0, look)
    assert looks[4:] == [again, again]
