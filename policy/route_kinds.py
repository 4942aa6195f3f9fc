"""Rows of the route table out of data: what each kind of route of a custom node means, in the words of policy/routes.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from policy.call import ClientReply, UpstreamReply
from policy.custom_routes import Kind, RouteSettings
from policy.path_patterns import API, is_parameter
from policy.principal import Scope
from policy.reply_texts import MAX_BYTES, clean_reply, is_read
from policy.routes import (
    PATIENT_S,
    AdminOnly,
    Body,
    Budget,
    Caching,
    CleanReply,
    Deny,
    MultiCall,
    Prefix,
    Rewrite,
    Route,
    TenantRule,
    always,
)
from policy.rule_context import RuleInput
from policy.rules.own_file import OwnFile
from policy.rules.own_id import OwnId
from policy.rules.own_job import OwnJob
from policy.rules.shared import SharedRead, StaticFile

MAX_ANSWER_BYTES: Final = 1024**2
"""Of what a page answers to a node that waits, but for a row that says otherwise."""
_FOR_ADMINS: Final = "it acts on the whole server"
_FOR_NOBODY: Final = "the gate opens it to nobody"


def make_routes(row: RouteSettings, origin: str) -> tuple[Route, ...]:
    """The rows of one entry, one for each of its methods. origin: the pack or the line that it comes from."""
    return tuple(_MAKERS[row.kind](row, method, origin) for method in row.methods)


def _route(row: RouteSettings, method: str, origin: str, needs: Scope, tenant: TenantRule, **more: Any) -> Route:
    pattern = row.pattern
    prefix = Prefix.BOTH if row.doubled else Prefix.BARE
    if pattern[0] == API:
        pattern = pattern[1:]
        prefix = Prefix.JOBS if row.doubled else Prefix.API
    return Route(
        method=method,
        path="/" + "/".join(pattern),
        prefix=prefix,
        needs=needs,
        tenant=tenant,
        origin=origin,
        kind=row.kind.value,
        note=row.note,
        time_limit_s=PATIENT_S,
        **more,
    )


def _static(row: RouteSettings, method: str, origin: str) -> Route:
    rule = Rewrite(StaticFile(frozenset(row.query)), None)
    web_ui: dict[str, Any] = {"caching": Caching.WEB_UI, "budget": Budget.WEB_UI}
    return _route(row, method, origin, Scope.CATALOG_READ, rule, **web_ui)


def _shared_read(row: RouteSettings, method: str, origin: str) -> Route:
    rule = Rewrite(SharedRead(tuple(suffix.lower() for suffix in row.suffixes)), None, clean=_cleaning(row, is_read))
    # What a pack works out for the answer, it works out on ComfyUI's event loop.
    lane: dict[str, Any] = {"budget": Budget.PREVIEW, "makes_picture": always} if row.heavy else {}
    more: dict[str, Any] = {"caching": Caching.REVALIDATE, "may_contain_slash": _parameters(row)}
    return _route(row, method, origin, Scope.CATALOG_READ, rule, **lane, **more)


def _own_file(row: RouteSettings, method: str, origin: str) -> Route:
    own = OwnFile(row.refuse)
    rule = Rewrite(own, None, clean=_cleaning(row, is_read), reads=own.shared)
    budget = Budget.PREVIEW if row.heavy else Budget.READ
    return _route(
        row,
        method,
        origin,
        Scope.FILES_READ,
        rule,
        budget=budget,
        is_heavy=row.heavy,
        caching=Caching.REVALIDATE,
    )


def _own_id(row: RouteSettings, method: str, origin: str) -> Route:
    place = next(index for index, part in enumerate(row.pattern) if is_parameter(part)) - len(row.pattern)
    clean = _cleaning(row, _is_json)
    if method == "GET":
        rule = Rewrite(OwnId(place).read, None, clean=clean)
        return _route(row, method, origin, Scope.FILES_READ, rule)
    return _route(
        row,
        method,
        origin,
        Scope.FILES_WRITE,
        Rewrite(OwnId(place).write, None, clean=clean),
        body=Body.STREAM,
        budget=Budget.UPLOAD,
        stores=True,
        max_stream_bytes=row.max_bytes,
    )


def _own_job(row: RouteSettings, method: str, origin: str) -> Route:
    rule = OwnJob(
        row.body == "form",
        frozenset(row.classes),
        row.node,
        row.document,
        row.absent,
        row.cancel,
        row.unsent,
        row.first,
    )
    max_bytes = row.max_bytes if "max_bytes" in row.model_fields_set else MAX_ANSWER_BYTES
    return _route(
        row,
        method,
        origin,
        Scope.JOBS_SUBMIT,
        MultiCall(rule),
        body=Body.FORM if row.body == "form" else Body.JSON,
        max_json_bytes=max_bytes,
    )


def _admin(row: RouteSettings, method: str, origin: str) -> Route:
    body = Body.NONE if method == "GET" else Body.STREAM
    return _route(row, method, origin, Scope.JOBS_SUBMIT, AdminOnly(row.note or _FOR_ADMINS), body=body)


def _never(row: RouteSettings, method: str, origin: str) -> Route:
    rule: TenantRule = Deny(row.note or _FOR_NOBODY)
    if row.instead:
        answer = ClientReply(body=row.instead.encode())
        rule = Rewrite(lambda request: answer, None)
    return _route(row, method, origin, Scope.JOBS_SUBMIT, rule, admin=rule)


_MAKERS: Final[dict[Kind, Callable[[RouteSettings, str, str], Route]]] = {
    Kind.STATIC: _static,
    Kind.SHARED_READ: _shared_read,
    Kind.OWN_FILE: _own_file,
    Kind.OWN_ID: _own_id,
    Kind.OWN_JOB: _own_job,
    Kind.ADMIN: _admin,
    Kind.NEVER: _never,
}


def _cleaning(row: RouteSettings, reads: Callable[[str], bool]) -> CleanReply:
    first = row.first

    def clean(reply: UpstreamReply, request: RuleInput) -> ClientReply:
        return clean_reply(reply, request.context.names, first)

    return CleanReply(reads, clean, MAX_BYTES)


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _parameters(row: RouteSettings) -> frozenset[str]:
    """Packs take "loras%2Fname.png" in one segment."""
    return frozenset(part[1:-1] for part in row.parameters)
