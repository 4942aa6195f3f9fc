"""/api/jobs: a tenant's own jobs, filtered, sorted and paged here. Each row is asked for by its id; 0.3.64 has no such route and says so itself."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import orjson

from policy.call import ClientReply, Effect, JobUpdate, Opaque, RuleGenerator, UpstreamCall, Work
from policy.documents import Document, Kind, keep
from policy.namespace import Namespace
from policy.prompt_ids import is_prompt_id
from policy.rule_context import OwnJobs, RuleContext, RuleInput
from policy.rules.jobs import (
    MAX_ENTRIES,
    MAX_READ_BYTES,
    find_gone,
    in_batches,
    job_call,
    json_call,
    own_or_absent,
    passed,
)
from policy.rules.overtime import mark_row
from policy.rules.results import (
    extra_data_to_client,
    graph_to_client,
    output_to_client,
    outputs_to_client,
    scrub,
    status_to_client,
    update_of,
)

STATUSES: Final = ("pending", "in_progress", "completed", "failed", "cancelled")
_ENDED = frozenset({"completed", "failed", "cancelled"})
_WAITING = frozenset({"pending", "in_progress"})
_ROW_KEYS = (
    "id",
    "status",
    "create_time",
    "execution_start_time",
    "execution_end_time",
    "outputs_count",
    "previewable_outputs_count",
    "workflow_id",
)


@dataclass(frozen=True, slots=True)
class ListQuery:
    """limit: None for all."""

    statuses: frozenset[str]
    workflow_id: str | None
    sort_by: str
    is_descending: bool
    limit: int | None
    offset: int

    @property
    def is_by_place(self) -> bool:
        """Whether the ids alone tell which jobs are on a page: all that wait, all that ended, or both, by time of creation."""
        halves = (self.statuses & _ENDED, self.statuses & _WAITING)
        is_whole = halves[0] in (frozenset(), _ENDED) and halves[1] in (frozenset(), _WAITING)
        return is_whole and not self.workflow_id and self.sort_by == "created_at"


def read_query(request: RuleInput) -> ListQuery | ClientReply:
    """The query as ComfyUI reads it, or its refusal in its words (server.py, get_jobs)."""
    call = request.call
    statuses = frozenset(part.strip().lower() for part in (call.first("status") or "").split(",") if part.strip())
    unknown = [
        text
        for part in (call.first("status") or "").split(",")
        if (text := part.strip().lower()) and text not in STATUSES
    ]
    if unknown:
        return _bad(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUSES)}")
    sort_by = (call.first("sort_by") or "created_at").lower()
    if sort_by not in ("created_at", "execution_duration"):
        return _bad("sort_by must be 'created_at' or 'execution_duration'")
    sort_order = (call.first("sort_order") or "desc").lower()
    if sort_order not in ("asc", "desc"):
        return _bad("sort_order must be 'asc' or 'desc'")
    limit, offset = _whole(call.first("limit")), _whole(call.first("offset"))
    if call.first("limit") is not None and limit is None:
        return _bad("limit must be an integer")
    if limit is not None and limit <= 0:
        return _bad("limit must be a positive integer")
    if call.first("offset") is not None and offset is None:
        return _bad("offset must be an integer")
    return ListQuery(
        statuses or frozenset(STATUSES),
        call.first("workflow_id"),
        sort_by,
        sort_order == "desc",
        limit,
        max(0, offset or 0),
    )


def _whole(text: str | None) -> int | None:
    try:
        return None if text is None else int(text[:20])
    except ValueError:
        return None


def _bad(message: str) -> ClientReply:
    return ClientReply(400, {"error": message})


def list_jobs(request: RuleInput) -> RuleGenerator:
    """GET /api/jobs."""
    query = read_query(request)
    # Asked first, and for the one running job at most: whether this ComfyUI has the route at all.
    probe = yield UpstreamCall(
        "GET", (Opaque("api"), Opaque("jobs")), (("status", Opaque("in_progress")), ("limit", Opaque("1")))
    )
    if probe.status != 200:
        return passed(probe)
    if isinstance(query, ClientReply):
        return query
    candidates = _list_candidates(request.context.jobs, query)
    read = yield from _read_rows(request.context, _page(candidates, query) if query.is_by_place else candidates, query)
    rows = read.rows
    if query.is_by_place:
        # A job may have ended or gone since its id was listed.
        total = len(candidates) - (read.asked - len(rows))
    else:
        rows = _sort([row for row in rows if query.workflow_id in (None, "", row.get("workflow_id"))], query)
        total = len(rows)
        rows = list(_page(rows, query))
    has_more = query.offset + len(rows) < total
    pagination = {"offset": query.offset, "limit": query.limit, "total": total, "has_more": has_more}
    return ClientReply(body={"jobs": rows, "pagination": pagination}, updates=tuple(read.updates))


@dataclass(slots=True)
class _Read:
    """asked: how many jobs were looked at; rows: those of them that the client wants."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    updates: list[JobUpdate] = field(default_factory=list)
    asked: int = 0


