"""Sends a client's call on to ComfyUI, as its rule has rewritten it, and gives back the answer as it comes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import orjson
from multidict import CIMultiDict

from policy.call import (
    ClientCall,
    ClientReply,
    HeadJudged,
    StreamedBody,
    UploadBody,
    UpstreamCall,
    UpstreamPath,
    UpstreamReply,
)
from policy.namespace import Folder
from policy.passed_calls import forward_call
from policy.pictures import HEAD_BYTES, check_pixels
from policy.principal import Principal, TenantId
from policy.routes import Body, CleanReply, ReplyRule, Rewrite
from policy.rule_context import RuleInput
from policy.rules.files import shared_temp_file
from policy.rules.uploads import UploadSession
from proxy.dependencies import Dependencies
from proxy.files.comfyui_folders import serve_file
from proxy.files.known_edits import Place
from proxy.files.tenant_files import place_of
from proxy.http import headers
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, UpstreamUnreachable
from proxy.http.head_judged import HeadJudgedStream
from proxy.http.multipart_upload import UploadStream
from proxy.http.own_validators import ask_comfyui
from proxy.http.replies import FileReply, ForwardedReply, Reply
from proxy.http.request import Request
from proxy.http.request_body import BodyStream, refuse_encoded, too_large_here
from proxy.http.responses import SMALL_BYTES, forwarded_head
from proxy.limits.lane import Turn
from proxy.steps.held import Held
from proxy.steps.own_files import OwnFiles
from proxy.steps.permit import PermittedRequest
from proxy.steps.temp_file_owners import TempFileOwners
from proxy.upstream.cleaned_replies import (
    WITH_WHOLE_BODY,
    fields_for_cleaning,
    fields_left_out,
    headers_of_cleaned,
    read_text,
)
from proxy.upstream.client import FieldLines, Upstream, UpstreamStream
from proxy.upstream.preview_queue import wait_for


@dataclass(frozen=True, slots=True)
class OutgoingBody:
    """content: what is sent. received: the client's stream behind it, None where it sends none or the gate has made the body."""

    content: AsyncIterable[bytes] | bytes | None
    received: BodyStream | None = None


_NO_BODY: Final = OutgoingBody(None)
_UNFILTERED: Final = (("Accept-Encoding", "identity"),)
_UNFILTERED_LINES: Final = FieldLines(CIMultiDict(_UNFILTERED))
_NOTHING_LEFT_OUT: Final[frozenset[str]] = frozenset()
_LINES: Final = "lines"
"""Of Request.of_fields."""
_PASSED: Final = "passed call"
"""Of Request.of_head."""


async def _take(stream: UpstreamStream) -> None:
    """Any answer."""


