"""Routes of custom nodes that answer a node which waits for a person: only while that node runs in a job of the caller's own.

What these packs hear they keep for whichever node asks next, so an answer that comes too early or too late would be a neighbour's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from policy.call import Opaque, UpstreamCall
from policy.document import parse_json
from policy.forms import FORM_TYPE, read_form, write_form
from policy.rule_context import RuleInput
from policy.violation import Reason, Violation

JSON_TYPE: Final = "application/json"


@dataclass(frozen=True, slots=True)
class OwnJob:
    """node: the field that names the node; "" where the body names none. document: the field of a form that holds JSON with it.

    absent: fields that may not be given. cancel: the one body that names no node, and ends whatever wait there is.
    """

    is_form: bool
    node: str
    document: str
    absent: tuple[str, ...]
    cancel: Mapping[str, str]

    def __call__(self, request: RuleInput) -> UpstreamCall:
        form = read_form(request.raw) if self.is_form else None
        message = self._message(form if form is not None else request.document)
        self._check_node(message, request)
        for name in self.absent:
            if message.get(name):
                raise Violation(Reason.BODY_MALFORMED, f"`{name}` is not accepted here.")
        segments = tuple(map(Opaque, request.call.segments))
        if form is None:
            return UpstreamCall("POST", segments, body=orjson.dumps(message), content_type=JSON_TYPE)
        sent = {**form, self.document: orjson.dumps(message).decode()} if self.document else message
        return UpstreamCall("POST", segments, body=write_form(sent), content_type=FORM_TYPE)

    def _message(self, body: Any) -> dict[str, Any]:
        """The object that names the node."""
        if self.document:
            body = parse_json(body.get(self.document, "").encode())
        if not isinstance(body, dict):
            raise Violation(Reason.BODY_MALFORMED, "Send an object that names the node which waits.")
        return dict(body)

    def _check_node(self, message: Mapping[str, Any], request: RuleInput) -> None:
        """SECURITY: a neighbour's node has the same id as often as not (tests/policy/rules/test_own_job.py)."""
        running = request.context.jobs.running_nodes()
        is_of_any = not self.node or (self.cancel and message == self.cancel)
        if not (running if is_of_any else str(message.get(self.node)) in running):
            raise Violation(
                Reason.NOT_FOUND,
                "No job of yours waits at this node. Keep a WebSocket open under the job's client id: the gate sees there which node runs.",
                self.node,
            )
