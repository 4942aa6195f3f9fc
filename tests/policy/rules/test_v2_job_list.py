"""GET /api/v2/jobs: what a query asks for, and where a page goes on."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.call import ClientReply
from policy.rule_context import RuleInput
from policy.rules import v2_jobs as rules
from policy.v2.effects import After, JobPage, ListJobs
from policy.v2.jobs import Status, row_to_client
from policy.violation import Reason, Violation
from tests.policy.tenants import caller_of, drive, is_refused, refusal, request_of, uuid_of
from tests.policy.v2.examples import JOB, LINKS, view

OTHER = uuid_of(2)
LETTERS = "00000000-0000-4000-8000-abcdefabcdef"
ALICE = caller_of("alice", links=LINKS)


def listing(**query: str) -> RuleInput:
    return request_of(ALICE, query=query)


def test_the_list_is_asked_for_as_the_query_says() -> None:
    after = After(1000.25, JOB)
    query = {
        "status": "queued, running,canceling",
        "metadata[a]": "x",
        "metadata[b]": "y",
        "limit": "7",
        "cursor": rules.write_cursor(after),
    }
    steps, _ = drive(rules.list_jobs(listing(**query)), JobPage(()))
    wanted = frozenset({Status.QUEUED, Status.RUNNING, Status.CANCELING})
    assert steps == [ListJobs(wanted, {"a": "x", "b": "y"}, 7, after)]


def test_a_list_without_a_query_is_the_newest_fifty() -> None:
    steps, reply = drive(rules.list_jobs(listing()), JobPage((view(), view(Status.FAILED))))
    assert steps == [ListJobs(frozenset(), {}, 50)]
    rows = [row_to_client(view()), row_to_client(view(Status.FAILED))]
    assert reply == ClientReply(body={"jobs": rows, "next_cursor": None})


def test_a_page_says_where_it_goes_on() -> None:
    _, reply = drive(rules.list_jobs(listing()), JobPage((view(),), After(1000.0, JOB)))
    steps, _ = drive(rules.list_jobs(listing(cursor=reply.body["next_cursor"])), JobPage(()))
    assert steps[0].after == After(1000.0, JOB)


@given(st.floats(allow_nan=False, allow_infinity=False), st.uuids())
def test_a_cursor_is_read_as_it_was_written(at_s: float, job: Any) -> None:
    cursor = rules.write_cursor(After(at_s, str(job)))
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    steps, _ = drive(rules.list_jobs(listing(cursor=cursor)), JobPage(()))
    assert steps[0].after == After(at_s, str(job))


def is_read(cursor: str) -> bool:
    """Read as some place of the list, or refused in words."""
    try:
        step = next(rules.list_jobs(listing(cursor=cursor)))
    except Violation as violation:
        return (violation.reason, violation.details) == (Reason.CURSOR_MALFORMED, "cursor")
    assert isinstance(step, ListJobs)
    return step.after is None or (math.isfinite(step.after.created_at_s) and str(step.after.prompt_id) != "")


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_other_text_is_a_cursor_or_refused(text: str) -> None:
    assert is_read(text)


@pytest.mark.parametrize(
    "document",
    [
        *(None, [], {}, [1.0], [1.0, JOB, 1], ["1", JOB], [None, JOB], [1.0, 5], [1.0, "x"]),
        *([1.0, LETTERS.upper()], [1.0, ""], {"0": 1.0, "1": JOB}, [[1.0], JOB], [1.0, None], [10**400, JOB]),
    ],
)
def test_what_was_never_written_is_no_cursor(document: Any) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
    assert is_refused(rules.list_jobs, listing(cursor=cursor), reason=Reason.CURSOR_MALFORMED)


@pytest.mark.parametrize("cursor", ["x", "\u20ac", "====", "W10", " ", "null", "\x00"])
def test_a_text_of_other_origin_is_no_cursor(cursor: str) -> None:
    assert is_refused(rules.list_jobs, listing(cursor=cursor), reason=Reason.CURSOR_MALFORMED)


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.0", "", " 5", "+5", "\u0665", "1e1", "00001", "9" * 5000, "x"])
def test_a_limit_is_from_one_to_a_hundred(limit: str) -> None:
    assert is_refused(rules.list_jobs, listing(limit=limit), reason=Reason.QUERY_MALFORMED)


@pytest.mark.parametrize(("limit", "number"), [("1", 1), ("100", 100), ("007", 7)])
def test_such_a_limit_is_taken(limit: str, number: int) -> None:
    assert drive(rules.list_jobs(listing(limit=limit)), JobPage(()))[0][0].limit == number


@pytest.mark.parametrize("text", ["done", "Queued", "queued,done", "queued;running", "expired", "cancelled"])
def test_a_status_is_a_word_of_the_contract(text: str) -> None:
    violation = refusal(rules.list_jobs, listing(status=text))
    assert violation.reason is Reason.QUERY_MALFORMED
    assert "canceling" in violation.message


@pytest.mark.parametrize("text", ["", ",", " , "])
def test_no_status_means_all(text: str) -> None:
    assert drive(rules.list_jobs(listing(status=text)), JobPage(()))[0][0].statuses == frozenset()


def test_bad_filters_are_refused() -> None:
    assert is_refused(rules.list_jobs, listing(**{"metadata[]": "x"}), reason=Reason.METADATA_FILTER_INVALID)
