"""Routes of custom nodes that answer a node which waits for a person: only while that node runs in a job of the caller's own.

What these packs hear they keep for whichever node asks next, so an answer that comes too early or too late would be a neighbour's.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson

from policy.call import AnswerNode, ClientReply, Effect, Opaque, RuleGenerator, UpstreamCall, Work
from policy.document import parse_json
from policy.documents import Document
from policy.forms import FORM_TYPE, read_form, write_form
from policy.reply_texts import clean_reply
from policy.rule_context import RuleInput
from policy.rules.jobs import read_items
from policy.violation import Reason, Violation

JSON_TYPE: Final = "application/json"


@dataclass(frozen=True, slots=True)
class OwnJob:
    """classes: of the nodes that wait. node: the field that names the node; "" where the body names none.

    document: the field of a form that holds JSON with it. absent: fields that may not be given. cancel: the one body that names no
    node, and ends whatever wait there is. unsent: the one body that would clear what all tenants' nodes wait for: the page is answered,
    and nothing is sent on. first: the first segment of the route's own paths.
    """

    is_form: bool
    classes: frozenset[str]
    node: str
    document: str
    absent: tuple[str, ...]
    cancel: Mapping[str, str]
    unsent: Mapping[str, str]
    first: str

    def __call__(self, request: RuleInput) -> RuleGenerator:
        message, call = self._call(request)
        if self.unsent and message == self.unsent:
            return ClientReply(body={})
        waiting = yield from self._find_waiting(message, request)
        if waiting is None:
            raise _nothing_waits(self.node)
        if self.node:  # where no node is named, the page says several things to one that waits
            # SECURITY: a second answer, sent while the node goes on with the first, would stay for the next one
            # (tests/matrix/test_custom_routes.py).
            yield waiting
        reply = yield call
        return clean_reply(reply, request.context.names, self.first)

    def _call(self, request: RuleInput) -> tuple[Mapping[str, Any], UpstreamCall]:
        """What is said to the node, and the call that says it."""
        form = read_form(request.raw) if self.is_form else None
        message = self._message(form if form is not None else request.document)
        for name in self.absent:
            if message.get(name):
                raise Violation(Reason.BODY_MALFORMED, f"`{name}` is not accepted here.")
        segments = tuple(map(Opaque, request.call.segments))
        if form is None:
            return message, UpstreamCall("POST", segments, body=orjson.dumps(message), content_type=JSON_TYPE)
        sent = {**form, self.document: orjson.dumps(message).decode()} if self.document else message
        return message, UpstreamCall("POST", segments, body=write_form(sent), content_type=FORM_TYPE)

    def _message(self, body: Any) -> dict[str, Any]:
        """The object that names the node."""
        if self.document:
            body = parse_json(body.get(self.document, "").encode())
        if not isinstance(body, dict):
            raise Violation(Reason.BODY_MALFORMED, "Send an object that names the node which waits.")
        return dict(body)

    def _find_waiting(
        self, message: Mapping[str, Any], request: RuleInput
    ) -> Generator[Effect, Any, AnswerNode | None]:
        """The node that the body names, when a job of the caller's own is at it, and it is one that waits.

        SECURITY: a neighbour's node has the same id as often as not, and what a node does not wait for stays for the next one
        (tests/matrix/test_custom_routes.py).
        """
        is_of_any = not self.node or (self.cancel and message == self.cancel)
        for prompt_id, nodes in request.context.jobs.running_nodes().items():
            asked = [node for node in nodes if is_of_any or node == str(message.get(self.node))]
            if asked:
                graph = yield from _graph_of(prompt_id, request)
                # SECURITY: reading it takes its turn, and the node may have got its answer meanwhile
                # (test_own_job.py::test_a_node_that_has_been_left_meanwhile_is_not_answered).
                now = request.context.jobs.running_nodes().get(prompt_id, ())
                found = [node for node in asked if node in now and _class_of(graph, node) in self.classes]
                if found:
                    return AnswerNode(prompt_id, found[0])
        return None


def _graph_of(prompt_id: str, request: RuleInput) -> Generator[Effect, Any, Any]:
    """What a running job is made of, as it was submitted."""
    items, _ = yield from read_items(request.context, [prompt_id])
    item = items.get(prompt_id)
    return {} if item is None else (yield Work(partial(_read_graph, item), item.size))


def _read_graph(item: Document) -> Any:
    return orjson.loads(item.numbered(0))[2]


def _class_of(graph: Any, node_id: str) -> Any:
    node = graph.get(node_id) if isinstance(graph, dict) else None
    return node.get("class_type") if isinstance(node, dict) else None


def _nothing_waits(field: str) -> Violation:
    return Violation(
        Reason.NOT_FOUND,
        "No job of yours waits at this node. Keep a WebSocket open under the job's client id: the gate sees there which node runs.",
        field,
    )
