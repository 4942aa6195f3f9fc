"""Settings of the web UI: a file in the tenant's userdata, since ComfyUI keeps one file for all. Read, changed and written as ComfyUI does it."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, Final

from policy.call import ClientReply, Opaque, RuleGenerator, UpstreamCall, UpstreamReply
from policy.rule_context import RuleInput
from policy.rules.jobs import EMPTY, JSON_TYPE, passed
from policy.rules.userdata import SETTINGS_FILE
from policy.violation import Reason, Violation

MAX_SETTINGS_BYTES: Final = 1024 * 1024

_Reading = Generator[UpstreamCall, UpstreamReply, "dict[str, Any] | ClientReply"]


def get_all(request: RuleInput) -> RuleGenerator:
    """GET /settings: `{}` for a new tenant."""
    settings = yield from _read(request)
    return settings if isinstance(settings, ClientReply) else ClientReply(body=settings)


def get_one(request: RuleInput) -> RuleGenerator:
    """GET /settings/{id}: null when it is not set."""
    settings = yield from _read(request)
    if isinstance(settings, ClientReply):
        return settings
    # As JSON text: the reply's body may be null, false or a text.
    return ClientReply(body=json.dumps(settings.get(request.call.parameters["id"])).encode())


def set_all(request: RuleInput) -> RuleGenerator:
    """POST /settings: merges an object into the settings."""
    if not isinstance(request.document, dict):
        raise Violation(Reason.BODY_MALFORMED, "Send a JSON object of settings.")
    return (yield from _change(request, request.document))


def set_one(request: RuleInput) -> RuleGenerator:
    """POST /settings/{id}: any JSON value, null too. An empty body is none: so a browser sends a value that is undefined."""
    if not request.raw:
        raise Violation(Reason.BODY_MALFORMED, 'Send the setting\'s value as JSON: null, true, 5, "text".')
    return (yield from _change(request, {request.call.parameters["id"]: request.document}))


def _call(request: RuleInput, method: str, body: bytes | None = None) -> UpstreamCall:
    path = request.context.names.userdata_to_upstream(SETTINGS_FILE)
    return UpstreamCall(method, (Opaque("userdata"), path), body=body, content_type=JSON_TYPE if body else None)


def _read(request: RuleInput) -> _Reading:
    reply = yield _call(request, "GET")
    if reply.status == 404:
        return {}
    if reply.status != 200:
        return passed(reply)
    return reply.value if isinstance(reply.value, dict) else {}


def _change(request: RuleInput, changes: dict[str, Any]) -> RuleGenerator:
    settings = yield from _read(request)
    if isinstance(settings, ClientReply):
        return settings
    body = json.dumps({**settings, **changes}, allow_nan=False, indent=4).encode()
    if len(body) > MAX_SETTINGS_BYTES:
        raise Violation(Reason.BODY_TOO_LARGE, f"All settings together have at most {MAX_SETTINGS_BYTES} bytes.")
    reply = yield _call(request, "POST", body)
    return EMPTY if reply.status == 200 else passed(reply)
