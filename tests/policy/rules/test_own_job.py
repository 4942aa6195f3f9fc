"""Answers to a node that waits: only to one of one's own that runs."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from policy.call import UpstreamCall
from policy.rule_context import RuleContext
from policy.rules.own_job import OwnJob
from policy.violation import Reason
from tests.policy.tenants import Jobs, caller_of, is_refused, request_of
from tests.policy.test_forms import multipart

BY_JSON = OwnJob(is_form=False, node="node_id", document="", absent=(), cancel={})
BY_FORM = OwnJob(is_form=True, node="id", document="", absent=(), cancel={"id": "-1", "message": "__cancel__"})
WRAPPED = OwnJob(is_form=True, node="", document="response", absent=("masked_image",), cancel={})
RUNNING = caller_of(jobs=Jobs(at={"7", "12:3"}))
IDLE = caller_of(jobs=Jobs(active=["some job"]))


def send(rule: OwnJob, body: Any, context: RuleContext = RUNNING) -> UpstreamCall:
    is_bytes = isinstance(body, bytes)
    return rule(
        request_of(
            context,
            method="POST",
            segments=("pack", "message"),
            raw=body if is_bytes else b"",
            document=None if is_bytes else body,
        )
    )


def test_json_goes_to_the_node_that_runs() -> None:
    call = send(BY_JSON, {"node_id": "7", "selected": [0, 2], "action": "select"})
    assert (call.target, call.content_type) == ("/pack/message", "application/json")
    assert json.loads(call.body or b"") == {"node_id": "7", "selected": [0, 2], "action": "select"}  # type: ignore[arg-type]
    assert send(BY_JSON, {"node_id": 7}).target
    assert send(BY_JSON, {"node_id": "12:3"}).target


@pytest.mark.parametrize("body", [{"node_id": "8"}, {"node_id": "-1"}, {"node_id": None}, {"node_id": ["7"]}, {}])
def test_no_other_node_is_answered(body: Any) -> None:
    assert is_refused(send, BY_JSON, body, reason=Reason.NOT_FOUND)


@pytest.mark.parametrize("body", [[], "7", None, 7])
def test_what_is_no_object_is_refused(body: Any) -> None:
    assert is_refused(send, BY_JSON, body, reason=Reason.BODY_MALFORMED)


def test_nothing_is_answered_while_nothing_runs() -> None:
    assert is_refused(send, BY_JSON, {"node_id": "7"}, IDLE, reason=Reason.NOT_FOUND)
    assert is_refused(send, BY_FORM, b"id=7&message=1", IDLE, reason=Reason.NOT_FOUND)
    assert is_refused(send, BY_FORM, b"id=-1&message=__cancel__", IDLE, reason=Reason.NOT_FOUND)
    assert is_refused(send, WRAPPED, multipart(("response", "{}")), IDLE, reason=Reason.NOT_FOUND)


def test_a_form_is_written_anew() -> None:
    for body in (b"id=7&message=1%2C2", multipart(("message", "1,2"), ("id", "7"))):
        call = send(BY_FORM, body)
        assert call.content_type == "application/x-www-form-urlencoded"
        assert isinstance(call.body, bytes)
        assert parse_qs(call.body.decode()) == {"id": ["7"], "message": ["1,2"]}


def test_a_wait_is_ended_by_the_one_body_that_means_it() -> None:
    assert send(BY_FORM, b"id=-1&message=__cancel__").target
    for body in (b"id=-1&message=__start__", b"id=-1&message=1", b"id=-1&message=__cancel__&more=1"):
        assert is_refused(send, BY_FORM, body, reason=Reason.NOT_FOUND)


def test_a_document_in_a_form_is_read_and_written_anew() -> None:
    call = send(WRAPPED, multipart(("response", '{"graph_id": "g", "selection": [0]}'), ("more", "1")))
    assert isinstance(call.body, bytes)
    form = parse_qs(call.body.decode())
    assert json.loads(form.pop("response")[0]) == {"graph_id": "g", "selection": [0]}
    assert form == {"more": ["1"]}


@pytest.mark.parametrize(
    "body", ['{"masked_image": "tenants/bob/a.png"}', '{"masked_image": 1}', "[]", "", "{", '{"a":1,"a":2}']
)
def test_a_document_that_is_not_taken_is_refused(body: str) -> None:
    assert is_refused(send, WRAPPED, multipart(("response", body)), reason=Reason.BODY_MALFORMED)
    assert is_refused(send, WRAPPED, multipart(("other", "1")), reason=Reason.BODY_MALFORMED)