class Forwarder:
    """check: raises CredentialEnded when the caller may not go on."""

    def __init__(
        self, dependencies: Dependencies, check: Callable[[Principal], None], temp_file_owners: TempFileOwners
    ) -> None:
        self._upstream = dependencies.upstream
        self._storage = dependencies.storage
        self._tenant_files = dependencies.tenant_files
        self._own_files = OwnFiles(dependencies.upstream, dependencies.tenant_files)
        self._transfers = dependencies.transfers
        self._pictures = dependencies.pictures
        self._limiter = dependencies.limiter
        self._upload_names = dependencies.upload_names
        self._heavy = dependencies.heavy
        self._held_bytes = dependencies.held_bytes
        self._check = check
        self._temp_file_owners = temp_file_owners

    async def find_file(self, permitted: PermittedRequest, asked: RuleInput, held: Held) -> FileReply | None:
        """A picture without ComfyUI's event loop, also while that is busy; None where only ComfyUI has it, or can make it."""
        where, disk = _plain_file(permitted, asked), self._storage.disk
        shared = None if where is None else shared_temp_file(asked.context.names, where)
        if shared is not None and self._temp_file_owners.may_be_lost(permitted.principal.tenant, shared):
            return None
        file = await disk.find(*where) if where is not None and disk is not None else None
        if where is None or file is None:
            return None
        edits = await self._tenant_files.on_disk(place_of(asked.context.names.tenant, *where), file, held.callback)
        return serve_file(file, cache_control=permitted.route.caching.value, edits=edits)

    async def pass_on(self, permitted: PermittedRequest, held: Held) -> Reply:
        """A call that no rule judges, as it is. Raises what `forward` does, but ReplyTooLarge."""
        outgoing, lines = _passed_call(permitted)
        if lines is not None:
            body = _NO_BODY
            fields: CIMultiDict[str] | FieldLines = lines
        else:
            body = await self.body_of(permitted, outgoing, held)
            fields = _fields_of(permitted, outgoing, body)
        turn = None
        if permitted.route.makes_picture(permitted.call):
            turn = await self._await_turn(permitted, None, body, held)
        stream = await _open(self._upstream, permitted, outgoing, fields, body, held, turn)
        if body.received is not None and stream.status < 400:
            self.stored(permitted.principal.tenant, body.received.received_bytes)
        return await forwarded(permitted, stream)

    async def forward(
        self,
        permitted: PermittedRequest,
        asked: RuleInput,
        outgoing: UpstreamCall,
        held: Held,
        check: Callable[[UpstreamStream], Awaitable[None]] = _take,
    ) -> Reply:
        """A call that a rule has made. held: what the request keeps until its answer has left; ComfyUI's answer is among it.

        Raises UpstreamUnavailable, UpstreamTimeout, ReplyTooLarge, LimitExceeded, Violation, what `check` does, and what the client's body breaks with.
        """
        tenant = permitted.principal.tenant
        rewrite = permitted.rule.reply if isinstance(permitted.rule, Rewrite) else None
        body = _NO_BODY if outgoing.body is None else await self.body_of(permitted, outgoing, held)
        fields: CIMultiDict[str] | FieldLines
        if rewrite is None:
            fields = _fields_of(permitted, outgoing, body)
            place = _place_of(permitted, asked, fields)
        else:
            outgoing, fields, place = _wholly(outgoing), _fields_for_rewriting(outgoing, body), None
        turn = None
        if permitted.route.makes_picture(permitted.call):
            turn = await self._await_turn(permitted, asked, body, held)
        stream = await _open(self._upstream, permitted, outgoing, fields, body, held, turn)
        if check is not _take:
            await check(stream)
        if stream.status < 400 and body.received is not None:
            self.stored(tenant, body.received.received_bytes)
        if place is not None and not isinstance(fields, FieldLines):
            return await self._own_files.forwarded(permitted, place, outgoing, fields, stream, held, check)
        if stream.status < 400 and rewrite is not None:
            return await _rewritten(rewrite, asked, body, stream)
        return await self._clean(permitted, asked, outgoing, stream) or await forwarded(permitted, stream)

    async def _clean(
        self, permitted: PermittedRequest, asked: RuleInput, outgoing: UpstreamCall, stream: UpstreamStream
    ) -> ClientReply | None:
        """The answer, read and cleaned; None for a route that does not ask for it, or an answer that is no text."""
        clean = _clean_of(permitted)
        text = await read_text(stream, clean, outgoing.method) if clean is not None else None
        if clean is None or text is None:
            return None
        tenant = permitted.principal.tenant
        cleaned = await self._heavy.run(tenant, partial(clean.clean, text, asked), len(text.body))
        return replace(cleaned, headers=headers_of_cleaned(permitted.route.caching))

    async def body_of(self, permitted: PermittedRequest, outgoing: UpstreamCall, held: Held) -> OutgoingBody:
        """A client's body is counted, also of what is refused or breaks off, and has its room in the quota meanwhile."""
        if isinstance(outgoing.body, bytes):
            return OutgoingBody(outgoing.body)
        principal = permitted.principal
        stream = await self.client_body(permitted, held, is_upload=permitted.route.body is Body.STREAM)
        if isinstance(outgoing.body, UploadBody):
            names, spend = self._upload_names.of(principal.tenant), self._limiter.spend_bytes
            upload = UploadStream(permitted.request, stream, outgoing.body.plan, principal, spend, names)
            upload.before_fields = partial(self._check_original, principal.tenant, upload.session)
            return OutgoingBody(upload, stream)
        if isinstance(outgoing.body, HeadJudged):
            # SECURITY: the pack would keep what it unpacks to (tests/matrix/test_custom_routes.py).
            refuse_encoded(permitted.request)
            return OutgoingBody(HeadJudgedStream(stream, outgoing.body, partial(self._pay, principal)), stream)
        return OutgoingBody(stream, stream) if permitted.request.can_read_body else OutgoingBody(None)

    async def client_body(self, permitted: PermittedRequest, held: Held, *, is_upload: bool) -> BodyStream:
        """The client's body, which has its room in the quota until `held` is given back. Raises Violation, DatabaseUnavailable."""
        route, compiled, principal = permitted.route, permitted.compiled, permitted.principal
        limits, over = (compiled.upload_limits if is_upload else compiled.json_limits), None
        quota = compiled.limits_of(principal.tenant).storage if route.stores and not principal.is_admin else None
        room = await self._storage.remaining_bytes(principal.tenant, quota)
        if room is not None and room < limits.max_bytes:
            limits, over = limits.within(room), self._storage.quota_exceeded(quota)
        if route.max_stream_bytes is not None and route.max_stream_bytes < limits.max_bytes:
            limits, over = limits.within(route.max_stream_bytes), too_large_here(route.max_stream_bytes)
        stream = BodyStream(permitted.request, limits, over, lambda: self._check(principal))
        held.callback(_count_received, permitted, stream)
        if room is not None:
            declared = permitted.request.content_length
            size = limits.max_bytes if declared is None else declared
            held.enter_context(self._storage.reserve(principal.tenant, size))
        return stream

    async def spend_file(self, permitted: PermittedRequest) -> None:
        """For a file of a call that is no upload. Raises LimitExceeded."""
        await self._limiter.spend_file(permitted.principal)

    async def spend(self, permitted: PermittedRequest, amount: int) -> None:
        """For bytes of an upload that came. Raises LimitExceeded."""
        await self._limiter.spend_bytes(permitted.principal, amount)

    async def pay_for(self, permitted: PermittedRequest, size: int, held: Held) -> None:
        """For a file that is here already: as of an upload. Raises Violation(storage-full), LimitExceeded."""
        tenant = permitted.principal.tenant
        quota = permitted.compiled.limits_of(tenant).storage
        room = await self._storage.remaining_bytes(tenant, quota)
        if room is not None:
            if room < size:
                raise self._storage.quota_exceeded(quota)
            held.enter_context(self._storage.reserve(tenant, size))
        await self.spend(permitted, size)

    async def ask(
        self,
        permitted: PermittedRequest,
        call: UpstreamCall,
        fields: CIMultiDict[str],
        body: AsyncIterable[bytes],
        max_bytes: int,
    ) -> UpstreamReply:
        """A call with a body that streams and a bounded answer. Raises ReplyTooLarge, UpstreamTimeout, UpstreamUnavailable, and what the body does."""
        async with await self._upstream.open(call, fields, body, time_limit_s=permitted.route.time_limit_s) as stream:
            return await stream.whole(max_bytes)

    def stored(self, tenant: TenantId, amount_bytes: int) -> None:
        """ComfyUI has stored a client's body."""
        self._storage.add_usage(tenant, amount_bytes)

    async def _pay(self, principal: Principal, amount: int) -> None:
        """For bytes that ComfyUI will hold in memory. Raises LimitExceeded."""
        await self._limiter.spend_bytes(principal, amount)
        self._held_bytes.add(principal.tenant, amount)

    async def _check_original(self, tenant: TenantId, session: object) -> None:
        """SECURITY: a mask gets the pixels of the picture that it is for (tests/matrix/test_reuse.py). The first ComfyUI gets the picture, too, where
        another one has made it."""
        if not isinstance(session, UploadSession):
            return
        shared = session.shared_original()
        if shared is not None:
            await self._temp_file_owners.is_own(tenant, shared)
        original = session.original()
        if original is not None and self._transfers is not None:
            await self._transfers.bring_to_first(tenant, *original)

    async def _await_turn(
        self, permitted: PermittedRequest, asked: RuleInput | None, body: OutgoingBody, held: Held
    ) -> Turn:
        """For a picture of ComfyUI's making. Raises Violation(picture-too-large), where the gate sees ComfyUI's folders; LimitExceeded."""
        turn = held.enter_context(self._pictures.turn(permitted.principal.tenant))
        disk = self._storage.disk
        locate = permitted.rule.source if isinstance(permitted.rule, Rewrite) else None
        if asked is not None and locate is not None and disk is not None and (where := locate(asked)) is not None:
            check_pixels(await disk.head(*where, HEAD_BYTES), asked.context.max_picture_pixels)
        await wait_for(turn, body.content)
        return turn


