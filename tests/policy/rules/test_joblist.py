from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policy.call import ClientReply, JobUpdate, UpstreamReply
from policy.documents import Document, Kind
from policy.rule_context import RuleInput
from policy.rules import joblist as rules
from policy.rules.jobs import ABSENT_JOB
from tests.policy.tenants import Jobs, caller_of, drive, reply_of, request_of, sent, uuid_of

DONE, FAILED, LAST, RUNNING, WAITING, FOREIGN = (uuid_of(number) for number in range(1, 7))
ALICE = caller_of("alice", jobs=Jobs(waiting=[WAITING], active=[RUNNING], ended=[DONE, FAILED, LAST]))
PROBE = "/api/jobs?status=in_progress&limit=1"
EMPTY_LIST = {"jobs": [], "pagination": {"offset": 0, "limit": 1, "total": 0, "has_more": False}}
FILE = {"filename": "x.png", "subfolder": "tenants/alice/a", "type": "output"}


def job_of(prompt_id: str, status: str, **more: Any) -> dict[str, Any]:
    return {"id": prompt_id, "status": status, "priority": 77.5, "create_time": 1, "outputs_count": 1} | more


KNOWN = {
    DONE: job_of(DONE, "completed", execution_start_time=10, execution_end_time=15, workflow_id="w", preview_output=FILE, outputs={}),
    FAILED: job_of(FAILED, "failed", execution_start_time=10, execution_end_time=12, execution_error={"exception_message": "at /a/b/c"}),
    LAST: job_of(LAST, "completed", execution_start_time=10, execution_end_time=30, preview_output=FILE | {"subfolder": ""}),
    RUNNING: job_of(RUNNING, "in_progress"),
    WAITING: job_of(WAITING, "pending", workflow_id="w"),
}  # fmt: skip


def ask(**more: Any) -> RuleInput:
    return request_of(ALICE, **more)


def list_with(query: dict[str, str], *asked: str) -> dict[str, Any]:
    """The answer to a listing that asks ComfyUI for these jobs, in this order."""
    answers: list[Any] = [reply_of(EMPTY_LIST)]
    if asked:
        answers.append(
            [reply_of(KNOWN[prompt_id]) if prompt_id in KNOWN else reply_of({"error": "x"}, 404) for prompt_id in asked]
        )
    steps, reply = drive(rules.list_jobs(ask(query=query)), *answers)
    assert steps[0].target == PROBE
    assert [call.target for step in steps[1:] for call in step] == [f"/api/jobs/{prompt_id}" for prompt_id in asked]
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


def test_rows_are_in_the_tenants_names() -> None:
    rows = {row["id"]: row for row in list_with({}, WAITING, RUNNING, LAST, FAILED, DONE)["jobs"]}
    assert rows[DONE]["preview_output"] == FILE | {"subfolder": "a"}
    assert "outputs" not in rows[DONE]
    assert "preview_output" not in rows[LAST]
    assert rows[FAILED]["execution_error"] == {"exception_message": "at c"}
    assert rows[WAITING] == job_of(WAITING, "pending", workflow_id="w", priority=5)


@pytest.mark.parametrize(
    ("query", "asked", "total", "has_more"),
    [
        ({"status": "completed,failed,cancelled", "limit": "2"}, [LAST, FAILED], 3, True),
        ({"status": "completed,failed,cancelled", "limit": "2", "offset": "2"}, [DONE], 3, False),
        ({"status": "in_progress,pending", "limit": "200"}, [WAITING, RUNNING], 2, False),
        ({"status": " PENDING , in_progress,"}, [WAITING, RUNNING], 2, False),
        ({"sort_order": "asc", "limit": "1"}, [DONE], 5, True),
        ({"sort_order": "ASC", "sort_by": "Created_At", "limit": "1", "offset": "-3"}, [DONE], 5, True),
        ({"offset": "9"}, [], 5, False),
        ({"limit": "1", "offset": "4", "status": ""}, [DONE], 5, False),
    ],
)
def test_a_page_asks_only_for_its_own_jobs(query: dict[str, str], asked: list[str], total: int, has_more: bool) -> None:
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
        (
            {"sort_by": "execution_duration", "sort_order": "asc", "status": "completed,failed,cancelled"},
            [LAST, FAILED, DONE],
            [FAILED, DONE, LAST],
            3,
        ),
    ],
)  # fmt: skip
def test_other_filters_are_applied_to_ones_own_rows(
    query: dict[str, str], asked: list[str], listed: list[str], total: int
) -> None:
    body = list_with(query, *asked)
    assert ids_of(body) == listed
    assert body["pagination"]["total"] == total


