"""POST /prompt: the judged workflow goes on rebuilt, in the tenant's names, under an id that the gate owns before ComfyUI sees it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

import orjson

from policy.call import (
    NO_EXTRAS,
    AmendJob,
    CheckTempFiles,
    ClaimedJob,
    ClientReply,
    Effect,
    JobExtras,
    JobUpdate,
    NameJob,
    Opaque,
    Place,
    RecordJob,
    ReleaseJob,
    RuleGenerator,
    Tried,
    TryJob,
    UpstreamCall,
    UpstreamReply,
    Work,
)
from policy.catalogue import NodeClass
from policy.document import check_parts, parse_json
from policy.file_uses import file_inputs
from policy.fitting import NOBODY
from policy.judge import ADMIN_POLICY, JudgedPrompt, judge_document
from policy.keyform import check_document
from policy.left_out import told
from policy.patience import AT_ONCE_EFFORT, ENDLESS, Patience, TooMuch, is_quick
from policy.prepared import Prepared, check_prompt_id, document_of, prepare
from policy.rule_context import RuleContext, RuleInput
from policy.rules.jobs import JSON_TYPE, submitted_item
from policy.rules.results import CREDENTIALS, scrub
from policy.violation import Reason, Violation
from policy.workflow import Notice

PROMPT: Final = (Opaque("prompt"),)
LAST_PLACE: Final = 2.0**52
"""In ComfyUI's queue, behind all that wait, from here on: of jobs that are only to be judged. What stands there is taken out again."""
NO_WORKFLOWS: Final = "This tenant calls functions, and sends no workflows of its own: /gate/functions lists them."
MAX_TRIES: Final = 5
"""Of a job that waits, for a ComfyUI that has something to do; each takes as long as proxy/jobs/trial.py waits for that."""
_BUSY = "ComfyUI goes from one short job to the next, so that it could not be asked. Send the workflow again."
UNTRIED: Final = UpstreamReply(
    503, {"error": {"type": "upstream_busy", "message": _BUSY, "details": "", "extra_info": {}}}
)
_SURE: Final = UpstreamReply(200, {"node_errors": {}})
"""What ComfyUI is certain to say."""
LARGE_BYTES: Final = 1024**2
"""As much work as so many bytes."""
Prepare: TypeAlias = Callable[[RuleInput, Patience], Prepared]
Preparing: TypeAlias = Callable[[], Generator[Effect, Any, Prepared]]


def submit(request: RuleInput, extras: JobExtras = NO_EXTRAS) -> RuleGenerator:
    """A tenant's workflow. When ComfyUI refuses it the job is released; when no answer comes, whoever sends knows whether it may run.

    extras: recorded with the job.
    """
    recurring = request.context.recurring
    preparing = partial(prepared_of, request, prepare if recurring is None else recurring.prepare)
    return (yield from submit_prepared(request.context, preparing, extras, tells_number=True))


def submit_prepared(
    context: RuleContext, preparing: Preparing, extras: JobExtras, *, tells_number: bool = False
) -> RuleGenerator:
    """As `submit`, of a workflow that comes out of `preparing`, as often as that is asked. tells_number: as ComfyUI does."""
    prepared = yield from preparing()
    if prepared.temp_files and not (yield CheckTempFiles(prepared.temp_files)):
        prepared = yield from preparing()  # what it has lost is a name that never was
    claimed = yield prepared.wish
    reply = yield from _hand_in(prepared, claimed, extras)
    node_errors = reply.value.get("node_errors") if isinstance(reply.value, dict) else None
    nodes = (yield Work(partial(_read_nodes, prepared.body), len(prepared.body))) if node_errors else {}
    shown_errors = prepared.node_errors
    if node_errors:
        shown_errors = {**shown_errors, **node_errors_to_client(node_errors, context, nodes)}
    if reply.status != 200:
        yield ReleaseJob(claimed.prompt_id)
        headers = (("Retry-After", "1"),) if reply is UNTRIED else ()
        refused = ClientReply(reply.status, refusal_to_client(reply, context, shown_errors), headers=headers)
        return _told(refused, prepared)
    # SECURITY: what `GET /queue` shows of it is kept, since ComfyUI's own list holds everybody's (policy/rules/jobs.py, queue).
    updates: tuple[JobUpdate, ...] = ()
    if context.documents.has_room(len(prepared.body)):  # else it is read from the disk when somebody asks for it
        sent, originals, outputs = prepared.body, prepared.originals, _outputs(prepared, reply)
        item = submitted_item(sent, originals, claimed.prompt_id, claimed.created_ms, outputs, context.names)
        updates = (JobUpdate(claimed.prompt_id, documents=(item,)),)
    shown: dict[str, Any] = {"prompt_id": claimed.prompt_id}
    if tells_number:
        shown["number"] = context.jobs.place_of(claimed.prompt_id)
    shown["node_errors"] = shown_errors
    return _told(ClientReply(body=shown, updates=updates), prepared)


def check(request: RuleInput) -> None:
    """Raises what `submit` would for the workflow itself."""
    prepare(request, ENDLESS)