async def _open(
    upstream: Upstream,
    permitted: PermittedRequest,
    outgoing: UpstreamCall,
    fields: CIMultiDict[str] | FieldLines,
    body: OutgoingBody,
    held: Held,
    turn: Turn | None,
) -> UpstreamStream:
    """turn: to make a picture, which is over when ComfyUI answers."""
    started_s = time.perf_counter()
    time_limit_s = permitted.route.time_limit_s
    try:
        if not upstream.is_awaited(outgoing):
            raise UpstreamUnreachable
        stream = await upstream.open(outgoing, fields, body.content, time_limit_s=time_limit_s)
    except (UpstreamUnavailable, UpstreamTimeout):
        instead = await upstream.open_instead(outgoing, fields, time_limit_s=time_limit_s)
        if instead is None:
            raise
        stream = instead
    held.callback(stream.close)
    if turn is not None:
        turn.release()
    permitted.record.upstream_s = time.perf_counter() - started_s
    return stream


async def _rewritten(rewrite: ReplyRule, asked: RuleInput, body: OutgoingBody, stream: UpstreamStream) -> ClientReply:
    value = (await stream.whole()).value
    if isinstance(body.content, UploadStream):
        body.content.stored(value)
    return ClientReply(stream.status, orjson.dumps(rewrite(value, asked)))


