"""Refusals in the API's envelope: `{"error": {"code", "message", "details"}}`. The SDKs choose the exception that they raise by `code`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policy.violation import Reason, Violation

MAX_MESSAGE_CHARACTERS: Final = 256
"""The SDKs show no more of a message; what is longer stands in `details` too."""

_BY_TYPE: Final[Mapping[str, tuple[int, str]]] = {
    "policy_violation": (403, "forbidden"),
    "scope_missing": (403, "forbidden"),
    "admins_only": (403, "forbidden"),
    "route_refused": (403, "forbidden"),
    "origin_foreign": (403, "forbidden"),
    "file_type_refused": (403, "forbidden"),
    "workflow_malformed": (422, "invalid_workflow"),
    # What ComfyUI says of workflows, in whose words the gate says it too.
    "prompt_outputs_failed_validation": (422, "invalid_workflow"),
    "prompt_no_outputs": (422, "invalid_workflow"),
    "missing_node_type": (422, "invalid_workflow"),
    "route_unlisted": (404, "not_found"),
    "not_found": (404, "not_found"),
    "job_not_found": (404, "job_not_found"),
    "asset_not_found": (404, "asset_not_found"),
    "asset_invalid": (422, "invalid_request"),
    "blob_not_found": (404, "blob_not_found"),
    "body_malformed": (400, "invalid_request"),
    "query_malformed": (400, "invalid_request"),
    "path_malformed": (400, "invalid_request"),
    "header_malformed": (400, "invalid_request"),
    "credential_misplaced": (400, "invalid_request"),
    "prompt_id_taken": (422, "invalid_request"),
    "nowhere_to_run": (422, "invalid_request"),
    "method_not_allowed": (405, "invalid_request"),
    "name_refused": (422, "invalid_request"),
    "body_too_large": (413, "payload_too_large"),
    "picture_too_large": (413, "payload_too_large"),
    "storage_full": (507, "storage_full"),
    "missing_asset": (422, "missing_asset"),
    "hash_mismatch": (409, "hash_mismatch"),
    "asset_in_use": (409, "asset_in_use"),
    "metadata_invalid": (422, "metadata_invalid"),
    "metadata_filter_invalid": (400, "invalid_metadata_filter"),
    "cursor_malformed": (400, "invalid_cursor"),
    "idempotency_key_reused": (422, "idempotency_key_reuse"),
    "queue_full": (429, "queue_full"),
    "budget_spent": (402, "insufficient_credits"),
    "too_many_websockets": (429, "too_many_streams"),
    "upstream_unavailable": (503, "upstream_error"),
    "upstream_timeout": (504, "upstream_error"),
}
_BY_STATUS: Final = {
    401: "unauthorized",
    402: "insufficient_credits",
    403: "forbidden",
    404: "not_found",
    408: "invalid_request",
    413: "payload_too_large",
    429: "rate_limited",
    500: "internal_error",
    502: "upstream_error",
    503: "service_unavailable",
    504: "upstream_error",
}
UI_FORMAT: Final = "ui-format"
"""Of a workflow as a whole: it is an export of the web UI's own format."""


def in_words(gate_type: str, status: int, general: frozenset[str] = frozenset()) -> tuple[int, str]:
    """Status and code of the contract. gate_type: the gate's own word, which stands in `details` besides. general: see Refusal.general."""
    if gate_type == "workflow_malformed" and UI_FORMAT in general:
        return 422, "workflow_format_ui"
    return _BY_TYPE.get(gate_type) or (status, _BY_STATUS.get(status, "invalid_request"))


def no_job(*, is_v2: bool = True) -> Violation:
    """Of a job that is not there, or another tenant's. is_v2: the contract has a word of its own for it."""
    words = "There is no such job of yours."
    return Violation(Reason.NOT_FOUND, words, error_type="job_not_found" if is_v2 else None)


def envelope(
    code: str,
    message: str,
    *,
    gate_type: str,
    request_id: str = "",
    details: str = "",
    node_errors: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The body of a refusal. `details` is an object, since the SDKs drop any other."""
    told: dict[str, Any] = {"type": gate_type}
    if request_id:
        told["request_id"] = request_id
    if details:
        told["details"] = details
    if node_errors:
        told["node_errors"] = dict(node_errors)
    if len(message) > MAX_MESSAGE_CHARACTERS:
        told["message"] = message
    return {"error": {"code": code, "message": message, "details": told}}
