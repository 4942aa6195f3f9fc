"""What is told of a job's end, and when again."""

from __future__ import annotations

import orjson
import pytest

from policy.attempts import JITTER, MAX_WAIT_S, SCHEDULE_S, wait_after
from policy.v2.jobs import JobError, JobView, Status, job_to_client
from policy.v2.links import Links
from policy.webhooks import (
    ENDS,
    MAX_BODY_BYTES,
    MAX_ERROR_TEXT,
    OF_STORAGE,
    Event,
    Result,
    asked_wait,
    event_of,
    message,
    result_of,
)
from tests.policy.v2.examples import output

LINKS = Links("https://comfy.example.com", "/gate")
DONE = JobView("an-id", Status.SUCCEEDED, 100.0, 900.0, started_at_s=110.0, ended_at_s=120.5, labels={"order": "7"})


def test_each_end_has_its_event() -> None:
    assert [event_of(state) for state in ("succeeded", "failed", "canceled")] == list(ENDS)


@pytest.mark.parametrize(
    ("status", "result"),
    [
        *((status, Result.DELIVERED) for status in (200, 202, 204, 299)),
        *((status, Result.FAILED) for status in (199, 300, 301, 302, 304, 307, 400, 404, 429, 500, 503)),
        (410, Result.GONE),
    ],
)
def test_a_status_says_what_came_of_it(status: int, result: Result) -> None:
    assert result_of(status) is result


def test_it_is_sent_ten_times_over_a_day_and_then_no_more() -> None:
    waits = [wait_after(attempts, 0.0) for attempts in range(1, len(SCHEDULE_S))]
    assert sum(wait for wait in waits if wait is not None) == SCHEDULE_S[-1] == 86_400
    assert wait_after(len(SCHEDULE_S), 0.0) is None
    assert waits[0] == 5


def test_chance_makes_a_wait_longer_and_by_little() -> None:
    assert wait_after(1, 1.0) == pytest.approx(5 * (1 + JITTER))


def test_a_receiver_may_ask_for_a_longer_wait_and_for_no_shorter_one() -> None:
    assert wait_after(1, 0.0, 60.0) == 60
    assert wait_after(1, 0.0, 1.0) == 5
    assert wait_after(1, 0.0, 1e12) == MAX_WAIT_S
    assert wait_after(len(SCHEDULE_S), 0.0, 60.0) is None


@pytest.mark.parametrize(
    ("status", "text", "wait_s"),
    [
        (429, "120", 120.0),
        (503, " 7 ", 7.0),
        (502, "9" * 5000, 999_999_999.0),
        (504, "Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        (429, "Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        (429, None, None),
        (429, "", None),
        (429, "soon", None),
        (429, "-5", None),
        (429, "٣", None),
        (429, "Thu, 32 Jan 1970 00:00:00 GMT", None),
        (500, "120", None),
        (200, "120", None),
    ],
)
def test_retry_after_is_read_where_it_means_something(status: int, text: str | None, wait_s: float | None) -> None:
    assert asked_wait(status, text, 100.0) == wait_s


def test_the_message_is_the_job_as_the_api_shows_it_with_absolute_links() -> None:
    body = orjson.loads(message(DONE, LINKS))
    assert (body["type"], body["timestamp"]) == ("job.succeeded", "1970-01-01T00:02:00.500Z")
    assert body["data"]["urls"]["self"] == "https://comfy.example.com/gate/api/v2/jobs/an-id"
    assert set(body) == {"type", "timestamp", "data"}
    assert {**body["data"], "urls": None} == {**job_to_client(DONE, LINKS), "urls": None}


@pytest.mark.parametrize("event", OF_STORAGE)
def test_what_has_become_of_copies_is_told_with_the_job(event: Event) -> None:
    body = orjson.loads(message(DONE, LINKS, event=event, at_s=200.0))
    assert (body["type"], body["timestamp"]) == (event.value, "1970-01-01T00:03:20.000Z")
    assert body["data"] == orjson.loads(message(DONE, LINKS))["data"]
    assert set(OF_STORAGE) | set(ENDS) == set(Event)


def test_it_is_said_when_outputs_are_not_known() -> None:
    assert orjson.loads(message(DONE, LINKS, has_all_outputs=False))["data"]["outputs_complete"] is False


@pytest.mark.parametrize("error", [None, JobError("node_execution_error", "\x00" * 50_000)])
def test_a_message_stays_small_and_says_what_it_leaves_out(error: JobError | None) -> None:
    many = tuple(output(number) for number in range(1000))
    large = JobView(
        "i" * 36, Status.FAILED, 1.0, 2.0, ended_at_s=2.0, outputs=many, error=error,
        labels={f"{number:040}": '"' * 256 for number in range(16)},
    )  # fmt: skip
    found = message(large, LINKS)
    data = orjson.loads(found)["data"]
    assert len(found) <= MAX_BODY_BYTES + 6 * MAX_ERROR_TEXT
    assert (data["outputs"], data["outputs_complete"]) == ([], False)
    assert len(data["metadata"]) == 16
