"""A tenant's workflow on its way to ComfyUI: read, judged, and written in the tenant's names. All of it that takes time with large workflows is here."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final

import orjson

from policy.call import ClaimJob, UpstreamPath
from policy.document import check_parts
from policy.judge import JudgedPrompt, judge
from policy.keyform import check_document
from policy.patience import Patience
from policy.prompt_ids import is_prompt_id
from policy.rule_context import RuleContext, RuleInput
from policy.rules.dispatch import at_first
from policy.rules.results import UNNAMED_CLIENT
from policy.surely_valid import is_surely_valid
from policy.values import value
from policy.violation import Reason, Violation
from policy.workflow import Notice
from policy.workflow_files import IN_TEMP, find_temp_files, rewrite_nodes
from policy.workflow_needs import find_needs

_CLASS_OF: Final = attrgetter("class_type")


@value
class Prepared:
    """A judged workflow as ComfyUI gets it, and what is to be known of it afterwards. Its nodes are bytes by now.

    body: the call's, but for the id and the place in the queue, which policy.rules.prompt.body_for adds. originals: see policy.rules.jobs.submitted_item.
    outputs: ids of the output nodes that were asked for. left_out: see policy.keyform.check_document. is_sure: ComfyUI will find nothing wrong.
    temp_files: see policy.workflow_files.find_temp_files. needs: see JobExtras.
    """

    body: bytes
    originals: bytes
    wish: ClaimJob
    outputs: list[str]
    node_errors: Mapping[str, Any]
    notices: tuple[Notice, ...]
    left_out: tuple[str, ...]
    is_sure: bool = False
    temp_files: tuple[UpstreamPath, ...] = ()
    needs: bytes = b""


def prepare(request: RuleInput, patience: Patience) -> Prepared:
    """Raises TooMuch, and Violation for what is malformed, not permitted, or holds a credential."""
    judged, left_out = read_and_judge(request, patience)
    return write(judged, request.context, patience, left_out)


def read_and_judge(request: RuleInput, patience: Patience) -> tuple[JudgedPrompt, tuple[str, ...]]:
    """The workflow, and what was left out of its document. Raises as `prepare`."""
    check_parts(request.raw, request.max_parts)
    # SECURITY: what goes on to ComfyUI may go on from there, to other services and into files (tests/security/test_misplaced_keys.py).
    raw, left_out = check_document(request.credentials, request.raw, request.max_parts)
    return judge(raw, request.context.policy, request.context.catalogue, patience), left_out


def write(judged: JudgedPrompt, context: RuleContext, patience: Patience, left_out: tuple[str, ...] = ()) -> Prepared:
    """judged: its nodes become what ComfyUI gets. Raises TooMuch, Violation(policy-violation)."""
    originals = rewrite_nodes(judged.nodes, judged.plans, context, patience)
    client_id = context.names.client_id_to_upstream(judged.client_id or UNNAMED_CLIENT)
    chosen, plans = judged.partial_execution_targets, judged.plans
    is_whole = not judged.node_errors and not judged.notices
    outputs = [node_id for node_id, plan in plans.items() if plan.is_output]
    outputs = outputs if chosen is None else [node_id for node_id in outputs if node_id in chosen]
    classes = set(map(_CLASS_OF, plans.values()))
    # Which inputs the rows of custom nodes have written anew is not in the plans.
    unproven = judged.unproven if classes.isdisjoint(context.id_inputs) else None
    body, needs, moved = orjson.dumps(document_of(judged, client_id)), b"", tuple[Notice, ...]()
    if context.is_placed:
        found = find_needs(judged.nodes, plans, outputs, context, patience)
        (body, moved), needs = at_first(body, found), found.to_bytes()
    return Prepared(
        body=body,
        originals=orjson.dumps(originals),
        wish=ClaimJob(
            check_prompt_id(judged.prompt_id),
            judged.workflow_hash,
            judged.priority,
            tuple(sorted(classes)),
            judged.client_id or "",
            needs,
        ),
        outputs=outputs,
        node_errors=judged.node_errors,
        notices=judged.notices + moved,
        left_out=left_out,
        is_sure=is_whole
        and context.catalogue.differing.isdisjoint(classes)
        and is_surely_valid(judged.nodes, plans, outputs, unproven),
        temp_files=find_temp_files(judged.nodes, context) if IN_TEMP in body else (),
        needs=needs,
    )


def check_prompt_id(prompt_id: str | None) -> str | None:
    """A client's own id. Raises Violation for one that ComfyUI would not take."""
    if prompt_id is None or is_prompt_id(prompt_id):
        return prompt_id
    raise Violation(
        Reason.WORKFLOW_MALFORMED,
        "prompt_id must be a UUID in lower case with hyphens; leave it out to get one.",
        "prompt_id",
    )


def document_of(judged: JudgedPrompt, client_id: str | None) -> dict[str, Any]:
    """The body of the call, but for the id and the place in the queue. extra_data names the client too: both spellings mean the owner."""
    document: dict[str, Any] = {"prompt": judged.nodes, "extra_data": dict(judged.extra_data)}
    if client_id is not None:
        document["client_id"] = client_id
        document["extra_data"]["client_id"] = client_id
    if judged.partial_execution_targets is not None:
        document["partial_execution_targets"] = list(judged.partial_execution_targets)
    return document
