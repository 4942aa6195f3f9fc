from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from policy.call import ClaimedJob, ClientReply, UpstreamReply, Work
from policy.documents import Document, Kind
from policy.rule_context import RuleInput
from policy.rules import jobs as rules
from policy.rules.jobs import ABSENT_JOB, BATCH, EMPTY, MAX_ENTRIES
from policy.salt import SALT
from policy.violation import Reason
from tests.policy.tenants import Jobs, caller_of, drive, is_refused, reply_of, request_of, sent, uuid_of

DONE, DONE_LATER, RUNNING, WAITING, WAITING_LATER, FOREIGN = (uuid_of(number) for number in range(1, 7))
OWN = Jobs(waiting=[WAITING, WAITING_LATER], active=[RUNNING], ended=[DONE, DONE_LATER])
ALICE = caller_of("alice", jobs=OWN)
BROKEN = UpstreamReply(500, None, b"broken", "text/plain")


def item(prompt_id: str, number: float = 1, tenant: str = "alice") -> list[Any]:
    return [number, prompt_id, {}, {"client_id": f"{tenant}.tab"}, []]


def entry(prompt_id: str, tenant: str = "alice") -> dict[str, Any]:
    return {prompt_id: {"prompt": item(prompt_id, tenant=tenant), "outputs": {}, "status": None}}


def ask(**more: Any) -> RuleInput:
    return request_of(ALICE, **more)


def test_the_count_is_ones_own() -> None:
    assert rules.count(ask()).target == "/prompt"
    values: list[Any] = [{"exec_info": {"queue_remaining": 99}}, None, []]
    for value in values:
        assert rules.show_own_count(value, ask()) == {"exec_info": {"queue_remaining": 3}}


class CachedDocument(dict[tuple[Kind, str], Document]):
    """What is kept of a tenant's jobs."""

    def get(self, kind: Kind, prompt_id: str) -> Document | None:  # type: ignore[override]
        return super().get((kind, prompt_id))

    def has_room(self, size: int) -> bool:
        return True


def keeping(*documents: Document | None) -> CachedDocument:
    """Items of the queue."""
    return CachedDocument({(each.kind, each.prompt_id): each for each in documents if each is not None})


def job_of(prompt_id: str, status: str, number: float = 1, tenant: str = "alice") -> dict[str, Any]:
    """As ComfyUI answers `GET /api/jobs/{id}`."""
    workflow = {"prompt": {}, "extra_data": {"client_id": f"{tenant}.tab"}}
    return {"id": prompt_id, "status": status, "priority": number, "workflow": workflow}


def test_the_queue_shows_ones_own_in_the_order_of_running_and_asks_for_nothing() -> None:
    waiting = [rules.keep_item(item(WAITING_LATER, 9), ALICE.names), rules.keep_item(item(WAITING, 8), ALICE.names)]
    context = replace(ALICE, documents=keeping(*waiting, rules.keep_item(item(RUNNING, 7.5), ALICE.names)))
    steps, reply = drive(rules.queue(request_of(context)))
    assert steps == []
    assert reply.body == {
        "queue_running": [[3, RUNNING, {}, {"client_id": "tab"}, []]],
        "queue_pending": [[4, WAITING, {}, {"client_id": "tab"}, []], [5, WAITING_LATER, {}, {"client_id": "tab"}, []]],
    }


def submitted(prompt_id: str = WAITING) -> Document:
    """A job that was just given to ComfyUI."""
    inputs = {"filename_prefix": "tenants/alice/x", "images": ["1", 0], SALT: "alice"}
    body = {"prompt": {"2": {"class_type": "SaveImage", "inputs": inputs}}, "extra_data": {"client_id": "alice.tab"}}
    claimed = ClaimedJob(prompt_id, 8.5, 1234)
    return rules.submitted_item(orjson.dumps(body), b'[["2","filename_prefix","./x"]]', claimed, ["2"], ALICE.names)