def prepared_of(request: RuleInput, prepare: Prepare = prepare) -> Generator[Effect, Any, Prepared]:
    """Of the workflow that was sent: at once, or beside the event loop where it may take long. Raises what `prepare` raises, but for TooMuch."""
    prepared = _prepare_at_once(request, prepare)
    if prepared is None:
        # SECURITY: a node may have 80,000 inputs (test_prompt.py::test_what_takes_long_is_done_beside_the_event_loop).
        prepared = yield Work(partial(prepare, request, ENDLESS), max(len(request.raw), LARGE_BYTES))
    return prepared


def _hand_in(prepared: Prepared, claimed: ClaimedJob, extras: JobExtras) -> Generator[Effect, Any, UpstreamReply]:
    """ComfyUI's verdict of the job, which is on disk by then if it is a good one.

    With room in ComfyUI's queue it is recorded first and then sent. Else it waits outside: ComfyUI is asked all the same, so that a client hears of
    its mistakes at once, unless it is sure to find none. Where there are several, only the first is asked, while it has something else to do; what it
    does not have is told when the job's turn comes.
    """
    record = partial(_record, prepared, claimed, replace(extras, needs=prepared.needs) if prepared.needs else extras)
    can_try = claimed.is_judged
    is_next = claimed.is_next and not (claimed.is_placed and (prepared.is_sure or not can_try))
    for _ in range(MAX_TRIES):
        number = (yield record(Place.NEXT, prepared.outputs)) if is_next else None
        if number is not None:
            reply: UpstreamReply = yield _submission(prepared, claimed, number)
            runs = _outputs(prepared, reply)
            if reply.status == 200 and len(runs) < len(prepared.outputs):
                yield AmendJob(claimed.prompt_id, orjson.dumps(runs))
            return reply
        if prepared.is_sure or not can_try:
            yield record(Place.WAITING, prepared.outputs)
            return _SURE
        tried: Tried | None = yield TryJob(
            claimed.prompt_id, _submission(prepared, claimed, LAST_PLACE + claimed.sequence)
        )
        if tried is not None and tried.reply.status == 200:
            place = Place.THERE if tried.is_there else Place.WAITING
            yield record(place, _outputs(prepared, tried.reply))
        if tried is not None:
            return tried.reply
        is_next = can_try = not claimed.is_placed  # ComfyUI has come to the end of what it had
    return UNTRIED


def _record(prepared: Prepared, claimed: ClaimedJob, extras: JobExtras, place: Place, outputs: list[str]) -> RecordJob:
    return RecordJob(claimed.prompt_id, place, prepared.body, prepared.originals, orjson.dumps(outputs), extras)


def _submission(prepared: Prepared, claimed: ClaimedJob, number: float) -> UpstreamCall:
    body = body_for(prepared.body, claimed.prompt_id, number)
    return UpstreamCall("POST", PROMPT, body=body, content_type=JSON_TYPE)


def _outputs(prepared: Prepared, reply: UpstreamReply) -> list[str]:
    """The output nodes that ComfyUI will run."""
    node_errors = reply.value.get("node_errors") if isinstance(reply.value, dict) else None
    wrong = _list_spoiled(node_errors) if node_errors else frozenset()
    return [node_id for node_id in prepared.outputs if node_id not in wrong]


def body_for(body: bytes, prompt_id: str, number: float) -> bytes:
    """`Prepared.body` with the id and the place in ComfyUI's queue."""
    place = orjson.dumps({"prompt_id": prompt_id, "number": number})
    return b"".join((memoryview(body)[:-1], b",", memoryview(place)[1:]))


def without_credentials(body: bytes) -> bytes:
    """`Prepared.body` without the client's keys of paid services: to be kept of a job that has failed. As it is where it has none."""
    if not any(name.encode() in body for name in CREDENTIALS):
        return body
    document = orjson.loads(body)
    for name in CREDENTIALS:
        document["extra_data"].pop(name, None)
    return orjson.dumps(document)


def _prepare_at_once(request: RuleInput, prepare: Prepare) -> Prepared | None:
    """None for what may take long. Raises Violation for who sends no workflows, or has nowhere to run them, and what `prepare` raises."""
    if not request.context.takes_workflows:
        raise Violation(Reason.POLICY_VIOLATION, NO_WORKFLOWS, "workflows")
    if request.context.comfyuis == ():
        raise Violation(Reason.NOWHERE_TO_RUN, NOBODY)
    try:
        return prepare(request, Patience(AT_ONCE_EFFORT)) if is_quick(request.raw) else None
    except TooMuch:
        return None


def _read_nodes(body: bytes) -> Any:
    """What ComfyUI was sent is read again only where it finds something wrong."""
    return orjson.loads(body)["prompt"]


def _told(reply: ClientReply, prepared: Prepared) -> ClientReply:
    """What was left out of a workflow, beside ComfyUI's own fields; nothing when nothing was."""
    if prepared.notices:
        reply = replace(reply, body=reply.body | notices_to_client(prepared.notices))
    return told(reply, prepared.left_out)


