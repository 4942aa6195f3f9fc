"""Queue, history, interrupt: a tenant's own jobs only. What is a neighbour's is asked for under a name that no job has, so ComfyUI itself answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from policy.call import ClientReply, Dialogue, JobNews, Opaque, UpstreamCall, UpstreamReply
from policy.caller import OwnJobs, Request
from policy.rules.results import entry_to_client, is_own_item, item_to_client, news_of
from policy.violation import Reason, Violation

ABSENT_JOB: Final = "absent"
"""The gate mints UUIDs only, so no job of a tenant has this id."""

MAX_ENTRIES: Final = 1000
"""How many jobs one answer shows, the newest first to stay."""
BATCH: Final = 16
"""How many calls of one dialogue are under way at a time."""
MAX_READ_BYTES: Final = 64 * 1024**2
"""How much of ComfyUI's answers one answer is made of: workflows may be megabytes each, and the gate holds them for everybody's time."""

JSON_TYPE: Final = "application/json"
EMPTY: Final = ClientReply(content_type="text/plain")


def json_call(method: str, segments: tuple[str, ...], document: Any) -> UpstreamCall:
    """A call with a JSON document that the gate made."""
    body = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    return UpstreamCall(method, tuple(map(Opaque, segments)), body=body, content_type=JSON_TYPE)


def passed(reply: UpstreamReply) -> ClientReply:
    """ComfyUI's own refusal, as it is: it was asked about nothing but the tenant's own."""
    return ClientReply(reply.status, reply.body, reply.content_type)


def own_or_absent(request: Request, prompt_id: str) -> Opaque:
    """SECURITY: an unknown id and a neighbour's lead to the same call, so they get the same answer in the same time."""
    return Opaque(prompt_id if request.caller.jobs.owns(prompt_id) else ABSENT_JOB)


def in_batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def count(request: Request) -> UpstreamCall:
    """GET /prompt."""
    return UpstreamCall("GET", (Opaque("prompt"),))


def show_own_count(value: Any, request: Request) -> Any:
    return {"exec_info": {"queue_remaining": count_own(request.caller.jobs)}}


def count_own(jobs: OwnJobs) -> int:
    return jobs.count_unfinished()


def queue(request: Request) -> UpstreamCall:
    """GET /queue."""
    return UpstreamCall("GET", (Opaque("queue"),))


def keep_own_queue(value: Any, request: Request) -> Any:
    """Own items only. ComfyUI lists what waits as a heap: here it is in the order in which it runs."""
    names = request.caller.names
    running = [item for item in _items(value, "queue_running") if is_own_item(item, names)]
    pending = [item for item in _items(value, "queue_pending") if is_own_item(item, names)]
    pending.sort(key=_order)
    first = request.caller.jobs.count_finished() + 1
    return {
        "queue_running": _number_items(running, first, request),
        "queue_pending": _number_items(pending, first + len(running), request),
    }


def _items(value: Any, key: str) -> list[Any]:
    items = value.get(key) if isinstance(value, dict) else None
    return items if isinstance(items, list) else []


def _order(item: list[Any]) -> tuple[float, str]:
    number = item[0]
    return (float(number) if isinstance(number, int | float) else 0.0, item[1])


def _number_items(items: Iterable[Any], first: int, request: Request) -> list[list[Any]]:
    shown = (item_to_client(item, request.caller.names, first + index) for index, item in enumerate(items))
    return [item for item in shown if item is not None]


def edit_queue(request: Request) -> Dialogue:
    """POST /queue: `clear` means one's own waiting jobs, `delete` passes over the ids that are not one's own."""
    pending = request.caller.jobs.pending()
    return (yield from _delete(request, "queue", pending))


def edit_history(request: Request) -> Dialogue:
    """POST /history: likewise, for jobs that ended."""
    finished = request.caller.jobs.finished()
    return (yield from _delete(request, "history", finished))


def _delete(request: Request, route: str, own: Sequence[str]) -> Dialogue:
    document = request.document
    if not isinstance(document, dict):
        raise Violation(Reason.BODY_MALFORMED, 'Send a JSON object: {"delete": [ids]} or {"clear": true}.')
    wanted = document.get("delete", [])
    if not isinstance(wanted, list):
        raise Violation(Reason.BODY_MALFORMED, "`delete` must be a list of job ids.")
    if document.get("clear"):
        chosen = list(own)
    else:
        ids = {prompt_id for prompt_id in wanted if isinstance(prompt_id, str)}
        chosen = [prompt_id for prompt_id in own if prompt_id in ids]
    reply = yield json_call("POST", (route,), {"delete": chosen})
    if reply.status != 200:
        return passed(reply)
    # What waits is taken out of the queue while it is read; what ended is gone from the history without a word.
    gone = chosen if route == "history" else ()
    return replace(EMPTY, news=tuple(JobNews(prompt_id, is_deleted=True) for prompt_id in gone))