def _plain_file(permitted: PermittedRequest, asked: RuleInput) -> tuple[Folder, UpstreamPath] | None:
    """The file that the answer is, as it lies there."""
    locate = permitted.rule.on_disk if isinstance(permitted.rule, Rewrite) else None
    return locate(asked) if locate is not None else None


def _place_of(permitted: PermittedRequest, asked: RuleInput, fields: CIMultiDict[str]) -> Place | None:
    """Where a file lies that a job made, and makes the fields those that ask for it. None where the answer is no such file."""
    where = _plain_file(permitted, asked)
    if where is None:
        return None
    place = place_of(asked.context.names.tenant, *where)
    if place is not None:
        ask_comfyui(fields)
    return place


def _passed_call(permitted: PermittedRequest) -> tuple[UpstreamCall, FieldLines | None]:
    """A call that goes on as it is, with its fields where they are those of the client's head alone: where it has no body."""
    call, request = permitted.call, permitted.request
    known: tuple[ClientCall, UpstreamCall, FieldLines | None] | None = request.of_head.get(_PASSED)
    if known is None or known[0] is not call:
        passed = forward_call(call, has_body=permitted.route.has_body)
        known = request.of_head[_PASSED] = (call, passed, _lines_of(request) if passed.body is None else None)
    return known[1], known[2]


def _lines_of(request: Request) -> FieldLines:
    lines: FieldLines | None = request.of_fields.get(_LINES)
    if lines is None:
        lines = request.of_fields[_LINES] = FieldLines(headers.to_upstream(request.headers, with_body=False))
    return lines


def _fields_of(permitted: PermittedRequest, outgoing: UpstreamCall, body: OutgoingBody) -> CIMultiDict[str]:
    streams = isinstance(outgoing.body, StreamedBody | HeadJudged)
    fields = headers.to_upstream(permitted.request.headers, with_body=streams)
    if _clean_of(permitted) is not None:
        fields = fields_for_cleaning(fields)
    if isinstance(body.content, UploadStream):
        fields["Content-Type"] = body.content.content_type
    return fields


def _fields_for_rewriting(outgoing: UpstreamCall, body: OutgoingBody) -> CIMultiDict[str] | FieldLines:
    """The gate reads the answer itself, whatever its client takes. A body that the client sent nothing of has its type all the same."""
    if body.content is None and outgoing.content_type is None:
        return _UNFILTERED_LINES
    fields = CIMultiDict(_UNFILTERED)
    if isinstance(body.content, UploadStream):
        fields["Content-Type"] = body.content.content_type
    return fields


def _wholly(outgoing: UpstreamCall) -> UpstreamCall:
    """The length of a rewritten answer is to be said of a HEAD, too (RFC 9110, 9.3.2)."""
    return replace(outgoing, method="GET") if outgoing.method == "HEAD" else outgoing


def _clean_of(permitted: PermittedRequest) -> CleanReply | None:
    return permitted.rule.clean if isinstance(permitted.rule, Rewrite) else None


async def forwarded(permitted: PermittedRequest, stream: UpstreamStream) -> ForwardedReply:
    """ComfyUI's answer as it comes, under a head of the gate's. Raises UpstreamUnavailable, UpstreamTimeout."""
    record, caching, last, is_shared = permitted.record, permitted.route.caching, "", False
    record.status = stream.status
    if caching.is_web_ui:
        segments, is_shared = permitted.call.segments, permitted.compiled.config.server.share_web_ui
        last = segments[-1] if segments else ""
    is_small = stream.is_small
    left_out = WITH_WHOLE_BODY if is_small else _NOTHING_LEFT_OUT
    clean = _clean_of(permitted)
    if clean is not None:
        left_out = fields_left_out(stream, clean, left_out)
    own, shared = forwarded_head(record, stream.fields, caching, last, is_shared=is_shared, left_out=left_out)
    if not is_small:
        return ForwardedReply(stream.status, own, stream, shared)
    body = stream.body_at_once(SMALL_BYTES)
    return ForwardedReply(stream.status, own, await stream.body(SMALL_BYTES) if body is None else body, shared)


def _count_received(permitted: PermittedRequest, stream: BodyStream) -> None:
    permitted.record.received_bytes = stream.received_bytes
