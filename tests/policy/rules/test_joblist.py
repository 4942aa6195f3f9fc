"""`GET /api/jobs` and what is done with one job: from what is on disk, filtered, sorted and paged as ComfyUI does it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policy.call import CancelWaiting, ClientReply, JobUpdate, UpstreamReply
from policy.documents import Document, Kind
from policy.rule_context import RuleContext, RuleInput
from policy.rules import joblist as rules
from policy.rules import jobs as job_rules
from policy.rules.jobs import MAX_ENTRIES, READ_BATCH
from tests.policy.disk import Disk, Kept, items, kept_entry, kept_item, reading
from tests.policy.disk import rows as rows_of
from tests.policy.tenants import Jobs, caller_of, drive, reply_of, request_of, sent, uuid_of

DONE, FAILED, LAST, RUNNING, WAITING, FOREIGN = (uuid_of(number) for number in range(1, 7))
ALICE = caller_of("alice", jobs=Jobs(waiting=[WAITING], active=[RUNNING], ended=[DONE, FAILED, LAST]))
FILE = {"filename": "x.png", "subfolder": "tenants/alice/a", "type": "output"}
WORKFLOW: dict[str, Any] = {"create_time": 1, "extra_pnginfo": {"workflow": {"id": "w"}}}
ENDED = {"status": "completed,failed,cancelled"}
NOT_FOUND = ClientReply(404, {"error": "Job not found"})


def status(start: int, end: int, error: dict[str, Any] | None = None) -> dict[str, Any]:
    last = (
        ["execution_success", {"timestamp": end}] if error is None else ["execution_error", {"timestamp": end} | error]
    )
    messages = [["execution_start", {"timestamp": start}], last]
    return {"status_str": "error" if error else "success", "completed": error is None, "messages": messages}


ENTRIES = {
    DONE: kept_entry(DONE, "text", status=status(10, 15), outputs={"9": {"images": [FILE]}}, **WORKFLOW),
    FAILED: kept_entry(FAILED, status=status(10, 12, {"exception_message": "at /a/b/c"}), create_time=1),
    LAST: kept_entry(LAST, status=status(10, 30), outputs={"9": {"images": [FILE | {"subfolder": ""}]}}),
}
ON_DISK: dict[tuple[Kind, str], Document] = {
    **{(Kind.ENTRY, each): document for each, document in ENTRIES.items()},
    **{(Kind.ROW, each): rules.keep_row(document, each) for each, document in ENTRIES.items()},
    (Kind.ITEM, RUNNING): kept_item(RUNNING, create_time=1),
    (Kind.ITEM, WAITING): kept_item(WAITING, **WORKFLOW),
}


def ask(context: RuleContext = ALICE, **more: Any) -> RuleInput:
    return request_of(context, **more)


def list_with(
    query: dict[str, str], *asked: str, context: RuleContext = ALICE, disk: Disk | None = None
) -> dict[str, Any]:
    """The answer to a listing that reads these jobs."""
    disk = disk or Disk(ON_DISK)
    steps, reply = drive(reading(rules.list_jobs(ask(context, query=query)), disk))
    assert steps == [], "ComfyUI is not asked"
    assert sorted(disk.asked) == sorted(asked)
    assert reply.status == 200
    body: dict[str, Any] = reply.body
    return body


def ids_of(body: dict[str, Any]) -> list[str]:
    return [row["id"] for row in body["jobs"]]


def test_all_of_ones_own_jobs_are_listed_newest_first() -> None:
    body = list_with({}, WAITING, RUNNING, LAST, FAILED, DONE)
    assert ids_of(body) == [WAITING, RUNNING, LAST, FAILED, DONE]
    assert body["pagination"] == {"offset": 0, "limit": None, "total": 5, "has_more": False}
    assert [row["priority"] for row in body["jobs"]] == [5, 4, 3, 2, 1]
    assert [row["status"] for row in body["jobs"]] == ["pending", "in_progress", "completed", "failed", "completed"]


def test_rows_are_in_the_tenants_names() -> None:
    rows = {row["id"]: row for row in list_with({}, WAITING, RUNNING, LAST, FAILED, DONE)["jobs"]}
    assert rows[DONE]["preview_output"] == FILE | {"subfolder": "a", "nodeId": "9", "mediaType": "images"}
    assert "outputs" not in rows[DONE]
    assert "preview_output" not in rows[LAST], "a file that is not the tenant's"
    assert rows[FAILED]["execution_error"] == {"exception_message": "at c", "timestamp": 12}
    assert rows[WAITING] == {
        "priority": 5,
        "id": WAITING,
        "status": "pending",
        "create_time": 1,
        "outputs_count": 0,
        "previewable_outputs_count": 0,
        "workflow_id": "w",
    }


@pytest.mark.parametrize(
    ("query", "asked", "total", "has_more"),
    [
        (ENDED | {"limit": "2"}, [LAST, FAILED], 3, True),
        (ENDED | {"limit": "2", "offset": "2"}, [DONE], 3, False),
        ({"status": "in_progress,pending", "limit": "200"}, [WAITING, RUNNING], 2, False),
        ({"status": " PENDING , in_progress,"}, [WAITING, RUNNING], 2, False),
        ({"sort_order": "asc", "limit": "1"}, [DONE], 5, True),
        ({"sort_order": "ASC", "sort_by": "Created_At", "limit": "1", "offset": "-3"}, [DONE], 5, True),
        ({"offset": "9"}, [], 5, False),
        ({"limit": "1", "offset": "4", "status": ""}, [DONE], 5, False),
    ],
)
def test_a_page_reads_only_its_own_jobs(query: dict[str, str], asked: list[str], total: int, has_more: bool) -> None:
    body = list_with(query, *asked)
    assert ids_of(body) == asked
    assert (body["pagination"]["total"], body["pagination"]["has_more"]) == (total, has_more)


@pytest.mark.parametrize(
    ("query", "asked", "listed", "total"),
    [
        ({"status": "completed"}, [LAST, FAILED, DONE], [LAST, DONE], 2),
        ({"status": "completed", "limit": "1", "offset": "1"}, [LAST, FAILED, DONE], [DONE], 2),
        ({"status": "pending"}, [WAITING, RUNNING], [WAITING], 1),
        ({"workflow_id": "w"}, [WAITING, RUNNING, LAST, FAILED, DONE], [WAITING, DONE], 2),
        ({"workflow_id": "none"}, [WAITING, RUNNING, LAST, FAILED, DONE], [], 0),
        ({"sort_by": "execution_duration"}, [WAITING, RUNNING, LAST, FAILED, DONE], [LAST, DONE, FAILED, WAITING, RUNNING], 5),
        (ENDED | {"sort_by": "execution_duration", "sort_order": "asc"}, [LAST, FAILED, DONE], [FAILED, DONE, LAST], 3),
    ],
)  # fmt: skip
def test_other_filters_are_applied_to_ones_own_rows(
    query: dict[str, str], asked: list[str], listed: list[str], total: int
) -> None:
    body = list_with(query, *asked)
    assert ids_of(body) == listed
    assert body["pagination"]["total"] == total


def test_jobs_that_went_meanwhile_are_left_out_of_the_page() -> None:
    ids = [uuid_of(number) for number in range(1, 4)]

    class Ending(Disk):
        def read(self, wish: Any) -> Any:
            jobs.waiting = ids[:1]
            return super().read(wish)

    jobs = Jobs(waiting=ids)
    disk = Ending(items(*ids[:2]))
    body = list_with({"status": "pending,in_progress"}, *ids, context=caller_of("alice", jobs=jobs), disk=disk)
    assert ids_of(body) == ids[1::-1], "the second one was read all the same"
    assert body["pagination"]["total"] == 2


def test_ended_jobs_that_are_gone_are_left_out_of_the_page() -> None:
    body = list_with(ENDED, LAST, FAILED, DONE, disk=Disk(rows_of(LAST, DONE)))
    assert ids_of(body) == [LAST, DONE]
    assert body["pagination"] == {"offset": 0, "limit": None, "total": 2, "has_more": False}


def test_a_job_that_is_too_large_for_the_answer_is_listed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [uuid_of(number) for number in range(4)]
    context = caller_of(
        "alice", jobs=Jobs(active=ids[:1], waiting=ids[1:]), documents=Kept(items(*ids, text="x" * 5000))
    )
    monkeypatch.setattr(job_rules, "MAX_ANSWER_BYTES", 6000)
    body = list_with({}, context=context)
    assert ids_of(body) == ids[::-1]
    assert [row["status"] for row in body["jobs"]] == ["pending", "pending", "pending", "in_progress"]
    assert [row["priority"] for row in body["jobs"]] == [4, 3, 2, 1]
    assert body["pagination"]["total"] == 4


@pytest.mark.parametrize("at_a_time", [1, 3, 10])
def test_what_was_not_read_at_once_is_read_next_in_its_order(at_a_time: int) -> None:
    ids = [uuid_of(number) for number in range(10)]
    context = caller_of("alice", jobs=Jobs(ended=ids[:8], waiting=ids[8:]))
    disk = Disk(rows_of(*ids[:4], *ids[5:8]) | items(*ids[8:]), at_a_time)
    steps, reply = drive(reading(rules.list_jobs(ask(context)), disk))
    assert steps == []
    assert ids_of(reply.body) == [*ids[:4:-1], *ids[3::-1]]
    assert reply.body["pagination"]["total"] == 9
    assert max(len(read.prompt_ids) for read in disk.reads if read.kind is Kind.ROW) == 8


def test_a_list_that_is_long_is_read_in_batches_and_to_a_bound() -> None:
    ids = [uuid_of(number) for number in range(MAX_ENTRIES + 5)]
    disk = Disk(rows_of(*ids))
    body = list_with(ENDED, *ids[5:], context=caller_of("alice", jobs=Jobs(ended=ids)), disk=disk)
    assert ids_of(body) == ids[:4:-1]
    assert body["pagination"] == {"offset": 0, "limit": None, "total": len(ids), "has_more": True}
    assert {len(wish.prompt_ids) for wish in disk.reads[:-1]} == {READ_BATCH}


def test_what_is_beyond_the_bytes_of_an_answer_is_on_the_next_page(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [uuid_of(number) for number in range(2 * READ_BATCH)]
    monkeypatch.setattr(rules, "MAX_READ_BYTES", 1000)
    context = caller_of("alice", jobs=Jobs(ended=ids))
    body = list_with(ENDED, *ids[READ_BATCH:], context=context, disk=Disk(rows_of(*ids)))
    assert ids_of(body) == ids[: READ_BATCH - 1 : -1]
    assert body["pagination"] == {"offset": 0, "limit": None, "total": len(ids), "has_more": True}


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"status": "done,pending"}, "Invalid status value(s): done. Valid values: pending, in_progress, completed, failed, cancelled"),
        ({"sort_by": "x"}, "sort_by must be 'created_at' or 'execution_duration'"),
        ({"sort_order": "up"}, "sort_order must be 'asc' or 'desc'"),
        ({"limit": "x"}, "limit must be an integer"),
        ({"limit": "0"}, "limit must be a positive integer"),
        ({"limit": "-1"}, "limit must be a positive integer"),
        ({"offset": "x"}, "offset must be an integer"),
    ],
)  # fmt: skip
def test_bad_queries_get_comfyuis_words(query: dict[str, str], error: str) -> None:
    assert drive(rules.list_jobs(ask(query=query))) == ([], ClientReply(400, {"error": error}))


def test_a_job_is_shown_whole() -> None:
    disk = Disk(ON_DISK)
    steps, reply = drive(reading(rules.job(ask(parameters={"job_id": DONE})), disk))
    assert steps == []
    assert [(read.kind, read.prompt_ids) for read in disk.reads] == [(Kind.ENTRY, (DONE,))]
    assert reply.body["outputs"] == {"9": {"images": [FILE | {"subfolder": "a"}]}}
    assert reply.body["execution_status"]["status_str"] == "success"
    assert reply.body["workflow"] == {
        "prompt": {"1": {"class_type": "A", "inputs": {"text": "text"}}},
        "extra_data": WORKFLOW | {"client_id": "tab"},
    }
    assert reply.body["priority"] == 1


def test_jobs_are_read_once() -> None:
    kept, disk = Kept(), Disk(ON_DISK)
    context = replace(ALICE, documents=kept)
    first = drive(reading(rules.list_jobs(ask(context)), disk))[1]
    kept.learn(first)
    assert set(kept) == {key for key in ON_DISK if key[0] is not Kind.ENTRY}
    steps, again = drive(rules.list_jobs(ask(context)))
    assert (steps, again.body, again.updates) == ([], first.body, ())


def test_a_job_that_ended_is_shown_again_without_reading() -> None:
    kept = Kept()
    request = ask(replace(ALICE, documents=kept), parameters={"job_id": DONE})
    first = drive(reading(rules.job(request), Disk(ON_DISK)))[1]
    kept.learn(first)
    assert set(kept) == {(Kind.ENTRY, DONE), (Kind.JOB, DONE)}
    assert drive(rules.job(request)) == ([], first)
    others = ask(replace(ALICE, documents=kept, jobs=Jobs()), parameters={"job_id": DONE})
    assert drive(rules.job(others)) == ([], NOT_FOUND), "what is not one's own any more is not shown"


@pytest.mark.parametrize(
    ("prompt_id", "shown"),
    [(WAITING, {"status": "pending"} | {"workflow_id": "w"}), (RUNNING, {"status": "in_progress"})],
)
def test_a_job_that_has_not_ended_has_no_outputs(prompt_id: str, shown: dict[str, Any]) -> None:
    disk = Disk(ON_DISK)
    steps, reply = drive(reading(rules.job(ask(parameters={"job_id": prompt_id})), disk))
    assert (steps, disk.asked) == ([], [prompt_id])
    place = 5 if prompt_id == WAITING else 4
    known = {"priority": place, "id": prompt_id, "create_time": 1, "outputs_count": 0, "previewable_outputs_count": 0}
    assert reply.body == known | shown


def test_a_job_that_has_just_ended_is_shown_as_it_ended() -> None:
    disk = Disk({(Kind.ENTRY, RUNNING): kept_entry(RUNNING, status=status(1, 2))})
    reply = drive(reading(rules.job(ask(parameters={"job_id": RUNNING})), disk))[1]
    assert (reply.body["status"], reply.body["priority"]) == ("completed", 4)
    assert [(read.kind, read.prompt_ids) for read in disk.reads] == [(Kind.ITEM, (RUNNING,)), (Kind.ENTRY, (RUNNING,))]


@pytest.mark.parametrize("prompt_id", [DONE, RUNNING, WAITING])
def test_a_job_of_which_nothing_is_there_is_not_found(prompt_id: str) -> None:
    assert drive(reading(rules.job(ask(parameters={"job_id": prompt_id})), Disk({}))) == ([], NOT_FOUND)


@pytest.mark.parametrize("prompt_id", [FOREIGN, "unknown", "x/y"])
def test_a_neighbours_job_is_answered_as_one_that_is_not_there(prompt_id: str) -> None:
    """Nothing is read of it, so that the time tells nothing either."""
    assert drive(rules.job(ask(parameters={"job_id": prompt_id}))) == ([], NOT_FOUND)
    assert drive(rules.cancel(ask(parameters={"job_id": prompt_id}))) == ([], ClientReply(body={"cancelled": False}))


def test_ones_own_running_job_is_cancelled_by_comfyui() -> None:
    for value, is_cancelled in (({"cancelled": True}, True), ({"cancelled": 1}, False), (None, False)):
        steps, reply = drive(rules.cancel(ask(parameters={"job_id": RUNNING})), reply_of(value))
        assert [(step.method, step.target) for step in steps] == [("POST", f"/api/jobs/{RUNNING}/cancel")]
        assert reply == ClientReply(body={"cancelled": is_cancelled})
    broken = drive(rules.cancel(ask(parameters={"job_id": RUNNING})), reply_of(None, 500))[1]
    assert broken.status == 500


def test_a_job_that_has_ended_is_not_cancelled() -> None:
    assert drive(rules.cancel(ask(parameters={"job_id": DONE}))) == ([], ClientReply(body={"cancelled": False}))


@pytest.mark.parametrize(("status_code", "is_cancelled"), [(200, True), (500, False)])
def test_a_comfyui_without_the_route_is_told_in_its_own_way(status_code: int, is_cancelled: bool) -> None:
    missing = UpstreamReply(404, None, b"404: Not Found", "text/plain")
    answers = [missing, reply_of(None), reply_of(None, status_code)]
    steps, reply = drive(rules.cancel(ask(parameters={"job_id": RUNNING})), *answers)
    told = [(step.target, sent(step)) for step in steps[1:]]
    assert told == [("/queue", {"delete": [RUNNING]}), ("/interrupt", {"prompt_id": RUNNING})]
    assert reply == ClientReply(body={"cancelled": is_cancelled})


def test_a_job_that_waits_in_the_gate_is_cancelled_there() -> None:
    steps, reply = drive(rules.cancel(ask(parameters={"job_id": WAITING})), (WAITING,))
    assert steps == [CancelWaiting((WAITING,))]
    assert reply == ClientReply(body={"cancelled": True})
    assert reply.updates == (JobUpdate(WAITING, is_deleted=True),)


@pytest.mark.parametrize(("code", "is_gone"), [(404, True), (200, False)])
def test_a_job_that_waits_in_comfyui_is_in_no_list_afterwards(code: int, is_gone: bool) -> None:
    """One that began to run meanwhile is not taken out."""
    answers = [(), reply_of({"cancelled": True}), [reply_of({}, code)]]
    steps, reply = drive(rules.cancel(ask(parameters={"job_id": WAITING})), *answers)
    assert steps[1].target == f"/api/jobs/{WAITING}/cancel"
    assert [call.target for call in steps[2]] == [f"/api/jobs/{WAITING}"]
    assert reply == ClientReply(body={"cancelled": True})
    assert reply.updates == ((JobUpdate(WAITING, has_ended=True),) if is_gone else ())


def test_what_was_canceled_is_when_comfyui_refuses_the_rest() -> None:
    request = ask(document={"job_ids": [WAITING, RUNNING]})
    steps, reply = drive(rules.cancel_many(request), (WAITING,), UpstreamReply(503, None, b"busy", "text/plain"))
    assert len(steps) == 2
    assert reply == ClientReply(503, b"busy", "text/plain")
    assert reply.updates == (JobUpdate(WAITING, is_deleted=True),)


@pytest.mark.parametrize(
    ("job_ids", "asked"),
    [
        ([RUNNING, FOREIGN, uuid_of(99)], [RUNNING]),
        ([RUNNING, RUNNING, RUNNING], [RUNNING]),
        ([FOREIGN], []),
        ([DONE], []),
        ([], []),
    ],
)
def test_a_batch_cancels_ones_own(job_ids: list[str], asked: list[str]) -> None:
    steps, reply = drive(
        rules.cancel_many(ask(document={"job_ids": job_ids})), *[reply_of({"cancelled": True})] * len(asked)
    )
    assert [step.target for step in steps] == [f"/api/jobs/{prompt_id}/cancel" for prompt_id in asked]
    assert reply == ClientReply(body={"cancelled": bool(asked)})


def test_a_batch_cancels_what_waits_and_what_runs() -> None:
    request = ask(document={"job_ids": [WAITING, WAITING, RUNNING, FOREIGN]})
    steps, reply = drive(rules.cancel_many(request), (WAITING,), reply_of({"cancelled": False}))
    assert steps[0] == CancelWaiting((WAITING,))
    assert [step.target for step in steps[1:]] == [f"/api/jobs/{RUNNING}/cancel"]
    assert reply == ClientReply(body={"cancelled": True})


def test_a_batch_with_bad_ids_cancels_nothing() -> None:
    job_ids = [RUNNING, "x", 5, RUNNING.upper().replace("0", "A"), None]
    steps, reply = drive(rules.cancel_many(ask(document={"job_ids": job_ids})))
    assert steps == []
    assert reply.status == 400
    assert reply.body == {
        "error": "job_ids contains invalid id(s)",
        "invalid_ids": ["x", "5", RUNNING.upper().replace("0", "A"), "None"],
    }


@pytest.mark.parametrize("document", [None, [], {}, {"job_ids": "x"}])
def test_a_batch_is_a_list(document: Any) -> None:
    reply = drive(rules.cancel_many(ask(document=document)))[1]
    assert reply == ClientReply(400, {"error": "job_ids must be a list"})