def test_jobs_that_changed_or_went_are_left_out_of_the_page() -> None:
    context = caller_of("alice", jobs=Jobs(waiting=[DONE, FOREIGN, WAITING]))
    answers = [reply_of(EMPTY_LIST), [reply_of(KNOWN[WAITING]), reply_of({"error": "x"}, 404), reply_of(KNOWN[DONE])]]
    reply = drive(rules.list_jobs(request_of(context, query={"status": "pending,in_progress"})), *answers)[1]
    assert ids_of(reply.body) == [WAITING]
    assert reply.body["pagination"]["total"] == 1


@pytest.mark.parametrize(
    "value", [None, [], {"id": FOREIGN, "status": "completed"}, {"id": DONE, "status": "odd"}, {"id": DONE}]
)
def test_rows_that_are_not_understood_are_left_out(value: Any) -> None:
    assert rules.row_to_client(value, DONE, ALICE.names, 1) is None


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
    reply = drive(rules.list_jobs(ask(query=query)), reply_of(EMPTY_LIST))[1]
    assert reply == ClientReply(400, {"error": error})


def test_a_comfyui_without_the_route_says_so_itself() -> None:
    missing = UpstreamReply(404, None, b"", "application/octet-stream")
    told = ClientReply(404, b"", "application/octet-stream")
    assert drive(rules.list_jobs(ask()), missing)[1] == told
    assert drive(rules.job(ask(parameters={"job_id": DONE})), missing)[1] == told
    assert drive(rules.cancel_many(ask(document={"job_ids": [DONE]})), missing)[1] == told


def test_a_job_is_shown_whole() -> None:
    graph = {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "tenants/alice/x"}}}
    value = KNOWN[DONE] | {
        "outputs": {"9": {"images": [FILE]}},
        "execution_status": {"status_str": "success", "completed": True, "messages": []},
        "workflow": {"prompt": graph, "extra_data": {"client_id": "alice.tab"}},
    }
    steps, reply = drive(rules.job(ask(parameters={"job_id": DONE})), reply_of(value))
    assert steps[0].target == f"/api/jobs/{DONE}"
    assert reply.body["outputs"] == {"9": {"images": [FILE | {"subfolder": "a"}]}}
    assert reply.body["execution_status"]["status_str"] == "success"
    assert reply.body["workflow"] == {
        "prompt": {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}},
        "extra_data": {"client_id": "tab"},
    }
    assert reply.body["priority"] == 1


class CachedDocument(dict[tuple[Kind, str], Document]):
    """What is kept of a tenant's jobs."""

    def get(self, kind: Kind, prompt_id: str) -> Document | None:  # type: ignore[override]
        return super().get((kind, prompt_id))

    def has_room(self, size: int) -> bool:
        return True

    def learn(self, reply: ClientReply) -> None:
        for update in reply.updates:
            for document in update.documents:
                self[document.kind, update.prompt_id] = document


def test_jobs_that_ended_are_asked_for_once() -> None:
    kept = CachedDocument()
    context = replace(ALICE, documents=kept)
    answers = [[reply_of(KNOWN[each]) for each in (WAITING, RUNNING, LAST, FAILED, DONE)]]
    first = drive(rules.list_jobs(request_of(context)), reply_of(EMPTY_LIST), *answers)[1]
    kept.learn(first)
    assert {each for _, each in kept} == {LAST, FAILED, DONE}
    _, again = drive(
        rules.list_jobs(request_of(context)), reply_of(EMPTY_LIST), [reply_of(KNOWN[WAITING]), reply_of(KNOWN[RUNNING])]
    )
    assert again.body == first.body
    kept_pages = drive(
        rules.list_jobs(request_of(context, query={"status": "completed,failed,cancelled"})), reply_of(EMPTY_LIST)
    )
    assert len(kept_pages[0]) == 1


@pytest.mark.parametrize(("prompt_id", "is_kept"), [(DONE, True), (WAITING, False)])
def test_a_job_that_ended_is_shown_again_without_asking(prompt_id: str, is_kept: bool) -> None:
    kept = CachedDocument()
    context = replace(ALICE, documents=kept)
    ask_again = request_of(context, parameters={"job_id": prompt_id})
    first = drive(rules.job(ask_again), reply_of(KNOWN[prompt_id]))[1]
    kept.learn(first)
    assert ((Kind.JOB, prompt_id) in kept) is is_kept
    if is_kept:
        assert drive(rules.job(ask_again)) == ([], replace(first, updates=()))
        steps, _ = drive(
            rules.job(request_of(replace(context, jobs=Jobs()), parameters={"job_id": prompt_id})), reply_of({}, 404)
        )
        assert steps[0].target == f"/api/jobs/{ABSENT_JOB}", "what is not one's own any more is not shown"


