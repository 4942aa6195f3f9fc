"""/api/v2/jobs: a tenant's jobs as Comfy-Org's SDKs see them. They are the same jobs as everywhere else, whichever door they came in by."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Generator, Mapping
from functools import partial
from typing import Any, Final

import orjson

from policy.call import NO_EXTRAS, ClientReply, Effect, JobExtras, RuleGenerator, Work
from policy.document import check_parts, parse_json
from policy.keyform import check_document
from policy.left_out import told, told_unknown
from policy.patience import AT_ONCE_BYTES
from policy.prompt_ids import is_prompt_id
from policy.rule_context import RuleContext, RuleInput
from policy.rules import prompt
from policy.rules.jobs import read_entry, read_items
from policy.rules.results import SDK_CLIENT
from policy.templates.recurring import Again
from policy.v2.assets import Asset, find_references, may_have_references, name_in_workflow, resolve
from policy.v2.effects import After, CancelJob, FindAssets, JobPage, ListJobs, ReadJob
from policy.v2.errors import envelope, no_job
from policy.v2.jobs import JobView, Status, job_to_client, row_to_client, write_job
from policy.v2.labels import read_filters, read_labels
from policy.values import value
from policy.violation import Reason, Violation

MAX_LISTED: Final = 100
LISTED: Final = 50
_RESERVED: Final = ("inputs", "webhook_url")
_MEMBERS: Final = frozenset({"workflow", "metadata", "extra_data"})
_EXTRA: Final = "api_key_comfy_org"
_BEFORE: Final = b'{"workflow":'
_OF_PROMPT: Final = ("prompt", "client_id")
_CLOSE: Final = (b'{"prompt":', b',"client_id":"%s"}' % SDK_CLIENT.encode())
"""What stands before and behind the workflow in a body of POST /prompt; of a client that writes no spaces, or one behind each colon and comma."""
_SPACED: Final = (b'{"prompt":', b', "client_id": "%s"}' % SDK_CLIENT.encode())


@value
class Submission:
    """What a client asks for. workflow: as it was sent, with assets in it. unknown: names of members that mean nothing here.
    is_alone: the document has no other member."""

    workflow: Any
    labels: Mapping[str, str]
    extra_data: Mapping[str, Any]
    references: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    is_alone: bool = False


_PLAIN: Final = Submission(None, {}, {}, (), is_alone=True)
"""Of a workflow alone, which need not be read."""


def submit(request: RuleInput) -> RuleGenerator:
    """POST /api/v2/jobs. 201: the job is on disk."""
    if (found := _find_again(request)) is not None:
        asked, (asking, again) = _PLAIN, found
        preparing = partial(prompt.prepared_of, asking, again.prepare)
        reply = yield from prompt.submit_prepared(request.context, preparing, NO_EXTRAS)
    else:
        asked = yield Work(partial(_read, request), len(request.raw))
        names: dict[str, str] = {}
        if asked.references:
            assets: Mapping[str, Asset] = yield FindAssets(asked.references)
            names = {asset_id: name_in_workflow(asset) for asset_id, asset in assets.items()}
        native = yield Work(partial(_native, asked, names, request), len(request.raw))
        reply = yield from prompt.submit(_asking(request, native), JobExtras(asked.labels, asked.references))
    if reply.status != 200:
        return _refused(reply)
    job = yield ReadJob(reply.body["prompt_id"], asked.labels)
    shown = job_to_client(
        job or _just_submitted(reply.body["prompt_id"], asked, request.context), request.context.links
    )
    # ComfyUI runs what of a workflow is sound: what is not is told, in its own words.
    shown |= {key: reply.body[key] for key in ("node_errors", "notices") if reply.body.get(key)}
    return told_unknown(
        told(ClientReply(201, shown, headers=reply.headers, updates=reply.updates), asked.left_out), asked.unknown
    )


def _asking(request: RuleInput, native: bytes) -> RuleInput:
    """The same as POST /prompt asks it."""
    return RuleInput(
        request.call, request.context, raw=native, credentials=request.credentials, max_parts=request.max_parts
    )


def _find_again(request: RuleInput) -> tuple[RuleInput, Again] | None:
    """A body that has a workflow alone, which came before with other values: how POST /prompt asks it, and what is known of it.

    SECURITY: what came before had this very text around its workflow, so that nothing but one workflow stands there (test_v2_jobs_again.py).
    """
    recurring, raw = request.context.recurring, request.raw
    if recurring is None or len(raw) > AT_ONCE_BYTES or may_have_references(raw):
        return None
    native = _as_prompt(raw)
    if native is None:
        return None
    asking = _asking(request, native)
    again = recurring.find(asking)
    return None if again is None or again.workflow.members != _OF_PROMPT else (asking, again)


def _as_prompt(raw: bytes) -> bytes | None:
    """The workflow of a body that has nothing else, as it was spelled, in one of POST /prompt; None where there may be more."""
    if not raw.startswith(_BEFORE) or not raw.endswith(b"}"):
        return None
    before, behind = _SPACED if raw.startswith(b" ", len(_BEFORE)) else _CLOSE
    return b"".join((before, memoryview(raw)[len(_BEFORE) : -1], behind))


def _read(request: RuleInput) -> Submission:
    """Raises Violation for what is no submission, or one that nobody takes."""
    check_parts(request.raw, request.max_parts)
    # SECURITY: what goes on to ComfyUI may go on from there (tests/security/test_misplaced_keys.py); labels are shown again.
    raw, left_out = check_document(request.credentials, request.raw, request.max_parts)
    document = parse_json(raw, max_parts=request.max_parts)
    if not isinstance(document, dict):
        raise Violation(Reason.BODY_MALFORMED, 'The body must be a JSON object: {"workflow": {…}}.')
    for name in _RESERVED:
        if name in document:
            raise Violation(Reason.WORKFLOW_MALFORMED, f"`{name}` is reserved, and not taken here: leave it out.", name)
    if "workflow" not in document:
        raise Violation(Reason.WORKFLOW_MALFORMED, "Send the workflow, in API format, as `workflow`.", "workflow")
    workflow = document["workflow"]
    return Submission(
        workflow,
        read_labels(document.get("metadata")),
        _read_extra(document.get("extra_data")),
        tuple(find_references(workflow)) if may_have_references(raw) else (),
        left_out,
        tuple(name for name in document if name not in _MEMBERS),
        len(document) == 1,
    )


def _read_extra(extra: Any) -> dict[str, Any]:
    """A closed object: the client's key of paid services, or nothing."""
    if extra is None:
        return {}
    if (
        not isinstance(extra, dict)
        or set(extra) - {_EXTRA}
        or not all(isinstance(text, str) for text in extra.values())
    ):
        raise Violation(Reason.WORKFLOW_MALFORMED, f"`extra_data` holds nothing but `{_EXTRA}`.", "extra_data")
    return extra


