"""/api/jobs: a tenant's own jobs, filtered, sorted and paged here. ComfyUI 0.3.64 has no such routes; through the gate it has them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import orjson

from policy.call import (
    CancelWaiting,
    ClientReply,
    DocumentsRead,
    Effect,
    JobUpdate,
    Opaque,
    ReadDocuments,
    RuleGenerator,
    UpstreamCall,
    Work,
)
from policy.documents import Document, Kind, keep
from policy.job_rows import detail_of_entry, row_of_entry, row_of_item
from policy.prompt_ids import is_prompt_id
from policy.rule_context import OwnJobs, RuleContext, RuleInput
from policy.rules.jobs import (
    MAX_ENTRIES,
    MAX_READ_BYTES,
    READ_BATCH,
    bare_item,
    find_gone,
    json_call,
    passed,
    read_entry,
    read_items,
)

STATUSES: Final = ("pending", "in_progress", "completed", "failed", "cancelled")
_ENDED = frozenset({"completed", "failed", "cancelled"})
_WAITING = frozenset({"pending", "in_progress"})


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
    """Within a bound of what is held at once; what was not read still counts in the total, so the client asks for the next page."""
    read = _Read()
    read_bytes = 0
    left = list(prompt_ids[:MAX_ENTRIES])
    running = set(context.jobs.running())
    unfinished = running.union(context.jobs.pending())
    while left and read_bytes < MAX_READ_BYTES:
        batch, left = left[:READ_BATCH], left[READ_BATCH:]
        items, updates = yield from _read_unfinished(context, [each for each in batch if each in unfinished])
        rows, unread = yield from _read_ended(context, [each for each in batch if each not in unfinished], read)
        if unread:
            stop = batch.index(unread[0])
            batch, left = batch[:stop], [*batch[stop:], *left]
        for prompt_id in batch:
            number = context.jobs.place_of(prompt_id)
            if prompt_id in items:
                status = "in_progress" if prompt_id in running else "pending"
                row = yield Work(partial(_row_of_item, items[prompt_id], status, number), items[prompt_id].size)
                read_bytes += items[prompt_id].size
            elif prompt_id in rows:
                row = orjson.loads(rows[prompt_id].numbered(number))
                read_bytes += rows[prompt_id].size
            else:
                continue
            if row["status"] in query.statuses:
                read.rows.append(row)
        read.updates += updates
        read.asked += len(batch)
    return read


def _read_unfinished(
    context: RuleContext, prompt_ids: Sequence[str]
) -> Generator[Effect, Any, tuple[dict[str, Document], list[JobUpdate]]]:
    """Items by id. Where the workflows are too much for one answer all the same: that a job waits is always told, unless it is over by now."""
    items, updates = yield from read_items(context, prompt_ids)
    if len(items) < len(prompt_ids):
        unfinished = {*context.jobs.pending(), *context.jobs.running()}
        items |= {each: bare_item(each) for each in prompt_ids if each in unfinished and each not in items}
    return items, updates


def _read_ended(
    context: RuleContext, prompt_ids: Sequence[str], read: _Read
) -> Generator[Effect, Any, tuple[dict[str, Document], tuple[str, ...]]]:
    """Rows by id, and the ids of those that were not read."""
    kept = {prompt_id: context.documents.get(Kind.ROW, prompt_id) for prompt_id in prompt_ids}
    missing = tuple(prompt_id for prompt_id, row in kept.items() if row is None)
    found: DocumentsRead = (yield ReadDocuments(Kind.ROW, missing)) if missing else DocumentsRead({})
    read.updates += [JobUpdate(prompt_id, documents=(row,)) for prompt_id, row in found.documents.items()]
    rows = {prompt_id: row for prompt_id, row in kept.items() if row is not None}
    return rows | dict(found.documents), found.unread


def _row_of_item(item: Document, status: str, number: int) -> dict[str, Any]:
    return row_of_item(orjson.loads(item.numbered(number)), status)


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


def job(request: RuleInput) -> RuleGenerator:
    """GET /api/jobs/{job_id}."""
    prompt_id, context = request.call.parameters["job_id"], request.context
    jobs = context.jobs
    if not jobs.owns(prompt_id):
        return _NOT_FOUND
    number = jobs.place_of(prompt_id)
    kept = context.documents.get(Kind.JOB, prompt_id)
    if kept is not None:
        body = yield Work(partial(kept.numbered, number), kept.size)
        return ClientReply(body=body)
    is_running = prompt_id in jobs.running()
    if is_running or prompt_id in jobs.pending():
        items, updates = yield from read_items(context, [prompt_id])
        if prompt_id in items:
            item, status = items[prompt_id], "in_progress" if is_running else "pending"
            row = yield Work(partial(_row_of_item, item, status, number), item.size)
            return ClientReply(body=row, updates=tuple(updates))
        # It has just ended.
    entry, updates_of_entry = yield from read_entry(context, prompt_id)
    if entry is None:
        return _NOT_FOUND
    shown = yield Work(partial(keep_job, entry, prompt_id), entry.size)
    body = yield Work(partial(shown.numbered, number), shown.size)
    update = JobUpdate(prompt_id, documents=(shown,))
    return ClientReply(body=body, updates=(*updates_of_entry, update))


_NOT_FOUND: Final = ClientReply(404, {"error": "Job not found"})


def keep_job(entry: Document, prompt_id: str) -> Document:
    """The answer of `GET /api/jobs/{id}`, to be shown again."""
    return keep(Kind.JOB, detail_of_entry(orjson.loads(entry.numbered(0)), prompt_id))


def keep_row(entry: Document, prompt_id: str) -> Document:
    """The job's row in `GET /api/jobs`."""
    return keep(Kind.ROW, row_of_entry(orjson.loads(entry.numbered(0)), prompt_id))


