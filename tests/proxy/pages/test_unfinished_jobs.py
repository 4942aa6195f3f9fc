"""What `/gate/me` says of one's unfinished jobs."""

from __future__ import annotations

from typing import Any

from proxy.jobs.forecasts import JobForecast
from proxy.pages.me import MeView, me_json, me_page

JOBS = (JobForecast("<job-1>", "running", 0, None), JobForecast("job-2", "waiting", 1, 1_800_000_000.0))
VIEW = MeView("acme", "7f3a9c21", "user", (), [], (), 1, 1, jobs=JOBS)


def test_for_programs() -> None:
    value: dict[str, Any] = me_json(VIEW).body
    assert value["jobs"]["unfinished"] == [
        {"id": "<job-1>", "state": "running", "position": 0, "estimated_start": None},
        {"id": "job-2", "state": "waiting", "position": 1, "estimated_start": "2027-01-15T08:00:00Z"},
    ]


def test_for_people() -> None:
    page = me_page(VIEW).body.decode()
    assert "<li><code>&lt;job-1&gt;</code> runs</li>" in page
    assert "<code>job-2</code> is number 1 of yours, begins about <time" in page
