"""Answers to a node that waits: only to one of one's own that runs."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from policy.call import AnswerNode, ClientReply, UpstreamCall, Work
from policy.documents import Document, Kind, NoDocuments, keep
from policy.rule_context import RuleContext, RuleInput
from policy.rules.own_job import OwnJob
from policy.violation import Reason
from tests.policy.disk import Disk, reading
from tests.policy.tenants import Jobs, caller_of, drive, is_refused, refusal, reply_of, request_of, uuid_of
from tests.policy.test_forms import multipart

OWN = uuid_of(1)
WAITS = frozenset({"Chooser"})
GRAPH = {
    "7": {"class_type": "Chooser", "inputs": {}},
    "12:3": {"class_type": "Chooser", "inputs": {}},
    "9": {"class_type": "KSampler", "inputs": {}},
}
BY_JSON = OwnJob(False, WAITS, "node_id", "", (), {}, {}, "pack")
CANCEL, START = ({"id": "-1", "message": word} for word in ("__cancel__", "__start__"))
BY_FORM = OwnJob(True, WAITS, "id", "", (), CANCEL, START, "pack")
WRAPPED = OwnJob(True, WAITS, "", "response", ("masked_image",), {}, {}, "pack")


def item_of(graph: Any) -> Document:
    return keep(Kind.ITEM, [0, OWN, graph, {}, []], OWN)


class Kept:
    """What is kept of a job that was submitted through this gate."""

    def get(self, kind: Kind, prompt_id: str) -> Document | None:
        return item_of(GRAPH) if (kind, prompt_id) == (Kind.ITEM, OWN) else None

    def has_room(self, size: int) -> bool:
        return True


def at(*nodes: str, **more: Any) -> RuleContext:
    return caller_of(jobs=Jobs(active=[OWN], at={OWN: set(nodes)}), **{"documents": Kept(), **more})


RUNNING = at("7")
IDLE = caller_of(jobs=Jobs(active=["some job"]))


def asked(body: Any, context: RuleContext) -> RuleInput:
    is_bytes = isinstance(body, bytes)
    return request_of(
        context,
        method="POST",
        segments=("pack", "message"),
        raw=body if is_bytes else b"",
        document=None if is_bytes else body,
    )


def send(rule: OwnJob, body: Any, context: RuleContext = RUNNING) -> UpstreamCall:
    steps, _ = drive(rule(asked(body, context)), reply_of({}))
    (call,) = steps
    assert isinstance(call, UpstreamCall)
    return call


def refuses(rule: OwnJob, body: Any, reason: Reason, context: RuleContext = RUNNING) -> bool:
    return is_refused(rule, asked(body, context), reason=reason)


def test_json_goes_to_the_node_that_runs() -> None:
    call = send(BY_JSON, {"node_id": "7", "selected": [0, 2], "action": "select"})
    assert (call.target, call.content_type) == ("/pack/message", "application/json")
    assert isinstance(call.body, bytes)
    assert json.loads(call.body) == {"node_id": "7", "selected": [0, 2], "action": "select"}
    assert send(BY_JSON, {"node_id": 7}).target
    assert send(BY_JSON, {"node_id": "12:3"}, at("12:3", "12")).target


def test_the_answer_is_cleaned() -> None:
    said = {"error": "no '/srv/comfy/x y.txt'", "next": "/pack/a/b", "of": ["tenants/bob/x.png"]}
    _, reply = drive(BY_JSON(asked({"node_id": "7"}, RUNNING)), reply_of(said, 500))
    assert isinstance(reply, ClientReply)
    assert isinstance(reply.body, bytes)
    assert (reply.status, json.loads(reply.body)) == (500, {"error": "no 'x y.txt'", "next": "/pack/a/b", "of": []})


@pytest.mark.parametrize("body", [{"node_id": "8"}, {"node_id": "-1"}, {"node_id": None}, {"node_id": ["7"]}, {}])
def test_no_other_node_is_answered(body: Any) -> None:
    assert refuses(BY_JSON, body, Reason.NOT_FOUND)


def test_a_node_that_does_not_wait_is_not_answered() -> None:
    """The pack would keep the answer for whichever node of this id asks next: a neighbour's."""
    assert refuses(BY_JSON, {"node_id": "9"}, Reason.NOT_FOUND, at("9"))
    assert refuses(BY_FORM, b"id=9&message=1", Reason.NOT_FOUND, at("9"))
    assert refuses(BY_FORM, b"id=-1&message=__cancel__", Reason.NOT_FOUND, at("9"))
    assert refuses(WRAPPED, multipart(("response", "{}")), Reason.NOT_FOUND, at("9"))
    assert refuses(BY_JSON, {"node_id": "7.0.0.1"}, Reason.NOT_FOUND, at("7.0.0.1")), (
        "of the workflow nothing is known of it"
    )


