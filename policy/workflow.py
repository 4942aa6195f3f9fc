"""The shape of a submitted workflow, and the words for everything that can be wrong with one. Trusts nothing of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from types import NoneType
from typing import Any, Final, NoReturn

import orjson

from policy import values
from policy.violation import Reason, Violation

MAX_NODE_ID_LENGTH: Final = 128
MAX_ERRORS: Final = 500
MAX_SHOWN_LENGTH: Final = 80
MAX_NAMED: Final = 5

# ComfyUI takes any text. Ids of subgraph nodes read "12:3", ids of expanded ones "5.0.0.1"; people and scripts write what they like.
_NODE_ID = rf"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{{1,{MAX_NODE_ID_LENGTH}}}\n"
_NODE_IDS = re.compile(rf"(?:{_NODE_ID})*")
_CREDENTIALS = ("auth_token_comfy_org", "api_key_comfy_org")
_MAX_CREDENTIAL_LENGTH = 8192
# ComfyUI sets the time itself, the gate the client id.
_GATES_OWN = frozenset({"client_id", "create_time"})
_MAX_KEPT = 32
_MAX_KEPT_LENGTH = 1000
# PNG, 11.3.4.2: 1 to 79 printable Latin-1 characters. Other names would fail the node that saves.
_PNG_KEYWORD = re.compile(r"[A-Za-z0-9_.-][A-Za-z0-9_. -]{0,77}")


class NodeReason(StrEnum):
    """What is wrong with a workflow; docs/policy.md says it in full. The code is the `type` of an error in `node_errors`."""

    # The document is malformed: 400.
    BODY_NOT_OBJECT = "body-not-object"
    PROMPT_MISSING = "prompt-missing"
    UI_FORMAT = "ui-format"
    PROMPT_EMPTY = "prompt-empty"
    FIELD_MALFORMED = "field-malformed"
    NODE_ID_REFUSED = "node-id-refused"
    NODE_MALFORMED = "node-malformed"
    CLASS_TYPE_MALFORMED = "class-type-malformed"
    INPUTS_MISSING = "inputs-missing"
    LITERAL_MALFORMED = "literal-malformed"
    LITERAL_FOR_LINK = "literal-for-link"
    # Links to nowhere spoil the outputs that need them; named here beside what the policy does not permit.
    LINK_MALFORMED = "link-malformed"
    LINK_NODE_MISSING = "link-node-missing"
    LINK_OUTPUT_MISSING = "link-output-missing"
    # The policy does not permit it: 403.
    CATALOGUE_UNKNOWN = "catalogue-unknown"
    PROMPT_TOO_LARGE = "prompt-too-large"
    TOO_MANY_NODES = "too-many-nodes"
    GRAPH_TOO_DEEP = "graph-too-deep"
    CLASS_NOT_PERMITTED = "class-not-permitted"
    INPUT_UNDECLARED = "input-undeclared"
    INPUT_LINKED = "input-linked"
    INPUT_MISSING = "input-missing"
    VALUE_OF_OTHER_TYPE = "value-of-other-type"
    VALUE_TOO_SMALL = "value-too-small"
    VALUE_TOO_LARGE = "value-too-large"
    VALUE_NOT_A_MULTIPLE = "value-not-a-multiple"
    VALUE_NOT_ALLOWED = "value-not-allowed"
    VALUE_DENIED = "value-denied"
    VALUE_TOO_LONG = "value-too-long"
    BUDGET_EXCEEDED = "budget-exceeded"
    WORKFLOW_NOT_PINNED = "workflow-not-pinned"


MALFORMED: Final = frozenset(
    {
        NodeReason.BODY_NOT_OBJECT,
        NodeReason.PROMPT_MISSING,
        NodeReason.UI_FORMAT,
        NodeReason.PROMPT_EMPTY,
        NodeReason.FIELD_MALFORMED,
        NodeReason.NODE_ID_REFUSED,
        NodeReason.NODE_MALFORMED,
        NodeReason.CLASS_TYPE_MALFORMED,
        NodeReason.INPUTS_MISSING,
        NodeReason.LITERAL_MALFORMED,
        NodeReason.LITERAL_FOR_LINK,
    }
)

UI_FORMAT_MESSAGE: Final = (
    "This is the web UI's save format. Export the API format and send that: in the web UI's menu, Export (API) or "
    "Save (API Format)."
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a value is not accepted. `allowed` is words for the client."""

    reason: NodeReason
    found: Any
    allowed: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something of a workflow that ComfyUI does not get, told to the client beside the answer. code: kebab; message: one sentence."""

    code: str
    message: str


@dataclass(slots=True)
class Findings:
    """Collects what is wrong with the nodes of one workflow, in ComfyUI's shape of `node_errors`."""

    node_errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    reasons: list[NodeReason] = field(default_factory=list)
    general: list[str] = field(default_factory=list)

    def add_general(self, code: NodeReason, text: str) -> None:
        """Something wrong with the workflow as a whole."""
        self.reasons.append(code)
        self.general.append(f"{code.value}: {text}")

    def add_field(self, name: str, wanted: str) -> None:
        self.add_general(NodeReason.FIELD_MALFORMED, f"`{name}` must be {wanted}, or left out")

    def add(self, node_id: str, class_type: str, input_name: str | None, message: str, fault: Fault) -> None:
        """One error of a node; `input_name` None when it is the node itself. At most 500 are kept."""
        if len(self.reasons) >= MAX_ERRORS:
            return
        self.reasons.append(fault.reason)
        found = shorten(fault.found)
        details = ", ".join(part for part in (input_name, f"found {found}", f"allowed: {fault.allowed}") if part)
        extra = {"received_value": found, "allowed": fault.allowed}
        if input_name is not None:
            extra["input_name"] = input_name
        entry = self.node_errors.setdefault(node_id, {"errors": [], "dependent_outputs": [], "class_type": class_type})
        entry["errors"].append(
            {"type": fault.reason.value, "message": message, "details": details, "extra_info": extra}
        )

    def raise_if_any(self) -> None:
        """Raises Violation with all of them: malformed (400) when the document is wrong in itself, else refused by the policy (403)."""
        if not self.reasons:
            return
        is_malformed = not MALFORMED.isdisjoint(self.reasons)
        parts = list(self.general)
        for node_id, entry in self.node_errors.items():
            parts.append(f"node {node_id}: {entry['errors'][0]['details']}")
        more = f" (and {len(self.reasons) - MAX_NAMED} more)" if len(self.reasons) > MAX_NAMED else ""
        if is_malformed:
            reason, message = Reason.WORKFLOW_MALFORMED, "The workflow is malformed: correct what is named."
        else:
            reason, message = Reason.POLICY_VIOLATION, "The policy does not permit this workflow: see what is named."
        raise Violation(
            reason,
            message,
            "; ".join(parts[:MAX_NAMED]) + more,
            node_errors=self.node_errors,
            general=tuple((code, words) for code, _, words in (text.partition(": ") for text in self.general)),
        )


