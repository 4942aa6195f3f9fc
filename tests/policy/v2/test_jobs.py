"""The Job as the SDKs parse it: every key is there, and each value is of the type that they insist on."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.v2.jobs import ENDED, JobError, JobView, Status, job_to_client, row_to_client
from policy.v2.links import Links
from policy.v2.progress import Progress
from tests.policy.tenants import uuid_of
from tests.policy.v2.examples import JOB, LINKS, output, view

KEYS = {
    *("id", "status", "created_at", "started_at", "completed_at", "expires_at", "queue_position", "progress"),
    *("outputs", "error", "metrics", "urls", "metadata"),
}
WORDS = {"queued", "running", "succeeded", "canceling", "canceled", "failed", "expired"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
TIMES = st.floats(0, 4e9)


def is_time(value: Any) -> bool:
    return isinstance(value, str) and TIME.fullmatch(value) is not None


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


VIEWS = st.builds(
    JobView,
    prompt_id=st.just(JOB),
    status=st.sampled_from(Status),
    created_at_s=TIMES,
    keep_until_s=TIMES,
    started_at_s=st.none() | TIMES,
    ended_at_s=st.none() | TIMES,
    queue_position=st.none() | st.integers(0, 1000),
    progress=st.none() | st.just(Progress(0.5, 1, 2, "3", "KSampler", 5, 10)),
    outputs=st.sampled_from([(), (output(),), (output(1), output(2))]),
    error=st.none() | st.just(JobError("node_execution_error", "It broke.", "3", "KSampler")),
    labels=st.none() | st.dictionaries(st.text(), st.text()),
)


@given(VIEWS)
def test_whatever_a_job_is_the_sdks_can_parse_it(job: JobView) -> None:
    shown = job_to_client(job, LINKS)
    assert set(shown) == KEYS
    assert shown["status"] in WORDS
    assert type(shown["status"]) is str
    assert is_time(shown["created_at"])
    assert is_time(shown["expires_at"]), "never null"
    assert all(shown[key] is None or is_time(shown[key]) for key in ("started_at", "completed_at"))
    assert shown["queue_position"] is None or is_whole(shown["queue_position"])
    assert set(shown["metrics"]) == {"queue_ms", "execution_ms"}, "an object, also where nothing is known yet"
    assert all(each is None or (is_whole(each) and each >= 0) for each in shown["metrics"].values())
    assert all(isinstance(each, str) for each in shown["urls"].values())
    assert set(shown["urls"]) == {"self", "events", "cancel"}
    assert all(is_time(each["url_expires_at"]) for each in shown["outputs"])
    assert all(each["url"].startswith("https://gate.example/") for each in shown["outputs"])
    assert isinstance(shown["metadata"], dict)


@given(VIEWS)
def test_a_row_of_the_list_has_both_spellings_of_its_times(job: JobView) -> None:
    row = row_to_client(job)
    assert row["id"] == JOB
    assert row["status"] in WORDS
    assert row["create_time"] == row["created_at"]
    assert row["update_time"] == row["updated_at"]
    assert is_time(row["create_time"])
    assert is_time(row["update_time"])
    assert row["metadata"] == dict(job.labels or {})


def test_a_job_that_waits() -> None:
    assert job_to_client(view(queue_position=3, labels={"a": "b"}), Links()) == {
        "id": JOB,
        "status": "queued",
        "created_at": "1970-01-01T00:16:40.000Z",
        "started_at": None,
        "completed_at": None,
        "expires_at": "1970-01-01T02:30:00.000Z",
        "queue_position": 3,
        "progress": None,
        "outputs": [],
        "error": None,
        "metrics": {"queue_ms": None, "execution_ms": None},
        "urls": {
            "self": f"/api/v2/jobs/{JOB}",
            "events": f"/api/v2/jobs/{JOB}/events",
            "cancel": f"/api/v2/jobs/{JOB}/cancel",
        },
        "metadata": {"a": "b"},
    }


def test_a_job_that_runs_tells_how_far_it_is() -> None:
    job = view(Status.RUNNING, started_at_s=1000.25, progress=Progress(0.5, 1, 2, "3", "KSampler", 5, 10))
    shown = job_to_client(job, LINKS)
    assert shown["metrics"] == {"queue_ms": 250, "execution_ms": None}
    assert shown["progress"] == {
        "value": 0.5,
        "nodes_done": 1,
        "nodes_total": 2,
        "current_node": "3",
        "current_node_class": "KSampler",
        "step": 5,
        "steps": 10,
        "message": None,
    }
    assert row_to_client(job)["update_time"] == "1970-01-01T00:16:40.250Z"


def test_a_job_that_has_ended() -> None:
    job = view(Status.SUCCEEDED, started_at_s=1001.0, ended_at_s=1003.5, outputs=(output(2), output(1)))
    shown = job_to_client(job, LINKS)
    assert shown["metrics"] == {"queue_ms": 1000, "execution_ms": 2500}
    assert shown["completed_at"] == "1970-01-01T00:16:43.500Z"
    assert [each["id"] for each in shown["outputs"]] == [uuid_of(2), uuid_of(1)], "in the order in which they are"
    assert {each["url_expires_at"] for each in shown["outputs"]} == {shown["expires_at"]}, "as long as the job is kept"
    assert row_to_client(job)["update_time"] == shown["completed_at"]


def test_a_job_that_was_canceled_before_it_began_took_no_time() -> None:
    shown = job_to_client(view(Status.CANCELED, ended_at_s=1003.0), LINKS)
    assert shown["metrics"] == {"queue_ms": None, "execution_ms": None}


def test_clocks_that_disagree_measure_nothing() -> None:
    """ComfyUI's stamps may lie before the gate's own."""
    shown = job_to_client(view(Status.SUCCEEDED, started_at_s=999.0, ended_at_s=998.0), LINKS)
    assert shown["metrics"] == {"queue_ms": 0, "execution_ms": 0}


def test_a_failure_names_its_node_and_shows_no_traceback() -> None:
    error = JobError("node_execution_error", "It broke.", "3", "KSampler")
    assert job_to_client(view(Status.FAILED, error=error), LINKS)["error"] == {
        "code": "node_execution_error",
        "message": "It broke.",
        "node_id": "3",
        "class_type": "KSampler",
        "traceback": None,
    }


@pytest.mark.parametrize("status", Status)
def test_what_has_ended_is_told_from_what_has_not(status: Status) -> None:
    assert (status in ENDED) is (status.value in {"succeeded", "canceled", "failed"})
