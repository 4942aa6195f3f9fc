"""The order of everything: parse, match, authenticate, permit, limit, read, rule, send, reply, record. It does, and decides nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, assert_never

import orjson
from aiohttp import web
from multidict import CIMultiDict

from policy.call import ClientCall, ClientReply, StreamedBody, UploadBody, UpstreamCall, UpstreamPath, parse_target
from policy.keyform import Presented
from policy.namespace import Folder
from policy.pictures import HEAD_BYTES, check_pixels
from policy.principal import Principal
from policy.routes import (
    AdminOnly,
    Body,
    Budget,
    CachedReply,
    Deny,
    Match,
    MultiCall,
    PassThrough,
    RelayWebSocket,
    Rewrite,
    Route,
    TenantRule,
    forward_call,
)
from policy.rule_context import RuleInput
from policy.table import TABLE
from policy.violation import Reason, Violation
from proxy.auth.credentials import CREDENTIAL_PARAMETERS
from proxy.auth.misplaced_credentials import read_document, search_head, told
from proxy.dependencies import Dependencies
from proxy.files.comfyui_folders import serve_file
from proxy.http import headers, request_body
from proxy.http.body_memory import BodyPlace
from proxy.http.errors import ClientGone, MethodNotAllowed, Refusal, refusal_for
from proxy.http.multipart_upload import UploadStream
from proxy.http.request_record import RequestRecord
from proxy.http.responses import SMALL_BYTES, add_common_headers, forwarded_headers, is_upgrade, send_large, to_response
from proxy.http.server import HEALTH_PATH, is_reserved, prove
from proxy.jobs.rule_runner import RuleRunner
from proxy.keyed_semaphore import KeyedSemaphore
from proxy.observability.audit_log import SUBMISSION
from proxy.observability.recent_refusals import describe, describe_comfyuis
from proxy.pages.refusals import refuse
from proxy.pages.target import root_of
from proxy.running_requests import RunningRequests
from proxy.upstream.preview_queue import wait_for

LARGE_AT_ONCE: Final = 2
"""Of one tenant: answers that are made of whole workflows."""

Locate = Callable[[RuleInput], tuple[Folder, UpstreamPath] | None]

_log = logging.getLogger("comfygate")
_BUG = Refusal(500, "internal-error", "The gate failed. The request id is in its log.")
_DRAINING = Refusal(
    503, "gate-stopping", "The gate is stopping.", headers=(("Connection", "close"), ("Retry-After", "5"))
)
_NO_PLACE = Refusal(
    503,
    "no-connections-left",
    "The gate has as many connections as it takes.",
    headers=(("Connection", "close"), ("Retry-After", "5")),
)


class Pipeline:
    """The handler of the public listener. services: everything that lives longer than a request."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self.is_draining = False
        self.running = RunningRequests(self._is_alive, dependencies.recorder.record_late)
        self._large_answers = KeyedSemaphore(LARGE_AT_ONCE)

    def _is_alive(self, principal: Principal) -> bool:
        return self._dependencies.compiled.authenticator.is_alive(principal, time.time())

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request; every exception becomes an answer or a broken connection, and always a record."""
        compiled = self._dependencies.compiled
        record = RequestRecord.begin(request, compiled.client_address(request))
        record.root = root_of(request.raw_path, compiled.config.server.public_path)
        self.running.begin(request, record)
        try:
            if self.is_draining:
                return refuse(request, record, _DRAINING)
            if is_reserved(request):
                return await self._serve_reserved(request, record)
            return await self._serve(request, record)
        except asyncio.CancelledError:
            if record.status != 101:  # a WebSocket ends when its client hangs up, and that is no failure
                record.status = 499
            raise
        except Exception as error:
            return self._failed(request, record, error)
        finally:
            self.running.end(record)
            self._dependencies.recorder.record(record)

    async def _serve_reserved(self, request: web.BaseRequest, record: RequestRecord) -> web.StreamResponse:
        """On a connection beyond what the gate takes: its health, and an honest word for everybody else."""
        is_health = request.path == HEALTH_PATH
        answer = await self._serve(request, record) if is_health else refuse(request, record, _NO_PLACE)
        answer.force_close()
        return answer

    async def _serve(self, request: web.BaseRequest, record: RequestRecord) -> web.StreamResponse:
        dependencies = self._dependencies
        self._check_head(request)
        if (elsewhere := dependencies.pages.shortcut(request, record)) is not None:
            return to_response(record, elsewhere)
        segments, query = parse_target(request.raw_path)
        if dependencies.pages.has(segments):
            return await dependencies.pages.serve(request, record, segments, query)
        origins = dependencies.compiled.origins
        record.response_headers += origins.cors_headers(request.headers)
        if (preflight := origins.preflight(request.method, request.headers)) is not None:
            return to_response(record, preflight)
        match = TABLE.match(request.method, segments)
        if match is not None:
            record.route = match.route.name
        principal = record.principal = await dependencies.login_throttle.authenticate(
            request.headers, query, record.client
        )
        origins.check(request.method, is_upgrade(request), request.headers, principal)
        # What an edge may give to others carries nobody's cookie.
        if match is None or not match.route.caching.is_web_ui:
            record.response_headers += dependencies.compiled.authenticator.sessions.renewed(principal)
        # What is refused is counted too: a caller has no endless supply of refusals.
        target = match.segments if match is not None else segments
        parameters = match.parameters if match is not None else {}
        call = ClientCall(request.method, target, _without_credentials(query), parameters)
        budget = match.route.budget_for(call) if match is not None else Budget.READ
        prove(request)
        record.response_headers += await dependencies.limiter.acquire(principal, budget)
        if match is None:
            raise _unlisted(segments)
        match.route.rule_for(principal)
        if match.route.caching.is_web_ui:
            instead = dependencies.pages.before_web_ui(request, record, principal)
            if instead is not None:
                return to_response(record, instead)
        credentials = search_head(request, query, call, dependencies.compiled.authenticator.sessions.cookie_name)
        if isinstance(match.route.rule_for(principal), RelayWebSocket):
            # A WebSocket has a slot of its own kind.
            incoming = RuleInput(call, await dependencies.context(principal, match.route))
            return await self._relay(request, record, incoming)
        # SECURITY: calls that their client sends slowly, or whose answers it does not read, would take all connections and all memory
        # (tests/security/test_connections.py, test_bodies.py, test_large_answers.py).
        async with dependencies.under_way.of(principal.tenant):
            with dependencies.bodies.place(principal.tenant) as place:
                incoming = await self._read(request, record, match.route, principal, call, place, credentials)
                self.running.check(principal)
                async with self._large_answers.of(principal.tenant) if match.route.is_large else nullcontext():
                    answer = await self._answer(request, record, match, incoming)
                    return await send_large(request, record, answer, match.route.is_large)

    async def _answer(
        self, request: web.BaseRequest, record: RequestRecord, match: Match, incoming: RuleInput
    ) -> web.StreamResponse:
        dependencies, call, principal = self._dependencies, incoming.call, incoming.context.principal
        rule = match.route.rule_for(principal)
        match rule:
            case PassThrough():
                return await self._forward(
                    request, record, match, incoming, forward_call(call, has_body=match.route.body is not Body.NONE)
                )
            case Rewrite(on_disk=locate) if (file := await self._find(locate, incoming)) is not None:
                return await self._from_disk(request, record, match.route, file)
            case Rewrite(request=rewrite):
                return await self._forward(request, record, match, incoming, rewrite(incoming))
            case MultiCall(rule=ask, is_exclusive=is_exclusive):
                limit_s, check = match.route.time_limit_s, self.running.check
                runner = RuleRunner(
                    dependencies.upstream, dependencies.admission, principal, record, limit_s, check, dependencies.heavy
                )
                turn = dependencies.exclusive_runs.of(principal.tenant) if is_exclusive else nullcontext()
                held = runner.run_exclusively(turn, ask(incoming))
                # What only reads ends with its client; else many that left would go on reading.
                is_read = match.route.method == "GET"
                reply = await (held if is_read else self.running.finish(held, record))
                if record.route == SUBMISSION:
                    record.notes |= describe_comfyuis(reply)
                return to_response(record, told(reply, incoming.left_out))
            case CachedReply(rule=describe, picks=picks):
                kept = await dependencies.document_cache.get(
                    incoming, describe, match.parameters[picks] if picks else None
                )
                return to_response(record, kept.answer(request.headers))
            case RelayWebSocket() | AdminOnly() | Deny():
                raise AssertionError("relayed already, or refused by rule_for")
        assert_never(rule)

    def _check_head(self, request: web.BaseRequest) -> None:
        max_bytes = self._dependencies.compiled.config.server.max_header_bytes
        if sum(len(name) + len(value) for name, value in request.raw_headers) > max_bytes:
            raise Violation(
                Reason.HEADER_MALFORMED, "The head of the request is too large.", f"at most {max_bytes} bytes"
            )

    async def _find(self, locate: Locate | None, incoming: RuleInput) -> Path | None:
        disk = self._dependencies.storage.disk
        where = locate(incoming) if locate is not None and disk is not None else None
        return await disk.find(*where) if where is not None and disk is not None else None

    async def _from_disk(
        self, request: web.BaseRequest, record: RequestRecord, route: Route, file: Path
    ) -> web.StreamResponse:
        """A picture without ComfyUI's event loop, also while that is busy."""
        response = serve_file(file, cache_control=route.caching.value, limits=self._dependencies.compiled.upload_limits)
        add_common_headers(record, response.headers)
        record.has_started = True
        await response.prepare(request)
        record.status = response.status
        record.sent_bytes = response.content_length or 0
        return response

    async def _read(
        self,
        request: web.BaseRequest,
        record: RequestRecord,
        route: Route,
        principal: Principal,
        call: ClientCall,
        place: BodyPlace,
        credentials: Presented,
    ) -> RuleInput:
        """The bounded document that the rule judges; bodies that stream stay where they are."""
        context = await self._dependencies.context(principal, route)
        if route.stores and not principal.is_admin:
            await self._dependencies.storage.remaining_bytes(principal.tenant)
        if isinstance(route.rule_for(principal), PassThrough) or route.body in (Body.NONE, Body.STREAM):
            return RuleInput(call, context)
        limits, over = self._dependencies.compiled.json_limits, None
        if route.body is not Body.RAW and route.max_json_bytes < limits.max_bytes:
            limits, over = limits.within(route.max_json_bytes), request_body.too_large_here(route.max_json_bytes)
        raw = await request_body.read_whole(request, limits, place, over)
        record.received_bytes = len(raw)
        heavy, tenant, max_parts = self._dependencies.heavy, principal.tenant, route.max_json_parts
        if route.body is Body.RAW:
            await heavy.space(tenant, len(raw))
            max_parts = self._dependencies.compiled.config.server.max_prompt_parts
        read = partial(read_document, credentials, raw, route.body, max_parts)
        document, raw, left_out = await heavy.run(tenant, read, len(raw))
        return RuleInput(call, context, document=document, raw=raw, left_out=left_out)

    async def _forward(
        self,
        request: web.BaseRequest,
        record: RequestRecord,
        match: Match,
        incoming: RuleInput,
        outgoing: UpstreamCall | ClientReply,
    ) -> web.StreamResponse:
        if isinstance(outgoing, ClientReply):
            return to_response(record, outgoing)
        route = match.route
        rule = route.rule_for(incoming.context.principal)
        rewrites_reply = rule.reply if isinstance(rule, Rewrite) else None
        sent, content, held = await self._body_of(request, route, outgoing, incoming)
        fields = headers.to_upstream(request.headers, with_body=isinstance(outgoing.body, StreamedBody))
        if rewrites_reply is not None:
            fields = CIMultiDict({"Accept-Encoding": "identity"})
            if outgoing.method == "HEAD":  # its length is that of the rewritten answer (RFC 9110, 9.3.2)
                outgoing = replace(outgoing, method="GET")
        if isinstance(content, UploadStream):
            fields["Content-Type"] = content.content_type
        started_s = time.perf_counter()
        sending = self._dependencies.upstream.send(outgoing, fields, content, time_limit_s=route.time_limit_s)
        async with AsyncExitStack() as stack:
            if sent is not None:
                stack.callback(_count_received, record, sent)  # also of what is refused or breaks off
            stack.enter_context(held)
            turn = stack.enter_context(self._dependencies.pictures.turn(incoming.context.principal.tenant))
            if route.makes_picture(incoming.call):
                await self._check_source(rule, incoming)
                await wait_for(turn, content)
            stream = await stack.enter_async_context(sending)
            turn.release()  # ComfyUI has made the picture before it answers
            record.upstream_s = time.perf_counter() - started_s
            if sent is not None and stream.status < 400:
                self._dependencies.storage.add_usage(incoming.context.principal.tenant, sent.received_bytes)
            if rewrites_reply is not None and stream.status < 400:
                value = (await stream.whole()).value
                if isinstance(content, UploadStream):
                    content.stored(value)
                return to_response(record, ClientReply(stream.status, orjson.dumps(rewrites_reply(value, incoming))))
            record.status = stream.status
            last = match.segments[-1] if match.segments else ""
            is_shared = self._dependencies.compiled.config.server.share_web_ui
            head = forwarded_headers(record, stream.headers, route.caching, last, is_shared=is_shared)
            if stream.is_small:
                # Head and body leave in one write: half the cost of a small answer is its system calls.
                small = await stream.body(SMALL_BYTES)
                record.sent_bytes = len(small)
                return web.Response(status=stream.status, headers=head, body=small)
            response = web.StreamResponse(status=stream.status, headers=head)
            record.has_started = True
            await response.prepare(request)
            async for chunk in stream.chunks():
                record.sent_bytes += len(chunk)
                await response.write(chunk)
            await response.write_eof()
            return response

    async def _check_source(self, rule: TenantRule, incoming: RuleInput) -> None:
        """Raises Violation(picture-too-large), where the gate sees ComfyUI's folders."""
        disk, locate = self._dependencies.storage.disk, rule.source if isinstance(rule, Rewrite) else None
        where = locate(incoming) if locate is not None and disk is not None else None
        if where is not None and disk is not None:
            check_pixels(await disk.head(*where, HEAD_BYTES), incoming.context.max_picture_pixels)

    async def _body_of(
        self, request: web.BaseRequest, route: Route, outgoing: UpstreamCall, incoming: RuleInput
    ) -> tuple[request_body.BodyStream | None, Any, AbstractContextManager[None]]:
        """The client's stream, to be counted, what is sent of it, and the room that it takes meanwhile."""
        held: AbstractContextManager[None] = nullcontext()
        if isinstance(outgoing.body, bytes) or outgoing.body is None:
            return None, outgoing.body, held
        dependencies, principal = self._dependencies, incoming.context.principal
        is_document = route.body is not Body.STREAM
        limits, over = (dependencies.compiled.json_limits if is_document else dependencies.compiled.upload_limits), None
        room = (
            await dependencies.storage.remaining_bytes(principal.tenant)
            if route.stores and not principal.is_admin
            else None
        )
        if room is not None and room < limits.max_bytes:
            limits, over = limits.within(room), dependencies.storage.quota_exceeded(principal.tenant)
        stream = request_body.BodyStream(request, limits, over, lambda: self.running.check(principal))
        if room is not None:
            declared = request.content_length
            held = dependencies.storage.reserve(principal.tenant, limits.max_bytes if declared is None else declared)
        if isinstance(outgoing.body, UploadBody):
            names, spend = dependencies.upload_names.of(principal.tenant), dependencies.limiter.spend_bytes
            upload = UploadStream(request, stream, outgoing.body.plan, principal, spend, names)
            return stream, upload, held
        return (stream, stream, held) if request.can_read_body else (None, None, held)

    async def _relay(self, request: web.BaseRequest, record: RequestRecord, incoming: RuleInput) -> web.StreamResponse:
        if request.method != "GET" or not is_upgrade(request) or not web.WebSocketResponse().can_prepare(request):
            raise Violation(Reason.HEADER_MALFORMED, "This route is a WebSocket: send an upgrade (RFC 6455, 4.1).")
        return await self._dependencies.streams.serve(request, record, incoming)

    def _failed(self, request: web.BaseRequest, record: RequestRecord, error: Exception) -> web.StreamResponse:
        refusal = refusal_for(error)
        if refusal is not None:
            record.notes |= describe(refusal)
        if isinstance(error, ClientGone | ConnectionResetError):
            record.reason = record.reason or "client-gone"
            if record.status != 101:
                record.status = 499
        elif record.has_started:
            # The head is out: an honest end is impossible, so the connection breaks and the client sees an error.
            record.reason = refusal.reason if refusal else "internal-error"
        elif refusal is not None:
            return refuse(request, record, refusal)
        if refusal is None and not isinstance(error, ClientGone | ConnectionResetError):
            _log.error("request %s failed", record.request_id, exc_info=error)
        if record.has_started or record.status == 499:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=499)
        return refuse(request, record, _BUG)


def _unlisted(segments: tuple[str, ...]) -> Exception:
    """Why there is no row for a call: no such path, or another method."""
    methods = TABLE.methods(segments)
    if methods:
        return MethodNotAllowed(methods)
    return Violation(Reason.ROUTE_UNLISTED, "There is no such route here.")


def _count_received(record: RequestRecord, sent: request_body.BodyStream) -> None:
    record.received_bytes = sent.received_bytes


def _without_credentials(query: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in query if pair[0] not in CREDENTIAL_PARAMETERS)