def interrupt(request: Request) -> Dialogue:
    """POST /interrupt: the named job if it is one's own; without an id one's own running job, which only ComfyUI knows for sure."""
    document = request.document
    prompt_id = document.get("prompt_id") if isinstance(document, dict) else None
    if prompt_id:
        if not isinstance(prompt_id, str):
            raise Violation(Reason.BODY_MALFORMED, "`prompt_id` must be a string.")
        targets = [own_or_absent(request, prompt_id)]
    else:
        reply = yield queue(request)
        if reply.status != 200:
            return passed(reply)
        running = _items(reply.value, "queue_running")
        targets = [Opaque(item[1]) for item in running if is_own_item(item, request.caller.names)]
    # Always with an id: without one ComfyUI stops whatever runs by the time that it reads the call.
    for target in targets:
        reply = yield json_call("POST", ("interrupt",), {"prompt_id": target})
        if reply.status != 200:
            return passed(reply)
    return EMPTY


def history_of(request: Request) -> Dialogue:
    """GET /history/{prompt_id}: `{}` for what is unknown."""
    prompt_id = request.call.parameters["prompt_id"]
    reply = yield _entry_call(own_or_absent(request, prompt_id))
    if reply.status != 200:
        return passed(reply)
    shown = _entries(reply.value, prompt_id, request)
    return ClientReply(body=shown, news=_news(reply.value, shown))


def _entry_call(prompt_id: str) -> UpstreamCall:
    return UpstreamCall("GET", (Opaque("history"), Opaque(prompt_id)))


def _entries(value: Any, prompt_id: str, request: Request) -> dict[str, Any]:
    entry = value.get(prompt_id) if isinstance(value, dict) else None
    shown = entry_to_client(entry, request.caller.names, request.caller.jobs.place_of(prompt_id))
    return {} if shown is None else {prompt_id: shown}


def _news(value: Any, shown: dict[str, Any]) -> tuple[JobNews, ...]:
    return tuple(news_of(prompt_id, value[prompt_id].get("outputs"), has_ended=True) for prompt_id in shown)


def history(request: Request) -> Dialogue:
    """GET /history: each of one's own entries is asked for by its id, so the cost is that of one's own jobs, not of everybody's."""
    chosen = _choose_entries(request.caller.jobs.finished(), _number(request, "max_items"), _number(request, "offset"))
    entries: dict[str, Any] = {}
    news: list[JobNews] = []
    read_bytes = 0
    for batch in reversed([*in_batches(chosen[-MAX_ENTRIES:])]):
        # SECURITY: a hundred submissions of the largest size would fill the gate's memory (tests/security/test_large_answers.py).
        if read_bytes >= MAX_READ_BYTES:
            break
        replies = yield tuple(_entry_call(prompt_id) for prompt_id in batch)
        older: dict[str, Any] = {}
        for prompt_id, reply in zip(batch, replies, strict=True):
            if reply.status != 200:
                return passed(reply)
            shown = _entries(reply.value, prompt_id, request)
            older |= shown
            news += _news(reply.value, shown)
            read_bytes += len(reply.body)
        entries = older | entries
    return ClientReply(body=entries, news=tuple(news))


def _number(request: Request, name: str) -> int | None:
    text = request.call.first(name)
    if text is None:
        return None
    try:
        return int(text[:20])
    except ValueError:
        raise Violation(Reason.QUERY_MALFORMED, f"`{name}` must be a whole number.") from None


def _choose_entries(finished: Sequence[str], max_items: int | None, offset: int | None) -> Sequence[str]:
    """As PromptQueue.get_history pages (execution.py): the newest without an offset, else from the oldest, and then at least one."""
    if offset is None or offset < 0:
        if max_items is None:
            return finished
        return finished[max(0, len(finished) - max_items) :] if max_items > 0 else ()
    return finished[offset:] if max_items is None else finished[offset : offset + max(1, max_items)]