def test_a_waiting_job_has_no_outputs() -> None:
    reply = drive(rules.job(ask(parameters={"job_id": WAITING})), reply_of(KNOWN[WAITING]))[1]
    assert reply.body == job_of(WAITING, "pending", workflow_id="w", priority=5)


def test_a_job_without_a_workflow_is_shown_without() -> None:
    reply = drive(rules.job(ask(parameters={"job_id": DONE})), reply_of(KNOWN[DONE]))[1]
    assert reply.body["workflow"] == {"prompt": {}, "extra_data": {}}


@pytest.mark.parametrize("prompt_id", [FOREIGN, "unknown", "x/y"])
def test_a_neighbours_job_is_asked_for_as_one_that_is_not_there(prompt_id: str) -> None:
    steps, reply = drive(rules.job(ask(parameters={"job_id": prompt_id})), reply_of({"error": "Job not found"}, 404))
    assert [step.target for step in steps] == [f"/api/jobs/{ABSENT_JOB}"]
    assert reply == ClientReply(404, b'{"error": "Job not found"}')
    told = {"cancelled": False}
    steps, reply = drive(rules.cancel(ask(parameters={"job_id": prompt_id})), reply_of(told))
    assert [step.target for step in steps] == [f"/api/jobs/{ABSENT_JOB}/cancel"]
    assert reply == ClientReply(body=told)


def test_an_answer_about_another_job_is_none() -> None:
    reply = drive(rules.job(ask(parameters={"job_id": DONE})), reply_of(KNOWN[LAST]))[1]
    assert reply == ClientReply(404, {"error": "Job not found"})


def test_ones_own_job_is_cancelled() -> None:
    for value, is_cancelled in (({"cancelled": True}, True), ({"cancelled": 1}, False), (None, False)):
        steps, reply = drive(rules.cancel(ask(parameters={"job_id": RUNNING})), reply_of(value))
        assert [(step.method, step.target) for step in steps] == [("POST", f"/api/jobs/{RUNNING}/cancel")]
        assert reply == ClientReply(body={"cancelled": is_cancelled})
    broken = drive(rules.cancel(ask(parameters={"job_id": RUNNING})), reply_of(None, 500))[1]
    assert broken.status == 500


@pytest.mark.parametrize(("status", "is_gone"), [(404, True), (200, False)])
def test_a_waiting_job_that_is_cancelled_is_in_no_list_afterwards(status: int, is_gone: bool) -> None:
    """One that began to run meanwhile is not taken out."""
    answers = [reply_of({"cancelled": True}), [reply_of({}, status)]]
    steps, reply = drive(rules.cancel(ask(parameters={"job_id": WAITING})), *answers)
    assert [call.target for call in steps[1]] == [f"/api/jobs/{WAITING}"]
    assert reply.updates == ((JobUpdate(WAITING, has_ended=True),) if is_gone else ())


@pytest.mark.parametrize(
    ("job_ids", "own"), [([RUNNING, FOREIGN, uuid_of(99)], [RUNNING]), ([FOREIGN], []), ([], []), ([WAITING, WAITING], [WAITING, WAITING])]
)  # fmt: skip
def test_a_batch_cancels_ones_own(job_ids: list[str], own: list[str]) -> None:
    answers = [reply_of({"cancelled": bool(own)}), *[[reply_of({}, 404)] for _ in {*own} & {WAITING}]]
    steps, reply = drive(rules.cancel_many(ask(document={"job_ids": job_ids})), *answers)
    assert steps[0].target == "/api/jobs/cancel"
    assert sent(steps[0]) == {"job_ids": own}
    assert reply == ClientReply(body={"cancelled": bool(own)})


def test_a_batch_with_bad_ids_cancels_nothing() -> None:
    job_ids = [RUNNING, "x", 5, RUNNING.upper().replace("0", "A"), None]
    steps, reply = drive(rules.cancel_many(ask(document={"job_ids": job_ids})), reply_of({"cancelled": False}))
    assert sent(steps[0]) == {"job_ids": []}
    assert reply.status == 400
    assert reply.body == {
        "error": "job_ids contains invalid id(s)",
        "invalid_ids": ["x", "5", RUNNING.upper().replace("0", "A"), "None"],
    }


@pytest.mark.parametrize("document", [None, [], {}, {"job_ids": "x"}])
def test_a_batch_is_a_list(document: Any) -> None:
    reply = drive(rules.cancel_many(ask(document=document)), reply_of({"cancelled": False}))[1]
    assert reply == ClientReply(400, {"error": "job_ids must be a list"})