def _native(asked: Submission, names: Mapping[str, str], request: RuleInput) -> bytes:
    """The same as a body of POST /prompt: the policy judges the file names that stand for assets."""
    if asked.is_alone and not asked.references:
        # As it was spelled, so that it is known when it comes again: it was read, and has no member twice.
        native, most = _as_prompt(request.raw), request.context.policy.max_prompt_bytes
        if native is not None and (most is None or len(native) <= most):
            return native
    workflow = resolve(asked.workflow, names) if asked.references else asked.workflow
    document: dict[str, Any] = {"prompt": workflow, "client_id": SDK_CLIENT}
    if asked.extra_data:
        document["extra_data"] = dict(asked.extra_data)
    return orjson.dumps(document)


def _refused(reply: ClientReply) -> ClientReply:
    """ComfyUI's verdict. Raises Violation for a workflow that it does not take."""
    error = reply.body.get("error") if isinstance(reply.body, dict) else None
    error = error if isinstance(error, dict) else {}
    if reply.status == 503:  # busy for the moment: the SDKs try that again when it is said like this
        body = envelope("queue_full", str(error.get("message", "")), gate_type=str(error.get("type", "")))
        return ClientReply(429, body, headers=reply.headers)
    if reply.status >= 500:  # no verdict
        body = envelope("upstream_error", str(error.get("message", "")), gate_type="upstream_error")
        return ClientReply(503, body, headers=(("Retry-After", "5"),))
    node_errors = reply.body.get("node_errors") if isinstance(reply.body, dict) else None
    raise Violation(
        Reason.WORKFLOW_MALFORMED,
        str(error.get("message") or "ComfyUI does not take this workflow."),
        str(error.get("details") or error.get("type") or ""),
        node_errors=node_errors if isinstance(node_errors, Mapping) else None,
    )


