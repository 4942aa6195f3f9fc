"""POST /prompt: the judged workflow goes on rebuilt, in the tenant's names, under an id that the gate owns before ComfyUI sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from policy.call import ClaimJob, ClientReply, JobUpdate, ReleaseJob, RuleGenerator, UpstreamReply, Work
from policy.catalogue import NodeClass
from policy.document import parse_json
from policy.file_uses import file_inputs
from policy.judge import ADMIN_POLICY, JudgedPrompt, judge, judge_document
from policy.prompt_ids import is_prompt_id
from policy.rule_context import RuleContext, RuleInput
from policy.rules.jobs import json_call, keep_submitted
from policy.rules.results import UNNAMED_CLIENT, scrub
from policy.violation import Reason, Violation
from policy.workflow_files import rewrite_nodes


def submit(request: RuleInput) -> RuleGenerator:
    """A tenant's workflow. When ComfyUI refuses it the job is released; when no answer comes, whoever sends knows whether it may run."""
    context = request.context
    # SECURITY: a node may have 80,000 inputs (test_prompt.py::test_names_are_written_beside_the_event_loop).
    judged, nodes = yield Work(partial(_judge_and_rewrite, request.raw, context), len(request.raw))
    client_id = context.names.client_id_to_upstream(judged.client_id or UNNAMED_CLIENT)
    classes = tuple(sorted({node["class_type"] for node in nodes.values()}))
    waits = judged.client_id or ""
    claimed = yield ClaimJob(_check_prompt_id(judged.prompt_id), judged.workflow_hash, judged.priority, classes, waits)
    document = _document(judged, nodes, client_id) | {"prompt_id": claimed.prompt_id, "number": claimed.number}
    reply = yield json_call("POST", ("prompt",), document)
    if reply.status != 200:
        yield ReleaseJob(claimed.prompt_id)
        return refusal_to_client(reply, context, judged)
    node_errors = reply.value.get("node_errors") if isinstance(reply.value, dict) else None
    outputs = _outputs(judged, nodes, node_errors, context)
    extra = document["extra_data"] | {"create_time": claimed.created_ms}
    # SECURITY: what `GET /queue` shows of it is kept, since ComfyUI's own list holds everybody's (policy/rules/jobs.py, queue).
    keep = partial(keep_submitted, claimed.prompt_id, claimed.number, judged.nodes, extra, outputs, context.names)
    shown = yield Work(keep, len(request.raw))
    body = {
        "prompt_id": claimed.prompt_id,
        "number": context.jobs.place_of(claimed.prompt_id),
        "node_errors": node_errors_to_client(node_errors, context, judged),
    }
    return ClientReply(
        body=body | notices_to_client(judged),
        updates=(JobUpdate(claimed.prompt_id, documents=(shown,)),),
    )


def _judge_and_rewrite(raw: bytes, context: RuleContext) -> tuple[JudgedPrompt, dict[str, dict[str, Any]]]:
    """The judged workflow in the client's names, and its nodes as ComfyUI gets them."""
    judged = judge(raw, context.policy, context.catalogue)
    rewrite_nodes(judged.nodes, judged.plans, context)
    return judged, judged.nodes


def notices_to_client(judged: JudgedPrompt) -> dict[str, Any]:
    """What was left out of a workflow, beside ComfyUI's own fields; nothing when nothing was."""
    if not judged.notices:
        return {}
    return {"notices": [{"type": notice.code, "message": notice.message} for notice in judged.notices]}


def _outputs(judged: JudgedPrompt, nodes: Mapping[str, Any], node_errors: Any, context: RuleContext) -> list[str]:
    """The nodes that ComfyUI will run a workflow for: its outputs, those that the client chose, without those that are wrong."""
    entries = node_errors.values() if isinstance(node_errors, Mapping) else ()
    listed = [entry.get("dependent_outputs") for entry in entries if isinstance(entry, Mapping)]
    wrong = {output for outputs in listed if isinstance(outputs, list) for output in outputs if isinstance(output, str)}
    chosen = judged.partial_execution_targets
    known = context.catalogue.classes
    classes = {
        name for name in {node["class_type"] for node in nodes.values()} if name in known and known[name].is_output_node
    }
    return [
        node_id
        for node_id, node in nodes.items()
        if node["class_type"] in classes and node_id not in wrong and (chosen is None or node_id in chosen)
    ]


def submit_as_admin(request: RuleInput) -> RuleGenerator:
    """An admin's workflow: rebuilt, so that it cannot hurt ComfyUI itself, and otherwise as it came."""
    document = parse_json(request.raw)
    place = _read_place(document)
    judged = judge_document(document, ADMIN_POLICY, request.context.catalogue)
    prompt_id = _check_prompt_id(judged.prompt_id)
    if prompt_id is not None:
        # SECURITY: a place in ComfyUI's queue belongs to one job: a client names the number or the id, never both
        # (test_prompt.py::test_an_admin_cannot_queue_two_equal_places).
        place.pop("number", None)
        place["prompt_id"] = prompt_id
    sent = _document(judged, judged.nodes, judged.client_id) | place
    reply = yield json_call("POST", ("prompt",), sent)
    if judged.notices and isinstance(reply.value, dict):
        node_errors = reply.value.get("node_errors")
        everything = {**judged.node_errors, **(node_errors if isinstance(node_errors, dict) else {})}
        return ClientReply(reply.status, reply.value | {"node_errors": everything} | notices_to_client(judged))
    return ClientReply(reply.status, reply.body, reply.content_type)


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


def _check_prompt_id(prompt_id: str | None) -> str | None:
    """A client's own id. Raises Violation for one that ComfyUI would not take."""
    if prompt_id is None or is_prompt_id(prompt_id):
        return prompt_id
    raise Violation(
        Reason.WORKFLOW_MALFORMED,
        "prompt_id must be a UUID in lower case with hyphens; leave it out to get one.",
        "prompt_id",
    )


def _document(judged: JudgedPrompt, nodes: Mapping[str, Any], client_id: str | None) -> dict[str, Any]:
    """The body of the call, but for the id and the place in the queue. extra_data names the client too: both spellings mean the owner."""
    document: dict[str, Any] = {"prompt": nodes, "extra_data": dict(judged.extra_data)}
    if client_id is not None:
        document["client_id"] = client_id
        document["extra_data"]["client_id"] = client_id
    if judged.partial_execution_targets is not None:
        document["partial_execution_targets"] = list(judged.partial_execution_targets)
    return document


def refusal_to_client(reply: UpstreamReply, context: RuleContext, judged: JudgedPrompt) -> ClientReply:
    """ComfyUI's refusal of a workflow, in its shape and the client's names."""
    value = reply.value if isinstance(reply.value, dict) else {}
    error = value.get("error")
    if not isinstance(error, dict):
        error = {
            "type": "upstream_error",
            "message": "ComfyUI could not take this workflow.",
            "details": f"It answered {reply.status}.",
            "extra_info": {},
        }
    body = {
        "error": scrub(error, context.names),
        "node_errors": node_errors_to_client(value.get("node_errors"), context, judged),
    }
    return ClientReply(reply.status, body | notices_to_client(judged))


def node_errors_to_client(node_errors: Any, context: RuleContext, judged: JudgedPrompt) -> dict[str, Any]:
    """`{node id: {errors, dependent_outputs, class_type}}` without server paths, and without lists of everybody's files; with what the
    gate found itself."""
    nodes = judged.nodes
    shown: dict[str, Any] = dict(judged.node_errors)
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
