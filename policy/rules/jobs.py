"""Queue, history, interrupt: a tenant's own jobs only. What is a neighbour's is asked for under a name that no job has, so ComfyUI itself answers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import orjson

from policy.call import (
    ClaimedJob,
    ClientReply,
    Effect,
    JobUpdate,
    Opaque,
    RuleGenerator,
    UpstreamCall,
    UpstreamReply,
    Work,
)
from policy.documents import Document, Kind, joined, keep, named
from policy.namespace import Namespace
from policy.rule_context import OwnJobs, RuleContext, RuleInput
from policy.rules.overtime import mark_entry
from policy.rules.results import entry_to_client, extra_data_to_client, item_to_client, update_of
from policy.salt import SALT
from policy.violation import Reason, Violation

ABSENT_JOB: Final = "absent"
"""The gate mints UUIDs only, so no job of a tenant has this id."""

MAX_ENTRIES: Final = 1000
"""How many jobs one answer shows, the newest first to stay."""
BATCH: Final = 8
"""How many calls of one rule are under way at a time."""
MAX_READ_BYTES: Final = 8 * 1024**2
"""How much of ComfyUI's answers is read for one answer: workflows may be megabytes each, and reading them takes everybody's time."""
MAX_ANSWER_BYTES: Final = 16 * 1024**2
"""Of one answer: what is kept costs little, and has to be sent."""

JSON_TYPE: Final = "application/json"
EMPTY: Final = ClientReply(content_type="text/plain")


def json_call(method: str, segments: tuple[str, ...], document: Any) -> UpstreamCall:
    """A call with a JSON document that the gate made."""
    return UpstreamCall(method, tuple(map(Opaque, segments)), body=orjson.dumps(document), content_type=JSON_TYPE)


def passed(reply: UpstreamReply) -> ClientReply:
    """ComfyUI's own refusal, as it is: it was asked about nothing but the tenant's own."""
    return ClientReply(reply.status, reply.body, reply.content_type)


def own_or_absent(request: RuleInput, prompt_id: str) -> Opaque:
    """SECURITY: an unknown id and a neighbour's lead to the same call, so they get the same answer in the same time."""
    return Opaque(prompt_id if request.context.jobs.owns(prompt_id) else ABSENT_JOB)


def in_batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def count(request: RuleInput) -> UpstreamCall:
    """GET /prompt."""
    return UpstreamCall("GET", (Opaque("prompt"),))


def show_own_count(value: Any, request: RuleInput) -> Any:
    return {"exec_info": {"queue_remaining": count_own(request.context.jobs)}}


def count_own(jobs: OwnJobs) -> int:
    return jobs.count_unfinished()


def job_call(prompt_id: str) -> UpstreamCall:
    return UpstreamCall("GET", (Opaque("api"), Opaque("jobs"), Opaque(prompt_id)))


def queue(request: RuleInput) -> RuleGenerator:
    """GET /queue: one's own items, in the order in which they run.

    SECURITY: ComfyUI's own list holds everybody's workflows, so it is not read: what waits is kept since its submission, and what is
    not is asked for by its id (tests/security/test_neighbours_cost.py).
    """
    jobs, documents = request.context.jobs, request.context.documents
    first, running = jobs.count_finished() + 1, list(jobs.running())
    waiting = list(jobs.pending())
    items = {
        prompt_id: document
        for prompt_id in [*running, *waiting]
        if (document := documents.get(Kind.ITEM, prompt_id)) is not None
    }
    missing = [prompt_id for prompt_id in [*running, *waiting] if prompt_id not in items][:MAX_ENTRIES]
    updates: list[JobUpdate] = []
    unwritten = [item for item in items.values() if item.write is not None]
    for item in (
        (yield Work(partial(_write_items, unwritten), sum(item.size for item in unwritten))) if unwritten else ()
    ):
        items[item.prompt_id] = item
        updates.append(JobUpdate(item.prompt_id, documents=(item,)))
    for batch in in_batches(missing):
        replies = yield tuple(job_call(prompt_id) for prompt_id in batch)
        for prompt_id, reply in zip(batch, replies, strict=True):
            read = partial(read_item, reply.value, prompt_id, request.context.names)
            document = yield Work(read, len(reply.body))
            if document is not None:
                items[prompt_id] = document
                updates.append(JobUpdate(prompt_id, documents=(document,)))
    parts = [
        sorted((items[prompt_id] for prompt_id in ids if prompt_id in items), key=lambda item: item.order)
        for ids in (running, waiting)
    ]
    body = yield Work(partial(_write_queue, parts[0], parts[1], first), sum(item.size for item in items.values()))
    return ClientReply(body=body, updates=tuple(updates))


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


def keep_item(item: Any, names: Namespace) -> Document | None:
    """An item of ComfyUI's queue, as it lists it, to be shown again; None when it is not the tenant's."""
    shown = item_to_client(item, names, 0)
    return None if shown is None else keep(Kind.ITEM, shown, shown[1], _order(item))


def submitted_item(
    sent: bytes, originals: bytes, claimed: ClaimedJob, outputs: Sequence[str], names: Namespace
) -> Document:
    """The item of a job that the gate has just given to ComfyUI. It is written when somebody asks for it: most jobs have ended by then.

    sent: the document that ComfyUI got. originals: what its client wrote in other words, as JSON: [node, input, value] of each.
    """
    write = partial(_write_submitted, sent, originals, claimed, outputs, names)
    return Document(
        Kind.ITEM, sent, len(sent) + len(originals), prompt_id=claimed.prompt_id, order=claimed.number, write=write
    )


