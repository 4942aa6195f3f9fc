"""What is kept of a refusal: which nodes, which inputs, why, and who said no. Words of the gate and of the policy; no text of a workflow, no credential."""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

from policy.call import ClientReply
from policy.principal import Principal
from proxy.http.errors import Refusal
from proxy.http.request_record import RequestRecord

MAX_VIOLATIONS: Final = 20
"""Of one refusal: a record is a few kilobytes, whatever was sent."""
MAX_RECENT: Final = 20
"""Refusals of one tenant that `/gate/me` shows."""
MAX_TENANTS: Final = 1000
_MAX_NAME: Final = 100
_MAX_WORDS: Final = 300
# Names of nodes and inputs are the client's: one that has the form of a key of the gate is not kept.
_KEY = re.compile(r"cg_[0-9a-f]{8,32}_[A-Za-z0-9_-]*")
_NUMBER = re.compile(r"-?[0-9.]{1,30}(?:e[+-]?[0-9]{1,4})?")
_NOT_KEPT: Final = frozenset({"not-found", "client-gone", "upstream-unavailable", "upstream-timeout", "internal-error"})

By = Literal["gate", "comfyui"]


def describe(refusal: Refusal) -> dict[str, Any]:
    """A refusal of the gate's for the audit trail: `by`, and `violations`, each with node, class, input, reason and message.

    Where one is about a number, `found` holds it; `allowed` is the policy's own words. What concerns the workflow as a whole has no node.
    """
    found = list(_of_nodes(refusal.node_errors, _gates_bound))
    found += [_violation(reason=code, message=text) for code, text in refusal.general]
    return _record("gate", found or [_violation(reason=refusal.reason, message=refusal.message)])


def describe_comfyuis(reply: ClientReply) -> dict[str, Any]:
    """The same for a workflow that ComfyUI itself refused; empty for an answer that is no refusal in its shape."""
    body = _read(reply.body) if reply.status >= 400 else None
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(error, dict):
        return {}
    node_errors = body.get("node_errors")
    found = list(_of_nodes(node_errors if isinstance(node_errors, dict) else {}, _comfyuis_bound))
    reason = _name(error.get("type"))
    whole = _violation(reason=reason, message=error.get("message"))
    return {**_record("comfyui", found or [whole]), "reason": reason}


def _read(body: Any) -> Any:
    """An admin gets ComfyUI's answer as it came: bytes."""
    if not isinstance(body, bytes):
        return body
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _record(by: By, violations: list[dict[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {"by": by, "violations": violations[:MAX_VIOLATIONS]}
    if len(violations) > MAX_VIOLATIONS:
        record["more_violations"] = len(violations) - MAX_VIOLATIONS
    return record


def _of_nodes(node_errors: Mapping[str, Any], bound_of: Any) -> Iterator[dict[str, Any]]:
    for node_id, entry in node_errors.items():
        errors = entry.get("errors") if isinstance(entry, dict) else None
        for error in (item for item in errors if isinstance(item, dict)) if isinstance(errors, list) else ():
            extra = error.get("extra_info")
            extra = extra if isinstance(extra, dict) else {}
            violation = _violation(
                node_id, entry.get("class_type"), extra.get("input_name"), error.get("type"), error.get("message")
            )
            number = str(extra.get("received_value", ""))
            if _NUMBER.fullmatch(number):
                violation["found"] = number
            if bound := bound_of(error, extra):
                violation["allowed"] = _words(bound)
            yield violation


def _gates_bound(error: Mapping[str, Any], extra: Mapping[str, Any]) -> str:
    return str(extra.get("allowed", ""))


def _comfyuis_bound(error: Mapping[str, Any], extra: Mapping[str, Any]) -> str:
    """ComfyUI tells the declaration of the input: `["INT", {"min": 1, "max": 100}]` (execution.py, validate_inputs)."""
    declared = extra.get("input_config")
    options = declared[1] if isinstance(declared, list | tuple) and len(declared) > 1 else None
    if not isinstance(options, dict):
        return ""
    match error.get("type"):
        case "value_bigger_than_max":
            return f"at most {options.get('max')}"
        case "value_smaller_than_min":
            return f"at least {options.get('min')}"
    return ""


def _violation(
    node: Any = None, class_type: Any = None, input_name: Any = None, reason: Any = "", message: Any = ""
) -> dict[str, Any]:
    return {
        "node": None if node is None else _name(node),
        "class": None if class_type is None else _name(class_type),
        "input": None if input_name is None else _name(input_name),
        "reason": _name(reason),
        "message": _words(message),
    }


def _name(value: Any) -> str:
    return _KEY.sub("cg_…", str(value))[:_MAX_NAME]


def _words(value: Any) -> str:
    return _KEY.sub("cg_…", str(value))[:_MAX_WORDS]


class RecentRefusals:
    """The last refusals of each tenant, in memory, newest first: what `/gate/me` shows. Bounded by tenants and by refusals of each."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, deque[dict[str, Any]]] = OrderedDict()

    def add(self, record: RequestRecord) -> None:
        """Keeps a request that was refused to somebody known. The same one again is counted, so that a poll does not push others out."""
        principal, notes = record.principal, record.notes
        if principal is None or "violations" not in notes or record.reason in _NOT_KEPT:
            return
        kept = self._of.setdefault(principal.tenant, deque(maxlen=MAX_RECENT))
        self._of.move_to_end(principal.tenant)
        if len(self._of) > MAX_TENANTS:
            self._of.popitem(last=False)
        what = {
            "route": record.route,
            "status": record.status,
            "reason": record.reason or notes.get("reason", ""),
            "by": notes["by"],
            "violations": notes["violations"],
            "more_violations": notes.get("more_violations", 0),
        }
        count = 1
        if kept and all(kept[0][name] == value for name, value in what.items()) and _is_same(kept[0], principal):
            count = kept.popleft()["count"] + 1
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        who = {"subject": principal.subject, "is_admin": principal.is_admin}
        kept.appendleft({"time": now, "request_id": record.request_id, "count": count, **what, **who})

    def of(self, principal: Principal) -> list[dict[str, Any]]:
        """What this caller may see: its tenant's; of what an admin was refused only an admin learns."""
        kept = self._of.get(principal.tenant, ())
        return [
            {name: value for name, value in entry.items() if name not in ("subject", "is_admin")}
            for entry in kept
            if principal.is_admin or not entry["is_admin"]
        ]


def _is_same(entry: Mapping[str, Any], principal: Principal) -> bool:
    return (entry["subject"], entry["is_admin"]) == (principal.subject, principal.is_admin)
