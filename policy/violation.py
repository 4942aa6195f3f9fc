"""Refusals as typed values: a reason for logs and metrics, words for the client. Which status a reason gets is proxy/http/errors.py's."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Why a call was refused. The code stands in the log, the metric and the answer's `type`."""

    ROUTE_UNLISTED = "route-unlisted"
    ROUTE_REFUSED = "route-refused"
    ADMINS_ONLY = "admins-only"
    SCOPE_MISSING = "scope-missing"
    ORIGIN_FOREIGN = "origin-foreign"
    PATH_MALFORMED = "path-malformed"
    QUERY_MALFORMED = "query-malformed"
    HEADER_MALFORMED = "header-malformed"
    BODY_MALFORMED = "body-malformed"
    BODY_TOO_LARGE = "body-too-large"
    NAME_REFUSED = "name-refused"
    CREDENTIAL_MISPLACED = "credential-misplaced"
    FILE_TYPE_REFUSED = "file-type-refused"
    PICTURE_TOO_LARGE = "picture-too-large"
    STORAGE_FULL = "storage-full"
    NOT_FOUND = "not-found"
    WORKFLOW_MALFORMED = "workflow-malformed"
    PROMPT_ID_TAKEN = "prompt-id-taken"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"
    POLICY_VIOLATION = "policy-violation"
    NOWHERE_TO_RUN = "nowhere-to-run"
    ARGUMENT_REFUSED = "argument-refused"
    NOT_ACCEPTABLE = "not-acceptable"
    CONVERSION_FAILED = "conversion-failed"
    MISSING_ASSET = "missing-asset"
    HASH_MISMATCH = "hash-mismatch"
    ASSET_IN_USE = "asset-in-use"
    METADATA_INVALID = "metadata-invalid"
    METADATA_FILTER_INVALID = "metadata-filter-invalid"
    CURSOR_MALFORMED = "cursor-malformed"


class Violation(Exception):
    """A call that policy refuses.

    message: one sentence for the client that says what to do. details: what was found. Neither may name another tenant.
    node_errors: ComfyUI's shape, so that the web UI marks the nodes. general: (code, sentence) of what concerns a workflow as a whole.
    error_type: ComfyUI's own word, where the refusal is one that ComfyUI would have given in the same way; extra_info: what goes with it.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        details: str = "",
        *,
        node_errors: Mapping[str, Any] | None = None,
        general: tuple[tuple[str, str], ...] = (),
        error_type: str | None = None,
        extra_info: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(reason, message, details)
        self.reason = reason
        self.message = message
        self.details = details
        self.node_errors: Mapping[str, Any] = node_errors or {}
        self.general = general
        self.error_type = error_type
        self.extra_info: Mapping[str, Any] = extra_info or {}