def cancel(request: RuleInput) -> RuleGenerator:
    """POST /api/jobs/{job_id}/cancel: `cancelled` is false for what has ended, or is none of one's own."""
    prompt_id = request.call.parameters["job_id"]
    return (yield from _cancel(request, [prompt_id] if request.context.jobs.owns(prompt_id) else []))


def cancel_many(request: RuleInput) -> RuleGenerator:
    """POST /api/jobs/cancel: ids that are not one's own are passed over, as ComfyUI passes over unknown ones."""
    document = request.document
    job_ids = document.get("job_ids") if isinstance(document, dict) else None
    if not isinstance(job_ids, list):
        return _bad("job_ids must be a list")
    invalid = [item if isinstance(item, str) else repr(item) for item in job_ids if not is_prompt_id(item)]
    if invalid:
        return ClientReply(400, {"error": "job_ids contains invalid id(s)", "invalid_ids": invalid})
    return (yield from _cancel(request, [item for item in job_ids if request.context.jobs.owns(item)]))


def _cancel(request: RuleInput, prompt_ids: Sequence[str]) -> RuleGenerator:
    """Those that wait outside ComfyUI are canceled here, the others that have not ended by ComfyUI."""
    # A job that is named twice is asked for once.
    jobs, own = request.context.jobs, dict.fromkeys(prompt_ids)
    waited = [prompt_id for prompt_id in jobs.pending() if prompt_id in own]
    canceled = (yield CancelWaiting(tuple(waited))) if waited else ()
    updates = [JobUpdate(prompt_id, is_deleted=True) for prompt_id in canceled]
    unfinished = {*waited, *jobs.running()}
    left = [prompt_id for prompt_id in own if prompt_id in unfinished and prompt_id not in canceled]
    is_cancelled = bool(canceled)
    for prompt_id in left:
        target = (Opaque("api"), Opaque("jobs"), Opaque(prompt_id), Opaque("cancel"))
        reply = yield UpstreamCall("POST", target, jobs=(prompt_id,))
        if reply.status in (404, 405):  # before 0.33
            reply = yield json_call("POST", ("queue",), {"delete": [prompt_id]}, (prompt_id,))
            reply = yield json_call("POST", ("interrupt",), {"prompt_id": prompt_id}, (prompt_id,))
            is_cancelled |= reply.status == 200
        elif reply.status != 200:
            return replace(passed(reply), updates=tuple(updates))
        else:
            is_cancelled |= isinstance(reply.value, dict) and reply.value.get("cancelled") is True
    gone = yield from find_gone([prompt_id for prompt_id in left if prompt_id in waited])
    updates += [JobUpdate(prompt_id, has_ended=True) for prompt_id in gone]
    return ClientReply(body={"cancelled": is_cancelled}, updates=tuple(updates))