def _list_spoiled(node_errors: Any) -> set[str]:
    """Outputs that ComfyUI will not run, since something that they need is wrong."""
    entries = node_errors.values() if isinstance(node_errors, Mapping) else ()
    listed = [entry.get("dependent_outputs") for entry in entries if isinstance(entry, Mapping)]
    return {output for outputs in listed if isinstance(outputs, list) for output in outputs if isinstance(output, str)}


def notices_to_client(notices: Iterable[Notice]) -> dict[str, Any]:
    return {"notices": [{"type": notice.code, "message": notice.message} for notice in notices]}


def submit_as_admin(request: RuleInput) -> RuleGenerator:
    """An admin's workflow: rebuilt, so that it cannot hurt ComfyUI itself, and otherwise as it came."""
    judged, body, left_out = yield Work(partial(_prepare_as_admin, request), len(request.raw))
    if request.minted_id:
        yield NameJob(judged.prompt_id or request.minted_id)
    reply = yield UpstreamCall("POST", PROMPT, body=body, content_type=JSON_TYPE)
    answer = ClientReply(reply.status, reply.body, reply.content_type)
    if judged.notices and isinstance(reply.value, dict):
        node_errors = reply.value.get("node_errors")
        everything = {**judged.node_errors, **(node_errors if isinstance(node_errors, dict) else {})}
        shown = reply.value | {"node_errors": everything} | notices_to_client(judged.notices)
        answer = ClientReply(reply.status, shown)
    return told(answer, left_out)


def _prepare_as_admin(request: RuleInput) -> tuple[JudgedPrompt, bytes, tuple[str, ...]]:
    check_parts(request.raw, request.max_parts)
    raw, left_out = check_document(request.credentials, request.raw, request.max_parts)
    document = parse_json(raw)
    place = _read_place(document)
    judged = judge_document(document, ADMIN_POLICY, request.context.catalogue)
    prompt_id = check_prompt_id(judged.prompt_id)
    if prompt_id is not None:
        # SECURITY: a place in ComfyUI's queue belongs to one job: a client names the number or the id, never both
        # (test_prompt.py::test_an_admin_cannot_queue_two_equal_places).
        place.pop("number", None)
        place["prompt_id"] = prompt_id
    elif request.minted_id:
        # With a number too: an id of the gate's own making is nobody else's.
        place["prompt_id"] = request.minted_id
    return judged, orjson.dumps(document_of(judged, judged.client_id) | place), left_out


def _read_place(document: Any) -> dict[str, Any]:
    """`number` and `front` of an admin, each of the type that ComfyUI means."""
    place: dict[str, Any] = {}
    if isinstance(document, dict):
        number = document.get("number")
        if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number):
            place["number"] = number
        if document.get("front") is True:
            place["front"] = True
    return place


def refusal_to_client(reply: UpstreamReply, context: RuleContext, node_errors: Mapping[str, Any]) -> dict[str, Any]:
    """ComfyUI's refusal of a workflow, in its shape and the client's names. node_errors: as they are shown."""
    error = reply.value.get("error") if isinstance(reply.value, dict) else None
    if not isinstance(error, dict):
        error = {
            "type": "upstream_error",
            "message": "ComfyUI could not take this workflow.",
            "details": f"It answered {reply.status}.",
            "extra_info": {},
        }
    return {"error": scrub(error, context.names), "node_errors": node_errors}


def node_errors_to_client(node_errors: Any, context: RuleContext, nodes: Mapping[str, Any]) -> dict[str, Any]:
    """`{node id: {errors, dependent_outputs, class_type}}` without server paths, and without lists of everybody's files. nodes: as ComfyUI got them."""
    shown: dict[str, Any] = {}
    for node_id, entry in (node_errors if isinstance(node_errors, dict) else {}).items():
        if not isinstance(entry, dict):
            continue
        node = nodes.get(node_id)
        inputs = node["inputs"] if node else {}
        node_class = context.catalogue.get(node["class_type"]) if node else None
        shown[node_id] = {
            "errors": [_error_to_client(error, context, node_class, inputs) for error in _dicts(entry.get("errors"))],
            "dependent_outputs": scrub(entry.get("dependent_outputs"), context.names),
            "class_type": scrub(entry.get("class_type"), context.names),
        }
    return shown


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _error_to_client(
    error: dict[str, Any], context: RuleContext, node_class: NodeClass | None, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    extra = error.get("extra_info")
    extra = dict(extra) if isinstance(extra, dict) else {}
    name = extra.get("input_name")
    is_list_told = node_class is not None and name in node_class.inputs and name not in file_inputs(node_class, inputs)
    shown = {**error, "extra_info": extra}
    if not is_list_told:
        # "image: 'x.png' not in ['a.png', 'b.png']": the choices of a file input are what lies in ComfyUI's own folders.
        extra.pop("input_config", None)
        for key in ("details", "message"):
            if isinstance(error.get(key), str) and " not in " in error[key]:
                shown[key] = error[key].partition(" not in ")[0] + " is not in the list"
    scrubbed: dict[str, Any] = scrub(shown, context.names)
    return scrubbed