def _read_rows(context: RuleContext, prompt_ids: Sequence[str], query: ListQuery) -> Generator[Effect, Any, _Read]:
    """Rows that are kept, and ComfyUI's for the others, within a bound of what is held at once."""
    read = _Read()
    read_bytes = 0
    for batch in in_batches(prompt_ids[:MAX_ENTRIES]):
        if read_bytes >= MAX_READ_BYTES:
            break  # what was not asked for still counts in the total, so the client asks for the next page
        kept = {prompt_id: context.documents.get(Kind.ROW, prompt_id) for prompt_id in batch}
        missing = [prompt_id for prompt_id, document in kept.items() if document is None]
        replies = (yield tuple(job_call(prompt_id) for prompt_id in missing)) if missing else ()
        answers = dict(zip(missing, replies, strict=True))
        for prompt_id, document in kept.items():
            if document is not None:
                row = orjson.loads(document.numbered(context.jobs.place_of(prompt_id)))
            else:
                value = mark_row(answers[prompt_id].value, prompt_id, context.jobs)
                row = row_to_client(value, prompt_id, context.names, context.jobs.place_of(prompt_id))
                if row is not None:
                    read.updates.append(_update_of(value, row))
            if row is not None and row["status"] in query.statuses:
                read.rows.append(row)
        read.asked += len(batch)
        read_bytes += sum(len(reply.body) for reply in replies)
    return read


def _update_of(value: dict[str, Any], row: dict[str, Any]) -> JobUpdate:
    has_ended = value["status"] in _ENDED
    told = update_of(value["id"], value.get("outputs"), has_ended=has_ended)
    return replace(told, documents=(keep(Kind.ROW, row | {"priority": 0}),)) if has_ended else told


def _list_candidates(jobs: OwnJobs, query: ListQuery) -> list[str]:
    """Ids by time of creation, in the order asked for."""
    ids = [
        *(jobs.finished() if query.statuses & _ENDED else ()),
        *(jobs.running() if query.statuses & _WAITING else ()),
        *(jobs.pending() if query.statuses & _WAITING else ()),
    ]
    return ids[::-1] if query.is_descending or query.sort_by != "created_at" else ids


def _page(items: Sequence[Any], query: ListQuery) -> Any:
    end = None if query.limit is None else query.offset + query.limit
    return items[query.offset : end]


def _sort(rows: list[dict[str, Any]], query: ListQuery) -> list[dict[str, Any]]:
    if query.sort_by == "created_at":
        return rows
    return sorted(rows, key=_duration, reverse=query.is_descending)


def _duration(row: dict[str, Any]) -> float:
    start, end = row.get("execution_start_time"), row.get("execution_end_time")
    return end - start if isinstance(start, int | float) and isinstance(end, int | float) else 0


def row_to_client(value: Any, prompt_id: str, names: Namespace, number: int) -> dict[str, Any] | None:
    """A row of the list, None when ComfyUI knows no such job."""
    if not isinstance(value, dict) or value.get("id") != prompt_id or value.get("status") not in STATUSES:
        return None
    row = {"priority": number} | {key: value[key] for key in _ROW_KEYS if key in value}
    if isinstance(value.get("execution_error"), dict):
        row["execution_error"] = scrub(value["execution_error"], names)
    preview = output_to_client(value.get("preview_output"), names)
    if isinstance(preview, dict):
        row["preview_output"] = preview
    return row


