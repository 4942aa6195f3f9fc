"""Queue, history, interrupt: one's own jobs, from what is on disk of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from policy.call import CancelWaiting, ClientReply, ForgetJobs, JobUpdate, UpstreamReply, Work
from policy.documents import Document, Kind
from policy.rule_context import RuleInput
from policy.rules import jobs as rules
from policy.rules.jobs import ABSENT_JOB, BATCH, EMPTY
from policy.salt import SALT
from policy.violation import Reason
from tests.policy.disk import ALICES, Disk, Kept, items, reading
from tests.policy.tenants import Jobs, caller_of, drive, is_refused, reply_of, request_of, sent, uuid_of

DONE, DONE_LATER, RUNNING, WAITING, WAITING_LATER, FOREIGN = (uuid_of(number) for number in range(1, 7))
OWN = Jobs(waiting=[WAITING, WAITING_LATER], active=[RUNNING], ended=[DONE, DONE_LATER])
ALICE = caller_of("alice", jobs=OWN)
BROKEN = UpstreamReply(500, None, b"broken", "text/plain")


def ask(**more: Any) -> RuleInput:
    return request_of(ALICE, **more)


def test_the_count_is_ones_own() -> None:
    assert drive(rules.count(ask())) == ([], ClientReply(body={"exec_info": {"queue_remaining": 3}}))


def test_the_queue_shows_ones_own_in_the_order_of_running_and_asks_for_nothing() -> None:
    context = replace(ALICE, documents=Kept(items(WAITING_LATER, WAITING, RUNNING)))
    steps, reply = drive(rules.queue(request_of(context)))
    assert steps == []
    assert reply.body == {
        "queue_running": [[3, RUNNING, {}, {"client_id": "tab"}, []]],
        "queue_pending": [[4, WAITING, {}, {"client_id": "tab"}, []], [5, WAITING_LATER, {}, {"client_id": "tab"}, []]],
    }
    assert reply.updates == ()


def submitted(prompt_id: str = WAITING) -> Document:
    """A job that was just given in, and is not written yet as its client sees it."""
    inputs = {"filename_prefix": "tenants/alice/x", "images": ["1", 0], SALT: "alice"}
    body = {"prompt": {"2": {"class_type": "SaveImage", "inputs": inputs}}, "extra_data": {"client_id": "alice.tab"}}
    originals = b'[["2","filename_prefix","./x"]]'
    return rules.submitted_item(orjson.dumps(body), originals, prompt_id, 1234, ["2"], ALICES)


@pytest.mark.parametrize("is_held", [True, False])
def test_a_job_is_shown_in_its_clients_words_and_kept_so(is_held: bool) -> None:
    """Whether it was just submitted, or comes from the disk."""
    documents = {(Kind.ITEM, WAITING): submitted()}
    context = replace(ALICE, jobs=Jobs(waiting=[WAITING]), documents=Kept(documents if is_held else {}))
    disk = Disk(documents)
    steps, reply = drive(reading(rules.queue(request_of(context)), disk))
    assert (steps, disk.asked) == ([], [] if is_held else [WAITING])
    node = {"class_type": "SaveImage", "inputs": {"filename_prefix": "./x", "images": ["1", 0]}}
    extra = {"create_time": 1234, "client_id": "tab"}
    assert reply.body == {"queue_running": [], "queue_pending": [[1, WAITING, {"2": node}, extra, ["2"]]]}
    ((update),) = reply.updates
    assert update.prompt_id == WAITING
    assert [(each.kind, each.prompt_id, each.write) for each in update.documents] == [(Kind.ITEM, WAITING, None)]


@pytest.mark.parametrize("is_held", [True, False])
def test_what_was_submitted_is_written_beside_the_event_loop(is_held: bool) -> None:
    documents = {(Kind.ITEM, WAITING): submitted()}
    context = replace(ALICE, jobs=Jobs(waiting=[WAITING]), documents=Kept(documents if is_held else {}))
    writing = next(reading(rules.queue(request_of(context)), Disk(documents)))
    assert isinstance(writing, Work)
    assert writing.size == submitted().size


def test_what_is_not_held_is_read_and_kept() -> None:
    context = replace(ALICE, documents=Kept(items(WAITING)))
    disk = Disk(items(RUNNING, WAITING, WAITING_LATER))
    steps, reply = drive(reading(rules.queue(request_of(context)), disk))
    assert steps == []
    assert [(read.kind, read.prompt_ids) for read in disk.reads] == [(Kind.ITEM, (RUNNING, WAITING_LATER))]
    assert [shown[:2] for shown in reply.body["queue_running"]] == [[3, RUNNING]]
    assert [shown[:2] for shown in reply.body["queue_pending"]] == [[4, WAITING], [5, WAITING_LATER]]
    assert [(update.prompt_id, len(update.documents)) for update in reply.updates] == [(RUNNING, 1), (WAITING_LATER, 1)]


def test_a_job_of_which_nothing_is_on_disk_is_listed_by_its_name() -> None:
    reply = drive(reading(rules.queue(ask()), Disk(items(WAITING_LATER))))[1]
    assert reply.body["queue_running"] == [[3, RUNNING, {}, {}, []]]
    assert [shown[:2] for shown in reply.body["queue_pending"]] == [[4, WAITING], [5, WAITING_LATER]]


@pytest.mark.parametrize("at_a_time", [1, 7, 1000])
def test_a_long_queue_is_read_in_parts_and_shown_whole(at_a_time: int) -> None:
    ids = [uuid_of(number) for number in range(rules.READ_BATCH + 10)]
    disk = Disk(items(*ids), at_a_time)
    context = caller_of("alice", jobs=Jobs(waiting=ids))
    reply = drive(reading(rules.queue(request_of(context)), disk))[1]
    assert [shown[1] for shown in reply.body["queue_pending"]] == ids
    assert all(shown[3] == {"client_id": "tab"} for shown in reply.body["queue_pending"])
    assert max(len(wish.prompt_ids) for wish in disk.reads) == rules.READ_BATCH


@pytest.mark.parametrize("is_held", [True, False])
def test_beyond_the_bound_a_job_is_listed_without_its_workflow(is_held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [uuid_of(number) for number in range(5)]
    large = items(*ids, text="x" * 5000)
    monkeypatch.setattr(rules, "MAX_ANSWER_BYTES", 6000)
    disk = Disk(large, at_a_time=1)
    context = replace(ALICE, jobs=Jobs(waiting=ids), documents=Kept(large if is_held else {}))
    shown = drive(reading(rules.queue(request_of(context)), disk))[1].body["queue_pending"]
    assert shown[0][2] == {"1": {"class_type": "A", "inputs": {"text": "x" * 5000}}}
    assert shown[1:] == [[number, uuid_of(number - 1), {}, {}, []] for number in range(2, 6)]
    assert len(disk.reads) == (0 if is_held else 2), "what cannot be shown is not read"


@pytest.mark.parametrize(
    ("rule", "document", "chosen"),
    [
        (rules.edit_queue, {"clear": True}, [WAITING, WAITING_LATER]),
        (rules.edit_queue, {"clear": True, "delete": [FOREIGN]}, [WAITING, WAITING_LATER]),
        (rules.edit_queue, {"delete": [WAITING_LATER, FOREIGN, "unknown", 5, DONE]}, [WAITING_LATER]),
        (rules.edit_queue, {"delete": [WAITING, WAITING]}, [WAITING]),
        (rules.edit_queue, {"delete": [RUNNING]}, []),
        (rules.edit_queue, {"clear": False}, []),
        (rules.edit_queue, {}, []),
        (rules.edit_history, {"clear": True}, [DONE, DONE_LATER]),
        (rules.edit_history, {"delete": [DONE, FOREIGN, WAITING]}, [DONE]),
        (rules.edit_history, {"delete": [FOREIGN]}, []),
    ],
)
def test_only_ones_own_jobs_are_deleted(rule: Any, document: Any, chosen: list[str]) -> None:
    is_queue = rule is rules.edit_queue
    answers = [tuple(chosen) if is_queue else None] if chosen else []
    steps, reply = drive(rule(ask(document=document)), *answers)
    ids = tuple(chosen)
    assert steps == ([CancelWaiting(ids) if is_queue else ForgetJobs(ids)] if chosen else []), "ComfyUI is not asked"
    assert reply == EMPTY
    assert reply.updates == tuple(JobUpdate(prompt_id, is_deleted=True) for prompt_id in chosen)


def test_jobs_that_comfyui_has_are_taken_out_of_its_queue() -> None:
    answers = [(WAITING_LATER,), reply_of(None), [reply_of({}, 404)]]
    steps, reply = drive(rules.edit_queue(ask(document={"clear": True})), *answers)
    assert steps[0] == CancelWaiting((WAITING, WAITING_LATER))
    assert (steps[1].method, steps[1].target, sent(steps[1])) == ("POST", "/queue", {"delete": [WAITING]})
    assert [call.target for call in steps[2]] == [f"/api/jobs/{WAITING}"]
    assert reply == EMPTY
    assert reply.updates == (JobUpdate(WAITING_LATER, is_deleted=True), JobUpdate(WAITING, has_ended=True))


def test_a_job_that_began_to_run_meanwhile_is_not_taken_out() -> None:
    replies = [reply_of({}, 404), reply_of({"status": "in_progress"})]
    reply = drive(rules.edit_queue(ask(document={"clear": True})), (), reply_of(None), replies)[1]
    assert reply.updates == (JobUpdate(WAITING, has_ended=True),)


def test_whether_jobs_are_gone_is_asked_in_batches() -> None:
    ids = [uuid_of(number) for number in range(2 * BATCH + 1)]
    request = request_of(caller_of("alice", jobs=Jobs(waiting=ids)), document={"clear": True})
    gone = [[reply_of({}, 404)] * size for size in (BATCH, BATCH, 1)]
    reply = drive(rules.edit_queue(request), (), reply_of(None), *gone)[1]
    assert [update.prompt_id for update in reply.updates] == ids


@pytest.mark.parametrize("document", [None, [], "x", {"delete": "abc"}, {"delete": {"a": 1}}])
def test_other_bodies_are_refused(document: Any) -> None:
    for rule in (rules.edit_queue, rules.edit_history):
        assert is_refused(rule, ask(document=document), reason=Reason.BODY_MALFORMED)


def test_a_failure_of_comfyui_is_told() -> None:
    told = ClientReply(500, b"broken", "text/plain")
    reply = drive(rules.edit_queue(ask(document={"clear": True})), (WAITING,), BROKEN)[1]
    assert reply == told
    assert reply.updates == (JobUpdate(WAITING, is_deleted=True),), "what was canceled is, all the same"
    assert drive(rules.interrupt(ask(document={"prompt_id": RUNNING})), BROKEN)[1] == told
    assert drive(rules.interrupt(ask()), BROKEN)[1] == told


@pytest.mark.parametrize(("prompt_id", "asked"), [(RUNNING, RUNNING), (FOREIGN, ABSENT_JOB), ("unknown", ABSENT_JOB)])
def test_an_interrupt_names_a_job_of_ones_own_or_none(prompt_id: str, asked: str) -> None:
    steps, reply = drive(rules.interrupt(ask(document={"prompt_id": prompt_id})), reply_of(None))
    assert [(step.target, sent(step)) for step in steps] == [("/interrupt", {"prompt_id": asked})]
    assert reply == EMPTY


@pytest.mark.parametrize("document", [None, {}, {"prompt_id": None}, {"prompt_id": ""}, [], "x"])
def test_an_interrupt_without_an_id_means_ones_own_running_job(document: Any) -> None:
    steps, reply = drive(rules.interrupt(ask(document=document)), reply_of(None))
    assert [(step.target, sent(step)) for step in steps] == [("/interrupt", {"prompt_id": RUNNING})]
    assert reply == EMPTY


@pytest.mark.parametrize(
    ("rows", "stopped"),
    [([{"id": FOREIGN}], []), ([{"id": WAITING}], [WAITING]), ([5, {"id": 5}], []), (None, [WAITING])],
)
def test_an_interrupt_stops_nothing_while_a_neighbours_job_runs(rows: Any, stopped: list[str]) -> None:
    """While one's own wait, the first may have just begun. Before 0.33 ComfyUI lists nothing: an interrupt of what does not run is passed over."""
    context = caller_of("alice", jobs=Jobs(waiting=[WAITING, WAITING_LATER]))
    answer = reply_of({"jobs": rows}) if rows is not None else UpstreamReply(404, None, b"404", "text/plain")
    steps, reply = drive(rules.interrupt(request_of(context)), answer, *[reply_of(None)] * len(stopped))
    assert steps[0].target == "/api/jobs?status=in_progress"
    assert [sent(step)["prompt_id"] for step in steps[1:]] == stopped
    assert reply == EMPTY


def test_an_interrupt_without_jobs_asks_for_nothing() -> None:
    assert drive(rules.interrupt(request_of(caller_of("alice")))) == ([], EMPTY)


def test_an_id_of_another_type_is_refused() -> None:
    assert is_refused(rules.interrupt, ask(document={"prompt_id": [RUNNING]}), reason=Reason.BODY_MALFORMED)