def test_a_job_that_was_just_submitted_is_shown_in_its_clients_words_and_kept_so() -> None:
    context = replace(ALICE, jobs=Jobs(waiting=[WAITING]), documents=keeping(submitted()))
    steps, reply = drive(rules.queue(request_of(context)))
    assert steps == []
    node = {"class_type": "SaveImage", "inputs": {"filename_prefix": "./x", "images": ["1", 0]}}
    extra = {"create_time": 1234, "client_id": "tab"}
    assert reply.body == {"queue_running": [], "queue_pending": [[1, WAITING, {"2": node}, extra, ["2"]]]}
    ((update),) = reply.updates
    assert update.prompt_id == WAITING
    assert [(each.kind, each.prompt_id, each.order, each.write) for each in update.documents] == [
        (Kind.ITEM, WAITING, 8.5, None)
    ]


def test_what_was_submitted_is_written_beside_the_event_loop() -> None:
    context = replace(ALICE, jobs=Jobs(waiting=[WAITING]), documents=keeping(submitted()))
    writing = next(rules.queue(request_of(context)))
    assert isinstance(writing, Work)
    assert writing.size == submitted().size


def test_what_is_not_kept_is_asked_for_by_its_id_and_kept() -> None:
    answers = [
        reply_of(job_of(RUNNING, "in_progress")),
        reply_of(job_of(WAITING, "completed")),
        reply_of(job_of(WAITING_LATER, "pending", 5)),
    ]
    steps, reply = drive(rules.queue(ask()), answers)
    assert [call.target for call in steps[0]] == [f"/api/jobs/{each}" for each in (RUNNING, WAITING, WAITING_LATER)]
    assert [shown[1] for shown in reply.body["queue_running"]] == [RUNNING]
    assert [shown[:2] for shown in reply.body["queue_pending"]] == [[4, WAITING_LATER]]
    assert [(update.prompt_id, len(update.documents)) for update in reply.updates] == [(RUNNING, 1), (WAITING_LATER, 1)]


@pytest.mark.parametrize(
    "value",
    [None, [], {}, {"id": RUNNING}, job_of(FOREIGN, "pending"), job_of(RUNNING, "pending", tenant="bob"),
     {"id": RUNNING, "status": "pending", "workflow": 5}],
)  # fmt: skip
def test_an_answer_that_is_not_understood_is_no_item(value: Any) -> None:
    assert rules.read_item(value, RUNNING, ALICE.names) is None


def test_items_with_odd_numbers_come_first() -> None:
    irregular = rules.keep_item(["x", *item(WAITING)[1:]], ALICE.names)
    assert irregular is not None
    assert irregular.order == 0.0
    assert rules.keep_item(item(WAITING)[:4], ALICE.names) is None


def test_beyond_the_bound_a_job_is_listed_without_its_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    large = item(WAITING, 1)
    large[2] = {"1": {"class_type": "A", "inputs": {"text": "x" * 5000}}}
    later = [*large[:1], WAITING_LATER, *large[2:]]
    kept = keeping(rules.keep_item(large, ALICE.names), rules.keep_item(later, ALICE.names))
    context = replace(ALICE, jobs=Jobs(waiting=[WAITING, WAITING_LATER]), documents=kept)
    monkeypatch.setattr(rules, "MAX_ANSWER_BYTES", 6000)
    shown = drive(rules.queue(request_of(context)))[1].body["queue_pending"]
    assert shown[0][2] == large[2]
    assert shown[1] == [2, WAITING_LATER, {}, {}, []]