def refuse(code: NodeReason, message: str, details: str = "") -> NoReturn:
    """Raises Violation for what concerns the workflow as a whole. The code stands first in `details`."""
    reason = Reason.WORKFLOW_MALFORMED if code in MALFORMED else Reason.POLICY_VIOLATION
    found = f"{code.value}: {details}" if details else code.value
    raise Violation(reason, message, found, general=((code.value, message),))


def shorten(value: Any) -> str:
    """A value as text for an error: at most 80 characters, whatever came."""
    if isinstance(value, str):
        text = value if len(value) <= MAX_SHOWN_LENGTH else value[:MAX_SHOWN_LENGTH] + "…"
        return f"'{text}'"
    if type(value) is dict or type(value) is list:
        return f"{'an object' if type(value) is dict else 'a list'} of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)[:MAX_SHOWN_LENGTH]


def is_link(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and type(value[0]) is str and type(value[1]) is int


def find_bad_ids(nodes: Mapping[str, Any]) -> list[str]:
    """Node ids that are empty, longer than 128 characters, or hold control characters."""
    # One match over all ids costs a tenth of one for each.
    text = "\n".join(nodes) + "\n"
    if text.count("\n") == len(nodes) and _NODE_IDS.fullmatch(text):
        return []
    return [node_id for node_id in nodes if not _NODE_IDS.fullmatch(node_id + "\n") or "\n" in node_id]


def read_prompt(body: Any) -> dict[str, Any]:
    """The graph of a body of `POST /prompt`: a non-empty object. Raises Violation(workflow-malformed)."""
    if type(body) is not dict:
        refuse(NodeReason.BODY_NOT_OBJECT, 'Send a JSON object: {"prompt": {…}}.')
    if is_ui_format(body):
        refuse(NodeReason.UI_FORMAT, UI_FORMAT_MESSAGE)
    prompt = body.get("prompt")
    if type(prompt) is not dict or _is_graph(prompt.get("prompt")):
        hint = ""
        if _is_graph(body):
            hint = "the body is a workflow in the API format: put it under the key prompt"
        elif type(prompt) is dict:
            hint = "there is a body of its own under the key prompt: send that, or what stands under its key prompt"
        refuse(NodeReason.PROMPT_MISSING, 'The body needs a workflow in the API format: {"prompt": {…}}.', hint)
    if is_ui_format(prompt):
        refuse(NodeReason.UI_FORMAT, UI_FORMAT_MESSAGE)
    if not prompt:
        refuse(NodeReason.PROMPT_EMPTY, "The workflow has no nodes.")
    return prompt


def _is_graph(value: Any) -> bool:
    return (
        type(value) is dict
        and value != {}
        and all(type(node) is dict and "class_type" in node for node in value.values())
    )


def rebuild_node(node: dict[str, Any], class_type: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """The node itself where it has nothing else. SECURITY: ComfyUI believes some other keys, as what its cache says of the node
    (execution.py, IsChangedCache; test_judge.py::test_other_keys_of_a_node_are_left_out)."""
    meta = node.get("_meta")
    is_titled = type(meta) is dict and type(meta.get("title", "")) is str
    if len(node) == 2 + is_titled:
        return node
    rebuilt = {"class_type": class_type, "inputs": inputs}
    return rebuilt | {"_meta": meta} if is_titled else rebuilt


def nodes_of(document: Any) -> Any:
    """The nodes of a workflow in the API format, which stands alone in a file, or under `prompt` as it is submitted; of anything else itself."""
    prompt = document.get("prompt") if isinstance(document, dict) else None
    return prompt if isinstance(prompt, dict) and "class_type" not in prompt else document


def is_ui_format(value: Any) -> bool:
    """The web UI's save format: lists of nodes and links, instead of nodes by id."""
    return type(value) is dict and type(value.get("nodes")) is list


@values.value
class Fields:
    """The body's other fields, each of the right type. notices: what was left out of them."""

    client_id: str | None
    prompt_id: str | None
    priority: float
    targets: tuple[str, ...] | None
    extra_data: dict[str, Any]
    credentials: dict[str, str]
    notices: tuple[Notice, ...]


def read_fields(body: dict[str, Any], findings: Findings) -> Fields:
    """Reads what is known. `number` and `front` are the gate's own, and ComfyUI reads nothing else.

    SECURITY: another type is a finding, since ComfyUI trusts these fields (test_upstream_rule.py::test_what_passes_holds_the_rule).
    """
    extra = body.get("extra_data")
    if extra is None:
        extra = {}
    elif type(extra) is not dict:
        findings.add_field("extra_data", "an object")
        extra = {}
    client_id = _read_client_id(body, findings)
    if client_id is None:
        client_id = _read_client_id(extra, findings)
    priority = body.get("priority")
    if priority is not None and type(priority) is not int and type(priority) is not float:
        findings.add_field("priority", "a number")
        priority = None
    extra_data, credentials, left_out = _read_extra_data(extra)
    notices = []
    if left_out:
        named = ", ".join(name[:MAX_SHOWN_LENGTH] for name in left_out[:MAX_NAMED])
        notices.append(
            Notice("extra-data-left-out", f"Left out of extra_data, since ComfyUI has no use for it: {named}.")
        )
    return Fields(
        client_id=client_id,
        prompt_id=_read_text(body, "prompt_id", findings),
        priority=float(priority or 0),
        targets=_read_targets(body.get("partial_execution_targets"), findings),
        extra_data=extra_data,
        credentials=credentials,
        notices=tuple(notices),
    )


def _read_client_id(container: dict[str, Any], findings: Findings) -> str | None:
    """A text, or a number as its text: sockets have texts for ids, so a number would be nobody's."""
    value = container.get("client_id")
    if type(value) is int or type(value) is float:
        return str(value)
    return _read_text(container, "client_id", findings)


def _read_text(container: dict[str, Any], name: str, findings: Findings) -> str | None:
    value = container.get(name)
    if value is None or type(value) is str:
        return value
    findings.add_field(name, "a string")
    return None


def _read_targets(value: Any, findings: Findings) -> tuple[str, ...] | None:
    if value is None:
        return None
    # ComfyUI takes a string too, and then runs every node whose id is part of it.
    if type(value) is not list or not all(type(target) is str for target in value):
        findings.add_field("partial_execution_targets", "a list of ids of nodes of this workflow")
        return None
    return tuple(value)


def _read_extra_data(extra: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """What is kept, credentials of paid services, and the names of what is left out.

    ComfyUI's job list takes it for granted that `extra_pnginfo` is an object, its `workflow` too, and the id of that a text
    (comfy_execution/jobs.py). What else lies in `extra_pnginfo` is written into pictures. Unknown texts and numbers are kept:
    clients name their jobs in them.
    """
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    credentials: dict[str, str] = {}
    for name, value in extra.items():
        if name in _CREDENTIALS:
            if type(value) is str and len(value) <= _MAX_CREDENTIAL_LENGTH:
                credentials[name] = value
        elif name == "extra_pnginfo":
            kept |= {} if value is None else _read_pnginfo(value, left_out)
        elif name not in _GATES_OWN:
            if (
                type(value) in (str, int, float, bool)
                and len(kept) < _MAX_KEPT
                and len(f"{name}{value}") <= _MAX_KEPT_LENGTH
            ):
                kept[name] = value
            elif value is not None:
                left_out.append(name)
    return kept, credentials, left_out


def _read_pnginfo(value: Any, left_out: list[str]) -> dict[str, Any]:
    if type(value) is not dict or ("workflow" in value and type(value["workflow"]) not in (dict, NoneType)):
        left_out.append("extra_pnginfo")
        return {}
    kept = {name: item for name, item in value.items() if item is not None and _PNG_KEYWORD.fullmatch(name)}
    left_out.extend(f"extra_pnginfo.{name}" for name in value if name not in kept and value[name] is not None)
    workflow = kept.get("workflow")
    if workflow is not None and type(workflow.get("id", "")) is not str:
        kept["workflow"] = {name: item for name, item in workflow.items() if name != "id"}
        left_out.append("extra_pnginfo.workflow.id")
    return {"extra_pnginfo": kept} if kept else {}


def hash_shape(shape: list[tuple[str, Any]]) -> str:
    """A short stable name for workflows that cost alike."""
    return blake2b(orjson.dumps(shape), digest_size=16).hexdigest()