def told_by(rule: OwnJob, body: Any) -> Any:
    """What follows the reading of the workflow."""
    steps = rule(asked(body, at("9", "7")))
    work = next(steps)
    assert isinstance(work, Work)
    return steps.send(work.function())


def test_that_a_node_is_answered_is_told_before_it_is() -> None:
    for rule, body in (
        (BY_JSON, {"node_id": "7"}),
        (BY_FORM, b"id=7&message=1"),
        (BY_FORM, b"id=-1&message=__cancel__"),
    ):
        assert told_by(rule, body) == AnswerNode(OWN, "7")
    assert isinstance(told_by(WRAPPED, multipart(("response", "{}"))), UpstreamCall), "several things are said to it"


def test_a_node_that_has_been_left_meanwhile_is_not_answered() -> None:
    """Reading a large workflow takes its turn, and what comes late waits for a neighbour's node."""
    running = {OWN: {"7"}}
    context = caller_of(jobs=Jobs(active=[OWN], at=running), documents=Kept())
    for rule, body in ((BY_JSON, {"node_id": "7"}), (BY_FORM, b"id=-1&message=__cancel__")):
        for later in ({OWN: {"9"}}, {}):
            running |= {OWN: {"7"}}
            steps = rule(asked(body, context))
            work = next(steps)
            assert isinstance(work, Work)
            running.clear()
            running |= later
            assert refusal(steps.send, work.function()).reason is Reason.NOT_FOUND


@pytest.mark.parametrize("body", [[], "7", None, 7])
def test_what_is_no_object_is_refused(body: Any) -> None:
    assert refuses(BY_JSON, body, Reason.BODY_MALFORMED)


def test_nothing_is_answered_while_nothing_runs() -> None:
    assert refuses(BY_JSON, {"node_id": "7"}, Reason.NOT_FOUND, IDLE)
    assert refuses(BY_FORM, b"id=7&message=1", Reason.NOT_FOUND, IDLE)
    assert refuses(BY_FORM, b"id=-1&message=__cancel__", Reason.NOT_FOUND, IDLE)
    assert refuses(WRAPPED, multipart(("response", "{}")), Reason.NOT_FOUND, IDLE)


def test_a_job_that_is_not_held_is_read() -> None:
    """One that was submitted before the gate was started."""
    context = at("7", documents=NoDocuments())
    disk = Disk({(Kind.ITEM, OWN): item_of(GRAPH)})
    steps, reply = drive(reading(BY_JSON(asked({"node_id": "7"}, context)), disk), reply_of({"code": 1}))
    assert [step.target for step in steps] == ["/pack/message"]
    assert disk.asked == [OWN]
    assert reply.status == 200


@pytest.mark.parametrize("graph", [{}, {"7": 3}, {"7": {"inputs": {}}}, None])
def test_a_job_of_which_nothing_is_known_waits_for_nothing(graph: Any) -> None:
    context = at("7", documents=NoDocuments())
    for documents in ({}, {(Kind.ITEM, OWN): item_of(graph)}):
        rule = reading(BY_JSON(asked({"node_id": "7"}, context)), Disk(documents))
        assert is_refused(drive, rule, reason=Reason.NOT_FOUND)


def test_a_form_is_written_anew() -> None:
    for body in (b"id=7&message=1%2C2", multipart(("message", "1,2"), ("id", "7"))):
        call = send(BY_FORM, body)
        assert call.content_type == "application/x-www-form-urlencoded"
        assert isinstance(call.body, bytes)
        assert parse_qs(call.body.decode()) == {"id": ["7"], "message": ["1,2"]}


def test_a_wait_is_ended_by_the_one_body_that_means_it() -> None:
    assert send(BY_FORM, b"id=-1&message=__cancel__").target
    for body in (b"id=-1&message=1", b"id=-1&message=__cancel__&more=1"):
        assert refuses(BY_FORM, body, Reason.NOT_FOUND)


@pytest.mark.parametrize("context", [RUNNING, IDLE])
def test_what_would_clear_all_waits_is_answered_and_goes_no_further(context: RuleContext) -> None:
    """A page says so whenever it queues a workflow."""
    steps, reply = drive(BY_FORM(asked(b"id=-1&message=__start__", context)))
    assert (steps, reply) == ([], ClientReply(body={}))


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
    assert refuses(WRAPPED, multipart(("response", body)), Reason.BODY_MALFORMED)
    assert refuses(WRAPPED, multipart(("other", "1")), Reason.BODY_MALFORMED)