@pytest.mark.parametrize(
    ("rule", "route", "document", "chosen"),
    [
        (rules.edit_queue, "/queue", {"clear": True}, [WAITING, WAITING_LATER]),
        (rules.edit_queue, "/queue", {"clear": True, "delete": [FOREIGN]}, [WAITING, WAITING_LATER]),
        (rules.edit_queue, "/queue", {"delete": [WAITING_LATER, FOREIGN, "unknown", 5, DONE]}, [WAITING_LATER]),
        (rules.edit_queue, "/queue", {"clear": False}, []),
        (rules.edit_queue, "/queue", {}, []),
        (rules.edit_history, "/history", {"clear": True}, [DONE, DONE_LATER]),
        (rules.edit_history, "/history", {"delete": [DONE, FOREIGN, WAITING]}, [DONE]),
    ],
)
def test_only_ones_own_jobs_are_deleted(rule: Any, route: str, document: Any, chosen: list[str]) -> None:
    asked = [[reply_of({}, 404) for _ in chosen]] if chosen and route == "/queue" else []
    steps, reply = drive(rule(ask(document=document)), reply_of(None), *asked)
    assert steps[0].target == route
    assert sent(steps[0]) == {"delete": chosen}
    assert [call.target for batch in steps[1:] for call in batch] == [f"/api/jobs/{job}" for job in chosen if asked]
    assert reply == EMPTY
    assert {update.prompt_id for update in reply.updates} == set(chosen)
    assert all(update.has_ended is (route == "/queue") for update in reply.updates)


def test_a_job_that_began_to_run_meanwhile_is_not_taken_out() -> None:
    replies = [reply_of({}, 404), reply_of({"status": "in_progress"})]
    reply = drive(rules.edit_queue(ask(document={"clear": True})), reply_of(None), replies)[1]
    assert [update.prompt_id for update in reply.updates] == [WAITING]


@pytest.mark.parametrize("document", [None, [], "x", {"delete": "abc"}, {"delete": {"a": 1}}])
def test_other_bodies_are_refused(document: Any) -> None:
    assert is_refused(rules.edit_queue, ask(document=document), reason=Reason.BODY_MALFORMED)


def test_a_failure_of_comfyui_is_told() -> None:
    told = ClientReply(500, b"broken", "text/plain")
    assert drive(rules.edit_queue(ask(document={"clear": True})), BROKEN)[1] == told
    assert drive(rules.interrupt(ask(document={"prompt_id": RUNNING})), BROKEN)[1] == told
    assert drive(rules.interrupt(ask()), BROKEN)[1] == told
    assert drive(rules.history_of(ask(parameters={"prompt_id": DONE})), BROKEN)[1] == told
    assert drive(rules.history(ask()), [BROKEN, BROKEN])[1] == told


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


def test_an_entry_is_asked_for_by_its_id() -> None:
    steps, reply = drive(rules.history_of(ask(parameters={"prompt_id": DONE_LATER})), reply_of(entry(DONE_LATER)))
    assert [step.target for step in steps] == [f"/history/{DONE_LATER}"]
    assert reply.body[DONE_LATER]["prompt"][:2] == [2, DONE_LATER]


@pytest.mark.parametrize("value", [entry(FOREIGN, "bob"), {}, None, entry(DONE, "bob")])
@pytest.mark.parametrize("prompt_id", [FOREIGN, "unknown", "..", ABSENT_JOB])
def test_a_neighbours_entry_is_asked_for_as_one_that_is_not_there(prompt_id: str, value: Any) -> None:
    steps, reply = drive(rules.history_of(ask(parameters={"prompt_id": prompt_id})), reply_of(value))
    assert [step.target for step in steps] == [f"/history/{ABSENT_JOB}"]
    assert reply == ClientReply(body={})


def test_an_entry_whose_item_is_a_neighbours_stays_hidden() -> None:
    reply = drive(rules.history_of(ask(parameters={"prompt_id": DONE})), reply_of(entry(DONE, "bob")))[1]
    assert reply == ClientReply(body={})