def job(request: RuleInput) -> RuleGenerator:
    """GET /api/jobs/{job_id}."""
    prompt_id, context = request.call.parameters["job_id"], request.context
    number = context.jobs.place_of(prompt_id)
    kept = context.documents.get(Kind.JOB, prompt_id) if context.jobs.owns(prompt_id) else None
    if kept is not None:
        body = yield Work(partial(kept.numbered, number), kept.size)
        return ClientReply(body=body)
    reply = yield job_call(own_or_absent(request, prompt_id))
    if reply.status != 200:
        return passed(reply)
    value = mark_row(reply.value, prompt_id, context.jobs)
    shown = yield Work(partial(keep_job, value, prompt_id, context.names), len(reply.body))
    if shown is None:
        return ClientReply(404, {"error": "Job not found"})
    body = yield Work(partial(shown.numbered, number), shown.size)
    row = row_to_client(value, prompt_id, context.names, 0) or {}
    update = _update_of(value, row)
    return ClientReply(
        body=body, updates=(replace(update, documents=(*update.documents, shown)) if update.has_ended else update,)
    )


def keep_job(value: Any, prompt_id: str, names: Namespace) -> Document | None:
    """The answer of `GET /api/jobs/{id}`, to be shown again; None when ComfyUI knows no such job."""
    row = row_to_client(value, prompt_id, names, 0)
    if row is None:
        return None
    if "outputs" in value:
        row["outputs"] = outputs_to_client(value["outputs"], names)
        row["execution_status"] = status_to_client(value.get("execution_status"), names)
        workflow = value.get("workflow")
        workflow = workflow if isinstance(workflow, dict) else {}
        row["workflow"] = {
            "prompt": graph_to_client(workflow.get("prompt"), names),
            "extra_data": extra_data_to_client(workflow.get("extra_data"), names),
        }
    return keep(Kind.JOB, row)


def cancel(request: RuleInput) -> RuleGenerator:
    """POST /api/jobs/{job_id}/cancel."""
    prompt_id = own_or_absent(request, request.call.parameters["job_id"])
    reply = yield UpstreamCall("POST", (Opaque("api"), Opaque("jobs"), prompt_id, Opaque("cancel")))
    if reply.status != 200:
        return passed(reply)
    return (yield from _cancelled(reply.value, [prompt_id], request))


def _cancelled(value: Any, own: Sequence[str], request: RuleInput) -> Generator[Effect, Any, ClientReply]:
    waited = [prompt_id for prompt_id in request.context.jobs.pending() if prompt_id in own]
    gone = yield from find_gone(waited)
    is_cancelled = isinstance(value, dict) and value.get("cancelled") is True
    updates = tuple(JobUpdate(prompt_id, has_ended=True) for prompt_id in gone)
    return ClientReply(body={"cancelled": is_cancelled}, updates=updates)


def cancel_many(request: RuleInput) -> RuleGenerator:
    """POST /api/jobs/cancel: ids that are not one's own are passed over, as ComfyUI passes over unknown ones."""
    document = request.document
    job_ids = document.get("job_ids") if isinstance(document, dict) else None
    invalid: list[str] = []
    own: list[str] = []
    if isinstance(job_ids, list):
        invalid = [item if isinstance(item, str) else repr(item) for item in job_ids if not is_prompt_id(item)]
        own = [item for item in job_ids if is_prompt_id(item) and request.context.jobs.owns(item)]
    reply = yield json_call("POST", ("api", "jobs", "cancel"), {"job_ids": [] if invalid else own})
    if reply.status != 200:
        return passed(reply)
    if not isinstance(job_ids, list):
        return _bad("job_ids must be a list")
    if invalid:
        return ClientReply(400, {"error": "job_ids contains invalid id(s)", "invalid_ids": invalid})
    return (yield from _cancelled(reply.value, own, request))
