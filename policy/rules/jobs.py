"""Queue, history, interrupt: a tenant's own jobs only. What is a neighbour's is asked for under a name that no job has, so ComfyUI itself answers."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import orjson

from policy.call import (
    CancelWaiting,
    ClientReply,
    DocumentsRead,
    Effect,
    ForgetJobs,
    JobUpdate,
    Opaque,
    ReadDocuments,
    RuleGenerator,
    UpstreamCall,
    UpstreamReply,
    Work,
)
from policy.documents import Document, Kind, joined, keep, named
from policy.namespace import Namespace
from policy.rule_context import OwnJobs, RuleContext, RuleInput
from policy.rules.results import entry_to_client, extra_data_to_client
from policy.salt import SALT
from policy.violation import Reason, Violation

ABSENT_JOB: Final = "absent"
"""The gate mints UUIDs only, so no job of a tenant has this id."""

MAX_ENTRIES: Final = 1000
"""How many jobs one answer shows, the newest first to stay."""
BATCH: Final = 8
"""How many calls of one rule are under way at a time."""
READ_BATCH: Final = 64
"""How many documents are asked for at a time."""
MAX_READ_BYTES: Final = 8 * 1024**2
"""How much of ComfyUI's answers is read for one answer: workflows may be megabytes each, and reading them takes everybody's time."""
MAX_ANSWER_BYTES: Final = 16 * 1024**2
"""Of one answer: what is kept costs little, and has to be sent."""

JSON_TYPE: Final = "application/json"
EMPTY: Final = ClientReply(content_type="text/plain")


def json_call(method: str, segments: tuple[str, ...], document: Any, jobs: Iterable[str] = ()) -> UpstreamCall:
    """A call with a JSON document that the gate made. jobs: that it concerns."""
    body = orjson.dumps(document)
    return UpstreamCall(method, tuple(map(Opaque, segments)), (), body, JSON_TYPE, tuple(jobs))


def passed(reply: UpstreamReply) -> ClientReply:
    """ComfyUI's own refusal, as it is: it was asked about nothing but the tenant's own."""
    return ClientReply(reply.status, reply.body, reply.content_type)


def own_or_absent(request: RuleInput, prompt_id: str) -> Opaque:
    """SECURITY: an unknown id and a neighbour's lead to the same call, so they get the same answer in the same time."""
    return Opaque(prompt_id if request.context.jobs.owns(prompt_id) else ABSENT_JOB)


def in_batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def count(request: RuleInput) -> RuleGenerator:
    """GET /prompt."""
    yield from ()
    return ClientReply(body={"exec_info": {"queue_remaining": count_own(request.context.jobs)}})


def count_own(jobs: OwnJobs) -> int:
    return jobs.count_unfinished()


def queue(request: RuleInput) -> RuleGenerator:
    """GET /queue: one's own items, in the order in which they run.

    SECURITY: ComfyUI's own list holds everybody's workflows, so it is not read: what waits and runs is kept since its submission
    (tests/security/test_neighbours_cost.py).
    """
    jobs = request.context.jobs
    first, running, waiting = jobs.count_finished() + 1, list(jobs.running()), list(jobs.pending())
    items, updates = yield from read_items(request.context, [*running, *waiting])
    lists = [[items.get(prompt_id) or bare_item(prompt_id) for prompt_id in ids] for ids in (running, waiting)]
    body = yield Work(partial(_write_queue, lists[0], lists[1], first), sum(item.size for item in items.values()))
    return ClientReply(body=body, updates=tuple(updates))


def read_items(
    context: RuleContext, prompt_ids: Sequence[str]
) -> Generator[Effect, Any, tuple[dict[str, Document], list[JobUpdate]]]:
    """What one answer shows of them with its workflow; and what is kept from now on, so that it is not written or read again."""
    items: dict[str, Document] = {}
    missing: list[str] = []
    total = 0
    for prompt_id in prompt_ids:
        item = context.documents.get(Kind.ITEM, prompt_id)
        if item is None:
            missing.append(prompt_id)
            continue
        items[prompt_id] = item
        total += item.size
        if total > MAX_ANSWER_BYTES:
            break
    fresh = [prompt_id for prompt_id, item in items.items() if item.write is not None]
    while missing and total <= MAX_ANSWER_BYTES:
        batch, missing = missing[:READ_BATCH], missing[READ_BATCH:]
        read: DocumentsRead = yield ReadDocuments(Kind.ITEM, tuple(batch))
        missing = [*read.unread, *missing]
        items |= read.documents
        fresh += read.documents
        total += sum(item.size for item in read.documents.values())
    if fresh:
        unwritten = [items[prompt_id] for prompt_id in fresh]
        written = yield Work(partial(_write_items, unwritten), sum(item.size for item in unwritten))
        items |= zip(fresh, written, strict=True)
    return items, [JobUpdate(prompt_id, documents=(items[prompt_id],)) for prompt_id in fresh]


