"""What operations are made of: parameters, answers, bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policy.functions.delivery import MAX_WAIT_S
from policy.idempotency import MAX_KEY_CHARACTERS
from policy.openapi.refusals import REQUEST_ID, Refusals
from policy.openapi.schemas import Schema
from policy.rules.function_outputs import MAX_INLINE_BYTES

JSON: Final = "application/json"
STREAM: Final = "text/event-stream"
BYTES: Final = "application/octet-stream"

ON_DISCONNECT: Final = {
    "name": "on_disconnect",
    "in": "query",
    "schema": {"enum": ["continue", "cancel"], "default": "continue"},
    "description": "What becomes of the job when the client leaves before its answer has ended.",
}
INLINE: Final = {
    "name": "inline",
    "in": "query",
    "schema": {"type": "integer", "minimum": 0, "maximum": MAX_INLINE_BYTES, "default": 0},
    "description": "Files of so many bytes at most are told within the answer, as `data` of the outputs, in base64; of all files 8 MiB at most.",
}
PREFER: Final = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "example": "wait=60",
    "description": f"`wait=60` (RFC 7240): answer when the job has ended, or after so many seconds; {MAX_WAIT_S} at most.",
}
_KEY_WORDS: Final = "Any text, in double quotes or bare. The same request with the same key within 24 hours "
# As policy/idempotency.py reads it.
_BARE: Final = f"[!#-~][ -~]{{0,{MAX_KEY_CHARACTERS - 1}}}"
_QUOTED: Final = f'"(?:[ !#-\\[\\]-~]|\\\\["\\\\]){{1,{MAX_KEY_CHARACTERS}}}"(?: *;[ -~]*)?'
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": f"^(?:{_BARE}|{_QUOTED})$"},
}
REPLAYED_KEY: Final = {**_KEY, "description": f"{_KEY_WORDS}is answered about the same job."}
SINGLE_USE_KEY: Final = {**_KEY, "description": f"{_KEY_WORDS}is refused."}
_ETAG: Final = {"ETag": {"schema": {"type": "string"}}}
PLAIN_TEXT: Final[Schema] = {"type": "string", "pattern": r"^(?!\.{1,2}$)[^\x00-\x1f\x7f/\\]+$"}
"""As a segment of a path is: policy/call.py takes no other."""
_EVENTS: Final[Schema] = {
    "type": "object",
    "properties": {
        "event": {"enum": ["status", "progress", "preview", "output"]},
        "data": {"type": "string", "contentMediaType": JSON},
    },
    "description": "Server-sent events, each with JSON as `data`: `status`, `progress`, `preview` (a picture in base64), `output`. All outputs come "
    "before the last `status`, which ends the stream. A comment comes at least every 15 seconds.",
}


def path_parameter(name: str, words: str, schema: Schema) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": schema,
        "description": words,
    }


def query_parameter(name: str, words: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": words}


def answer(words: str, schema: Schema, **headers: str) -> dict[str, Any]:
    """A JSON answer. headers: by name, with `_` for `-`, what each says."""
    return {"description": words, "headers": _headers(headers), "content": {JSON: {"schema": schema}}}


def streamed(words: str) -> dict[str, Any]:
    return {"description": words, "headers": REQUEST_ID, "content": {STREAM: {"schema": _EVENTS}}}


def file_answers(words: str) -> dict[str, Any]:
    """Of a file: whole, a range of it, nothing new."""
    any_bytes: dict[str, Any] = {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
    return {
        "200": {"description": words, "headers": {**_ETAG, **REQUEST_ID}, **any_bytes},
        "206": {"description": "A range of it (RFC 9110, 14).", "headers": {**_ETAG, **REQUEST_ID}, **any_bytes},
        "304": {"description": "It is as the client has it.", "headers": _ETAG},
        "412": {"description": "It is not as the client wants it (If-Match, If-Unmodified-Since)."},
        "416": {"description": "It has no such range."},
    }


def operation(
    name: str,
    tag: str,
    summary: str,
    responses: Mapping[str, Any],
    refusals: Refusals,
    error: str = "Error",
    **more: Any,
) -> dict[str, Any]:
    """An operation. error: the schema of its refusals. more: parameters, requestBody, description."""
    shown = {**responses, **refusals.responses(error)}
    ordered = {status: shown[status] for status in sorted(shown)}
    return {"operationId": name, "tags": [tag], "summary": summary, **more, "responses": ordered}


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    own = {
        name.replace("_", "-"): {"schema": {"type": "string"}, "description": words} for name, words in headers.items()
    }
    return {**own, **REQUEST_ID}


def json_body(schema: Schema) -> dict[str, Any]:
    return {"required": True, "content": {JSON: {"schema": schema}}}


def job_links() -> dict[str, Any]:
    """From an answer with a job to what one may ask about it."""
    follow = {"parameters": {"job_id": "$response.body#/id"}}
    return {
        "job": {"operationId": "read_job", **follow},
        "events": {"operationId": "follow_job", **follow},
        "cancel": {"operationId": "cancel_job", **follow},
        "output": {
            "operationId": "read_output",
            "parameters": {"job_id": "$response.body#/id", "name": "$response.body#/outputs/0/node_id"},
        },
    }
