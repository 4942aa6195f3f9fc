"""Which refusals an operation may be answered with: status and `type`, as proxy/http/errors.py gives them (tests/openapi/test_refusals.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policy.openapi.schemas import ref
from policy.v2.errors import in_words
from policy.values import value

RETRY: Final = {"Retry-After": {"schema": {"type": "integer", "minimum": 0}, "description": "Seconds."}}
REQUEST_ID: Final = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "By which the operator finds the request in the log."}
}
_CHALLENGE: Final = {"WWW-Authenticate": {"schema": {"type": "string"}}}
_SAYS_WHEN: Final = frozenset({409, 429, 502, 503})
TITLES: Final = {
    400: "The request is not well-formed, or the workflow is not sound.",
    401: "No credential, or one that is not good.",
    402: "The GPU seconds are used up.",
    403: "Not permitted.",
    404: "Not there, or another tenant's: the two are not told apart.",
    406: "The job made nothing of such a type, or has failed.",
    408: "The body came too slowly.",
    409: "The first request with this Idempotency-Key has no answer yet.",
    413: "Too large.",
    416: "The file has no such range.",
    422: "An argument is not accepted, and nothing was run; or an output cannot be given in the form that the function says.",
    429: "Too many, or too much at once.",
    500: "The gate failed.",
    502: "ComfyUI does not answer.",
    503: "Not now.",
    504: "ComfyUI took too long.",
    507: "The storage quota is used up.",
}


@value
class Refusals:
    """types: of each status; () where they are too many to name, or ComfyUI's own."""

    types: Mapping[int, tuple[str, ...]]

    def __or__(self, other: Refusals) -> Refusals:
        merged = dict(self.types)
        for status, types in other.types.items():
            known = merged.get(status, types)
            merged[status] = tuple(dict.fromkeys(known + types)) if known and types else ()
        return Refusals(merged)

    def responses(self, error: str = "Error") -> dict[str, Any]:
        """By status. error: the schema of their bodies; those of the API v2 have words of their own."""
        if error == "V2Error":
            return {str(status): _v2_response(status, codes) for status, codes in sorted(self._codes().items())}
        return {str(status): _response(status, self.types[status]) for status in sorted(self.types)}

    def _codes(self) -> dict[int, tuple[str, ...]]:
        """Of the API v2, by its statuses."""
        found: dict[int, dict[str, None]] = {}
        for status, types in self.types.items():
            for each in types or ("",):
                there, code = in_words(each, status)
                found.setdefault(there, {})[code] = None
        return {status: tuple(codes) for status, codes in found.items()}


ALWAYS: Final = Refusals(
    {
        400: ("request_malformed", "path_malformed", "query_malformed", "header_malformed", "credential_misplaced"),
        401: (),
        403: ("scope_missing", "route_refused"),
        429: ("rate_limited", "too_many_requests", "too_many_documents", "logins_failing"),
        500: ("internal_error",),
        503: ("gate_stopping", "no_connections_left", "token_keys_unavailable", "database_unavailable"),
    }
)
CHANGES: Final = Refusals({403: ("origin_foreign",)})
"""Of what is no reading: a page of another site may not send it with the browser's session."""
NAMED: Final = Refusals({404: ("not_found",)})
ASKS_COMFYUI: Final = Refusals(
    {502: ("upstream_unavailable",), 503: ("upstream_unavailable",), 504: ("upstream_timeout",)}
)
FOLLOWS: Final = Refusals({429: ("too_many_websockets",)})
HAS_BODY: Final = Refusals(
    {408: ("body_timeout",), 413: ("body_too_large",), 429: ("bodies_full",)},
)
GIVES_FILE: Final = ASKS_COMFYUI | Refusals(
    {404: ("asset_not_found",), 422: ("conversion_failed",), 429: ("conversion_pending",)}
)
HOLDS_FILES: Final = Refusals({429: ("bodies_full",)})
"""Files stand within the answer, where that is asked for."""
SUBMITS: Final = (
    CHANGES
    | HAS_BODY
    | ASKS_COMFYUI
    | Refusals(
        {
            400: (),  # ComfyUI's own words are among them
            403: ("policy_violation", "file_type_refused"),
            413: ("picture_too_large",),
            429: ("queue_full", "budget_spent"),
            503: ("upstream_busy", "idempotency_unavailable"),
            507: ("storage_full",),
        }
    )
)
CALLS: Final = (
    SUBMITS
    | GIVES_FILE
    | NAMED
    | Refusals(
        {
            406: ("not_acceptable",),
            409: ("idempotency_key_in_use",),
            422: ("argument_refused", "idempotency_key_reused"),
            429: ("too_many_fetches",),
        }
    )
)


def _response(status: int, types: tuple[str, ...]) -> dict[str, Any]:
    narrowed = {"properties": {"error": {"properties": {"type": {"enum": list(types)}}}}}
    return _refused(status, {"allOf": [ref("Error"), narrowed]} if types else dict(ref("Error")))


def _v2_response(status: int, codes: tuple[str, ...]) -> dict[str, Any]:
    narrowed = {"properties": {"error": {"properties": {"code": {"enum": list(codes)}}}}}
    return _refused(status, {"allOf": [ref("V2Error"), narrowed]})


def _refused(status: int, schema: dict[str, Any]) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if status == 401:
        headers = _CHALLENGE
    elif status in _SAYS_WHEN:
        headers = RETRY
    return {
        "description": TITLES[status],
        "headers": {**headers, **REQUEST_ID},
        "content": {"application/json": {"schema": schema}},
    }