def bare_item(prompt_id: str) -> Document:
    """One that says no more than which job it is."""
    return keep(Kind.ITEM, [0, prompt_id, {}, {}, []], prompt_id)


def _write_items(items: Sequence[Document]) -> list[Document]:
    return [item.written() for item in items]


def _write_queue(running: Sequence[Document], pending: Sequence[Document], first: int) -> bytes:
    """Both lists, numbered on. What goes beyond the bound is listed without its workflow: that a job waits is always told."""
    shown: list[list[tuple[int, Document]]] = [[], []]
    total = 0
    for index, item in enumerate([*running, *pending]):
        total += item.size
        kept = item if total <= MAX_ANSWER_BYTES else item.without_workflow()
        shown[index >= len(running)].append((first + index, kept))
    return b'{"queue_running":' + joined(shown[0]) + b',"queue_pending":' + joined(shown[1]) + b"}"


def submitted_item(
    sent: bytes, originals: bytes, prompt_id: str, created_ms: int, outputs: Sequence[str], names: Namespace
) -> Document:
    """The item of a job as it was submitted. It is written when somebody asks for it: most jobs have ended by then.

    sent: the document that ComfyUI gets. originals: what its client wrote in other words, as JSON: [node, input, value] of each.
    created_ms: Unix time.
    """
    write = partial(_write_submitted, sent, originals, prompt_id, created_ms, outputs, names)
    return Document(Kind.ITEM, sent, len(sent) + len(originals), prompt_id=prompt_id, write=write)


def _write_submitted(
    sent: bytes, originals: bytes, prompt_id: str, created_ms: int, outputs: Sequence[str], names: Namespace
) -> Document:
    document = orjson.loads(sent)
    nodes = document["prompt"]
    for node in nodes.values():
        node["inputs"].pop(SALT, None)
    for node_id, name, value in orjson.loads(originals):
        nodes[node_id]["inputs"][name] = value
    extra = extra_data_to_client(document["extra_data"] | {"create_time": created_ms}, names)
    return keep(Kind.ITEM, [0, prompt_id, nodes, extra, outputs], prompt_id)


def edit_queue(request: RuleInput) -> RuleGenerator:
    """POST /queue: `clear` means one's own waiting jobs, `delete` passes over the ids that are not one's own."""
    chosen = _choose(request, request.context.jobs.pending())
    updates, refusal = yield from take_out(chosen)
    return refusal or replace(EMPTY, updates=updates)


def take_out(prompt_ids: Sequence[str]) -> Generator[Effect, Any, tuple[tuple[JobUpdate, ...], ClientReply | None]]:
    """Jobs that have not begun, out of whichever queue they are in. → what became of them, and ComfyUI's refusal where it gave one."""
    canceled = (yield CancelWaiting(tuple(prompt_ids))) if prompt_ids else ()
    updates = tuple(JobUpdate(prompt_id, is_deleted=True) for prompt_id in canceled)
    left = [prompt_id for prompt_id in prompt_ids if prompt_id not in canceled]
    if not left:
        return updates, None
    reply = yield json_call("POST", ("queue",), {"delete": left}, left)
    if reply.status != 200:
        return updates, replace(passed(reply), updates=updates)
    gone = yield from find_gone(left)
    return (*updates, *(JobUpdate(prompt_id, has_ended=True) for prompt_id in gone)), None


def edit_history(request: RuleInput) -> RuleGenerator:
    """POST /history: likewise, for jobs that ended."""
    chosen = _choose(request, request.context.jobs.finished())
    if chosen:
        yield ForgetJobs(tuple(chosen))
    return replace(EMPTY, updates=tuple(JobUpdate(prompt_id, is_deleted=True) for prompt_id in chosen))


def _choose(request: RuleInput, own: Sequence[str]) -> list[str]:
    document = request.document
    if not isinstance(document, dict):
        raise Violation(Reason.BODY_MALFORMED, 'Send a JSON object: {"delete": [ids]} or {"clear": true}.')
    wanted = document.get("delete", [])
    if not isinstance(wanted, list):
        raise Violation(Reason.BODY_MALFORMED, "`delete` must be a list of job ids.")
    if document.get("clear"):
        return list(own)
    ids = {prompt_id for prompt_id in wanted if isinstance(prompt_id, str)}
    return [prompt_id for prompt_id in own if prompt_id in ids]


def job_call(prompt_id: str) -> UpstreamCall:
    return UpstreamCall("GET", (Opaque("api"), Opaque("jobs"), Opaque(prompt_id)), jobs=(prompt_id,))


def find_gone(prompt_ids: Sequence[str]) -> Generator[Effect, Any, list[str]]:
    """Of jobs that waited in ComfyUI's queue, those that it has no more: one that began to run meanwhile was not taken out.

    Asked before the answer, so that a client which then lists its queue does not find what it has just deleted.
    """
    gone: list[str] = []
    for batch in in_batches(prompt_ids):
        replies = yield tuple(job_call(prompt_id) for prompt_id in batch)
        gone += [prompt_id for prompt_id, reply in zip(batch, replies, strict=True) if reply.status == 404]
    return gone