@pytest.mark.parametrize(
    ("query", "chosen"),
    [
        ({}, ["0", "1", "2", "3", "4"]),
        ({"max_items": "2"}, ["3", "4"]),
        ({"max_items": "9"}, ["0", "1", "2", "3", "4"]),
        ({"max_items": "0"}, []),
        ({"max_items": "-1"}, []),
        ({"max_items": "2", "offset": "1"}, ["1", "2"]),
        ({"max_items": "0", "offset": "1"}, ["1"]),
        ({"max_items": "2", "offset": "-1"}, ["3", "4"]),
        ({"offset": "3"}, ["3", "4"]),
        ({"offset": "9"}, []),
        ({"offset": "-5"}, ["0", "1", "2", "3", "4"]),
    ],
)
def test_history_is_paged_as_comfyui_pages_it(query: dict[str, str], chosen: list[str]) -> None:
    context = caller_of("alice", jobs=Jobs(ended=["0", "1", "2", "3", "4"]))
    answers = [[reply_of(entry(prompt_id)) for prompt_id in chosen]] if chosen else []
    steps, reply = drive(rules.history(request_of(context, query=query)), *answers)
    assert [call.target for step in steps for call in step] == [f"/history/{prompt_id}" for prompt_id in chosen]
    assert list(reply.body) == chosen
    assert [shown["prompt"][0] for shown in reply.body.values()] == [int(prompt_id) + 1 for prompt_id in chosen]


@pytest.mark.parametrize("query", [{"max_items": "x"}, {"offset": ""}, {"max_items": "1.5"}])
def test_pages_are_whole_numbers(query: dict[str, str]) -> None:
    assert is_refused(rules.history, ask(query=query), reason=Reason.QUERY_MALFORMED)


def test_a_long_history_is_read_in_batches_and_to_a_bound() -> None:
    ids = [uuid_of(number) for number in range(MAX_ENTRIES + 5)]
    context = caller_of("alice", jobs=Jobs(ended=ids))
    batches = [ids[5:][start : start + BATCH] for start in range(0, MAX_ENTRIES, BATCH)][::-1]
    answers = [[reply_of(entry(prompt_id)) for prompt_id in batch] for batch in batches]
    steps, reply = drive(rules.history(request_of(context)), *answers)
    assert [[call.segments[1] for call in step] for step in steps] == batches
    assert list(reply.body) == ids[5:]


def kept_entries(*ids: str) -> CachedDocument:
    documents = {each: rules.keep_entry(entry(each), each, ALICE.names) for each in ids}
    return CachedDocument(
        {(Kind.ENTRY, each): document for each, document in documents.items() if document is not None}
    )


def test_what_is_kept_is_shown_and_not_asked_for() -> None:
    context = replace(ALICE, documents=kept_entries(DONE_LATER))
    steps, reply = drive(rules.history(request_of(context)), [reply_of(entry(DONE))])
    assert [call.target for step in steps for call in step] == [f"/history/{DONE}"]
    assert [(each, shown["prompt"][0]) for each, shown in reply.body.items()] == [(DONE, 1), (DONE_LATER, 2)]
    assert [(update.prompt_id, len(update.documents)) for update in reply.updates] == [(DONE, 1)]
    steps, reply = drive(rules.history_of(request_of(context, parameters={"prompt_id": DONE_LATER})))
    assert (steps, list(reply.body), reply.updates) == ([], [DONE_LATER], ())


def test_what_is_kept_of_a_job_that_is_not_ones_own_is_not_shown() -> None:
    context = replace(ALICE, jobs=Jobs(), documents=kept_entries(DONE))
    steps, reply = drive(rules.history_of(request_of(context, parameters={"prompt_id": DONE})), reply_of({}))
    assert [step.target for step in steps] == [f"/history/{ABSENT_JOB}"]
    assert reply.body == {}


def test_an_answer_has_so_many_bytes_and_one_entry_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    context = replace(ALICE, documents=kept_entries(DONE, DONE_LATER))
    monkeypatch.setattr(rules, "MAX_ANSWER_BYTES", 1)
    assert list(drive(rules.history(request_of(context)))[1].body) == [DONE_LATER]


def test_entries_that_comfyui_forgot_are_left_out() -> None:
    reply = drive(rules.history(ask()), [reply_of({}), reply_of(entry(DONE_LATER))])[1]
    assert list(reply.body) == [DONE_LATER]