def _just_submitted(prompt_id: str, asked: Submission, context: RuleContext) -> JobView:
    """Of a job that is gone already, deleted by its own tenant, or cannot be read in this moment."""
    now_s = context.now.timestamp()
    return JobView(prompt_id, Status.QUEUED, now_s, now_s, labels=asked.labels)


def read(request: RuleInput, job: JobView | None) -> ClientReply:
    """GET /api/v2/jobs/{id}."""
    return ClientReply(body=write_job(_there(job), request.context.links))


def cancel(request: RuleInput) -> RuleGenerator:
    """POST /api/v2/jobs/{id}/cancel. What has ended stays as it ended."""
    job = yield CancelJob(request.call.parameters["job_id"])
    return ClientReply(body=job_to_client(_there(job), request.context.links))


def workflow(request: RuleInput) -> RuleGenerator:
    """GET /api/v2/jobs/{id}/workflow: in the tenant's names, with the files that stand for assets."""
    prompt_id = request.call.parameters["job_id"]
    graph = (yield from _graph_of(request.context, prompt_id)) if request.context.jobs.owns(prompt_id) else None
    if graph is None:
        _there((yield ReadJob(prompt_id)))
        raise Violation(Reason.NOT_FOUND, "The workflow is not kept of a job that was canceled before it began.")
    return ClientReply(body={"workflow": graph, "format": "api"})


def _graph_of(context: RuleContext, prompt_id: str) -> Generator[Effect, Any, Any]:
    """None where it is not kept: of a job that was canceled before it began."""
    if prompt_id in (*context.jobs.running(), *context.jobs.pending()):
        items, _ = yield from read_items(context, [prompt_id])
        if prompt_id in items:
            item = yield Work(partial(_loaded, items[prompt_id]), items[prompt_id].size)
            return item[2]
    entry, _ = yield from read_entry(context, prompt_id)
    if entry is None:
        return None
    shown = yield Work(partial(_loaded, entry), entry.size)
    return shown["prompt"][2]


def _loaded(document: Any) -> Any:
    return orjson.loads(document.numbered(0))


def list_jobs(request: RuleInput) -> RuleGenerator:
    """GET /api/v2/jobs: the newest first."""
    call = request.call
    page: JobPage = yield ListJobs(
        _read_statuses(call.first("status")),
        read_filters(call.query),
        _read_limit(call.first("limit")),
        _read_cursor(call.first("cursor")),
    )
    body = {"jobs": [row_to_client(job) for job in page.jobs], "next_cursor": page.next and write_cursor(page.next)}
    return ClientReply(body=body)


def _read_statuses(text: str | None) -> frozenset[Status]:
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    unknown = [word for word in words if word not in tuple(Status)]
    if unknown:
        names = ", ".join(Status)
        raise Violation(Reason.QUERY_MALFORMED, f"`status` takes {names}, separated by commas.", unknown[0][:64])
    return frozenset(map(Status, words))


def _read_limit(text: str | None) -> int:
    if text is None:
        return LISTED
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not 1 <= int(text) <= MAX_LISTED:
        raise Violation(Reason.QUERY_MALFORMED, f"`limit` must be a whole number from 1 to {MAX_LISTED}.")
    return int(text)


def write_cursor(place: After) -> str:
    """Opaque to clients. It holds nothing of another tenant's: a time and an id of one's own."""
    return base64.urlsafe_b64encode(orjson.dumps([place.created_at_s, place.prompt_id])).decode().rstrip("=")


def _read_cursor(text: str | None) -> After | None:
    if not text:
        return None
    try:
        found = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error):
        found = None
    match found:
        case [int() | float() as at_s, str() as prompt_id] if is_prompt_id(prompt_id) and math.isfinite(at_s):
            return After(float(at_s), prompt_id)
    raise Violation(Reason.CURSOR_MALFORMED, "This cursor is none of this list: begin without one.", "cursor")


def _there(job: JobView | None) -> JobView:
    if job is None:
        raise no_job()
    return job