def interrupt(request: RuleInput) -> RuleGenerator:
    """POST /interrupt: the named job if it is one's own; without an id one's own running job, which only ComfyUI knows for sure."""
    document = request.document
    prompt_id = document.get("prompt_id") if isinstance(document, dict) else None
    if prompt_id:
        if not isinstance(prompt_id, str):
            raise Violation(Reason.BODY_MALFORMED, "`prompt_id` must be a string.")
        targets = [own_or_absent(request, prompt_id)]
    else:
        targets = yield from _running(request)
    # Always with an id: without one ComfyUI stops whatever runs by the time that it reads the call.
    for target in targets:
        reply = yield json_call("POST", ("interrupt",), {"prompt_id": target}, (target,))
        if reply.status != 200:
            return passed(reply)
    return EMPTY


def _running(request: RuleInput) -> Generator[Effect, Any, list[Opaque]]:
    """One's own running job. While some wait the first may have just begun: ComfyUI lists what runs, without workflows."""
    jobs = request.context.jobs
    running = list(jobs.running())
    if not running and jobs.pending():
        reply = yield UpstreamCall("GET", (Opaque("api"), Opaque("jobs")), (("status", Opaque("in_progress")),))
        rows = reply.value.get("jobs") if reply.status == 200 and isinstance(reply.value, dict) else None
        listed = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        # Before 0.33 nothing lists it; an interrupt of a job that does not run is passed over.
        running = [prompt_id for prompt_id in listed if isinstance(prompt_id, str) and jobs.owns(prompt_id)]
        running = running if isinstance(rows, list) else list(jobs.pending()[:1])
    return [Opaque(prompt_id) for prompt_id in running]


def history_of(request: RuleInput) -> RuleGenerator:
    """GET /history/{prompt_id}: `{}` for what is unknown."""
    prompt_id, context = request.call.parameters["prompt_id"], request.context
    if not context.jobs.owns(prompt_id):
        return ClientReply(body={})
    entry, updates = yield from read_entry(context, prompt_id)
    if entry is None:
        return ClientReply(body={})
    body = yield Work(partial(named, [(prompt_id, context.jobs.place_of(prompt_id), entry)]), entry.size)
    return ClientReply(body=body, updates=updates)


def read_entry(
    context: RuleContext, prompt_id: str
) -> Generator[Effect, Any, tuple[Document | None, tuple[JobUpdate, ...]]]:
    """The history entry of an own job, None when it has none; and what is kept from now on."""
    entry = context.documents.get(Kind.ENTRY, prompt_id)
    if entry is not None:
        return entry, ()
    read: DocumentsRead = yield ReadDocuments(Kind.ENTRY, (prompt_id,))
    entry = read.documents.get(prompt_id)
    return entry, () if entry is None else (JobUpdate(prompt_id, documents=(entry,)),)


def keep_entry(value: Any, prompt_id: str, names: Namespace) -> Document | None:
    """An entry of the answer of `GET /history/{id}`, to be shown again: it never changes. None when there is none of the tenant's."""
    entry = value.get(prompt_id) if isinstance(value, dict) else None
    shown = entry_to_client(entry, names, 0)
    return None if shown is None else keep(Kind.ENTRY, shown)


def history(request: RuleInput) -> RuleGenerator:
    """GET /history: the newest first to stay.

    SECURITY: a hundred submissions of the largest size would fill the gate's memory, and keep its event loop busy
    (tests/security/test_large_answers.py).
    """
    context = request.context
    chosen = _choose_entries(context.jobs.finished(), _number(request, "max_items"), _number(request, "offset"))
    left = list(chosen[: -MAX_ENTRIES - 1 : -1])
    shown: list[tuple[str, int, Document]] = []
    updates: list[JobUpdate] = []
    total = 0
    while left and total <= MAX_ANSWER_BYTES:
        batch, left = left[:READ_BATCH], left[READ_BATCH:]
        entries = {prompt_id: context.documents.get(Kind.ENTRY, prompt_id) for prompt_id in batch}
        missing = tuple(prompt_id for prompt_id, entry in entries.items() if entry is None)
        if missing:
            read: DocumentsRead = yield ReadDocuments(Kind.ENTRY, missing)
            entries |= read.documents
            updates += [JobUpdate(prompt_id, documents=(entry,)) for prompt_id, entry in read.documents.items()]
            if read.unread:
                stop = batch.index(read.unread[0])
                batch, left = batch[:stop], [*batch[stop:], *left]
        for prompt_id in batch:
            entry = entries[prompt_id]
            if entry is None:
                continue
            total += entry.size
            if shown and total > MAX_ANSWER_BYTES:
                break
            shown.append((prompt_id, context.jobs.place_of(prompt_id), entry))
    body = yield Work(partial(named, shown[::-1]), total)
    return ClientReply(body=body, updates=tuple(updates))


def _number(request: RuleInput, name: str) -> int | None:
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