def _write_submitted(
    sent: bytes, originals: bytes, claimed: ClaimedJob, outputs: Sequence[str], names: Namespace
) -> Document:
    document = orjson.loads(sent)
    nodes = document["prompt"]
    for node in nodes.values():
        node["inputs"].pop(SALT, None)
    for node_id, name, value in orjson.loads(originals):
        nodes[node_id]["inputs"][name] = value
    extra = extra_data_to_client(document["extra_data"] | {"create_time": claimed.created_ms}, names)
    return keep(Kind.ITEM, [0, claimed.prompt_id, nodes, extra, outputs], claimed.prompt_id, claimed.number)


def read_item(value: Any, prompt_id: str, names: Namespace) -> Document | None:
    """The same of a waiting job that was asked for by its id; None when ComfyUI knows none. It does not tell which nodes are outputs."""
    if (
        not isinstance(value, dict)
        or value.get("id") != prompt_id
        or value.get("status") not in ("pending", "in_progress")
    ):
        return None
    workflow = value.get("workflow")
    workflow = workflow if isinstance(workflow, dict) else {}
    return keep_item([value.get("priority"), prompt_id, workflow.get("prompt"), workflow.get("extra_data"), []], names)


def _order(item: list[Any]) -> float:
    number = item[0]
    return float(number) if isinstance(number, int | float) else 0.0


def edit_queue(request: RuleInput) -> RuleGenerator:
    """POST /queue: `clear` means one's own waiting jobs, `delete` passes over the ids that are not one's own."""
    pending = request.context.jobs.pending()
    return (yield from _delete(request, "queue", pending))


def edit_history(request: RuleInput) -> RuleGenerator:
    """POST /history: likewise, for jobs that ended."""
    finished = request.context.jobs.finished()
    return (yield from _delete(request, "history", finished))


def _delete(request: RuleInput, route: str, own: Sequence[str]) -> RuleGenerator:
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
    if route == "history":
        return replace(EMPTY, updates=tuple(JobUpdate(prompt_id, is_deleted=True) for prompt_id in chosen))
    gone = yield from find_gone(chosen)
    return replace(EMPTY, updates=tuple(JobUpdate(prompt_id, has_ended=True) for prompt_id in gone))


def find_gone(prompt_ids: Sequence[str]) -> Generator[Effect, Any, list[str]]:
    """Of jobs that waited, those that ComfyUI has no more: one that began to run meanwhile was not taken out.

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
        reply = yield json_call("POST", ("interrupt",), {"prompt_id": target})
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
    number = context.jobs.place_of(prompt_id)
    updates: tuple[JobUpdate, ...] = ()
    entry = _kept(context, Kind.ENTRY, prompt_id)
    if entry is None:
        reply = yield _entry_call(own_or_absent(request, prompt_id))
        if reply.status != 200:
            return passed(reply)
        entry = yield Work(
            partial(keep_entry, mark_entry(reply.value, prompt_id, context.jobs), prompt_id, context.names),
            len(reply.body),
        )
        if entry is None:
            return ClientReply(body={})
        updates = (_update_of(reply.value, prompt_id, entry),)
    body = yield Work(partial(named, [(prompt_id, number, entry)]), entry.size)
    return ClientReply(body=body, updates=updates)


def _kept(context: RuleContext, kind: Kind, prompt_id: str) -> Document | None:
    return context.documents.get(kind, prompt_id) if context.jobs.owns(prompt_id) else None


def _entry_call(prompt_id: str) -> UpstreamCall:
    return UpstreamCall("GET", (Opaque("history"), Opaque(prompt_id)))


def keep_entry(value: Any, prompt_id: str, names: Namespace) -> Document | None:
    """An entry of the answer of `GET /history/{id}`, to be shown again: it never changes. None when there is none of the tenant's."""
    entry = value.get(prompt_id) if isinstance(value, dict) else None
    shown = entry_to_client(entry, names, 0)
    return None if shown is None else keep(Kind.ENTRY, shown)


def _update_of(value: Any, prompt_id: str, entry: Document) -> JobUpdate:
    told = update_of(prompt_id, value[prompt_id].get("outputs"), has_ended=True)
    return replace(told, documents=(entry,))


def history(request: RuleInput) -> RuleGenerator:
    """GET /history: what is kept, the newest first to stay; other entries of one's own are asked for by their ids.

    SECURITY: a hundred submissions of the largest size would fill the gate's memory, and keep its event loop busy
    (tests/security/test_large_answers.py).
    """
    context = request.context
    chosen = _choose_entries(context.jobs.finished(), _number(request, "max_items"), _number(request, "offset"))
    shown: list[tuple[str, int, Document]] = []
    updates: list[JobUpdate] = []
    asked_bytes = total = 0
    for batch in reversed([*in_batches(chosen[-MAX_ENTRIES:])]):
        entries = {prompt_id: context.documents.get(Kind.ENTRY, prompt_id) for prompt_id in batch}
        missing = [prompt_id for prompt_id, entry in entries.items() if entry is None]
        replies = (yield tuple(_entry_call(prompt_id) for prompt_id in missing)) if missing else ()
        for prompt_id, reply in zip(missing, replies, strict=True):
            if reply.status != 200:
                return passed(reply)
            asked_bytes += len(reply.body)
            entry = entries[prompt_id] = yield Work(
                partial(keep_entry, mark_entry(reply.value, prompt_id, context.jobs), prompt_id, context.names),
                len(reply.body),
            )
            if entry is not None:
                updates.append(_update_of(reply.value, prompt_id, entry))
        found = [
            (prompt_id, context.jobs.place_of(prompt_id), entry)
            for prompt_id, entry in entries.items()
            if entry is not None
        ]
        for item in reversed(found):
            total += item[2].size
            if shown and total > MAX_ANSWER_BYTES:
                break
            shown.append(item)
        if asked_bytes >= MAX_READ_BYTES or total > MAX_ANSWER_BYTES:
            break
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
