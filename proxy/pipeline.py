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
    AdminsOnly,
    Asks,
    Body,
    Budget,
    Describes,
    Match,
    Refused,
    Relays,
    Rewrites,
    Route,
    TenantRule,
    Unchanged,
    as_it_is,
)
from policy.rule_context import Request
from policy.table import TABLE
from policy.violation import Reason, Violation
from proxy.auth.credentials import CREDENTIAL_PARAMETERS
from proxy.auth.misplaced_credentials import read_document, search_head, told
from proxy.dependencies import Services
from proxy.files.comfyui_folders import serve_file
from proxy.http import headers, request_body
from proxy.http.body_memory import BodyPlace
from proxy.http.errors import ClientGone, MethodNotAllowed, Refusal, refusal_for
from proxy.http.listeners import HEALTH_PATH, is_reserved, prove
from proxy.http.multipart_upload import UploadStream
from proxy.http.request_record import Exchange
from proxy.http.responses import SMALL_BYTES, forwarded_headers, is_upgrade, reply_with, send_large, stamp
from proxy.jobs.rule_runner import Conversation
from proxy.keyed_semaphore import Turns
from proxy.observability.audit_log import SUBMISSION
from proxy.observability.recent_refusals import describe, describe_comfyuis
from proxy.pages.refusals import refuse
from proxy.pages.target import root_of
from proxy.running_requests import RunningRequests
from proxy.upstream.preview_queue import wait_for

LARGE_AT_ONCE: Final = 2
"""Of one tenant: answers that are made of whole workflows."""

Locate = Callable[[Request], tuple[Folder, UpstreamPath] | None]

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

    def __init__(self, services: Services) -> None:
        self._services = services
        self.is_draining = False
        self.running = RunningRequests(self._is_alive, services.recorder.record_late)
        self._readers = Turns(LARGE_AT_ONCE)

    def _is_alive(self, principal: Principal) -> bool:
        return self._services.rulebook.authenticator.is_alive(principal, time.time())

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request; every exception becomes an answer or a broken connection, and always a record."""
        rulebook = self._services.rulebook
        exchange = Exchange.begin(request, rulebook.client_address(request))
        exchange.root = root_of(request.raw_path, rulebook.config.server.public_path)
        self.running.begin(request, exchange)
        try:
            if self.is_draining:
                return refuse(request, exchange, _DRAINING)
            if is_reserved(request):
                return await self._serve_reserved(request, exchange)
            return await self._serve(request, exchange)
        except asyncio.CancelledError:
            if exchange.status != 101:  # a WebSocket ends when its client hangs up, and that is no failure
                exchange.status = 499
            raise
        except Exception as error:
            return self._failed(request, exchange, error)
        finally:
            self.running.end(exchange)
            self._services.recorder.record(exchange)

    async def _serve_reserved(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """On a connection beyond what the gate takes: its health, and an honest word for everybody else."""
        is_health = request.path == HEALTH_PATH
        answer = await self._serve(request, exchange) if is_health else refuse(request, exchange, _NO_PLACE)
        answer.force_close()
        return answer

    async def _serve(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        services = self._services
        self._check_head(request)
        if (elsewhere := services.pages.shortcut(request, exchange)) is not None:
            return reply_with(exchange, elsewhere)
        segments, query = parse_target(request.raw_path)
        if services.pages.has(segments):
            return await services.pages.serve(request, exchange, segments, query)
        origins = services.rulebook.origins
        exchange.answer_headers += origins.answer_headers(request.headers)
        if (preflight := origins.preflight(request.method, request.headers)) is not None:
            return reply_with(exchange, preflight)
        match = TABLE.match(request.method, segments)
        if match is not None:
            exchange.route = match.route.name
        principal = exchange.principal = await services.gatekeeper.authenticate(request.headers, query, exchange.client)
        origins.check(request.method, is_upgrade(request), request.headers, principal)
        # What an edge may give to others carries nobody's cookie.
        if match is None or not match.route.caching.is_web_ui:
            exchange.answer_headers += services.rulebook.authenticator.sessions.renewed(principal)
        # What is refused is counted too: a caller has no endless supply of refusals.
        target = match.segments if match is not None else segments
        parameters = match.parameters if match is not None else {}
        call = ClientCall(request.method, target, _without_credentials(query), parameters)
        budget = match.route.budget_for(call) if match is not None else Budget.READ
        prove(request)
        exchange.answer_headers += await services.limiter.acquire(principal, budget)
        if match is None:
            raise _unlisted(segments)
        match.route.rule_for(principal)
        if match.route.caching.is_web_ui:
            instead = services.pages.before_web_ui(request, exchange, principal)
            if instead is not None:
                return reply_with(exchange, instead)
        credentials = search_head(request, query, call, services.rulebook.authenticator.sessions.cookie_name)
        if isinstance(match.route.rule_for(principal), Relays):
            # A WebSocket has a slot of its own kind.
            incoming = Request(call, await services.caller(principal, match.route))
            return await self._relay(request, exchange, incoming)
        # SECURITY: calls that their client sends slowly, or whose answers it does not read, would take all connections and all memory
        # (tests/security/test_connections.py, test_bodies.py, test_large_answers.py).
        async with services.under_way.of(principal.tenant):
            with services.bodies.place(principal.tenant) as place:
                incoming = await self._read(request, exchange, match.route, principal, call, place, credentials)
                self.running.check(principal)
                async with self._readers.of(principal.tenant) if match.route.is_large else nullcontext():
                    answer = await self._answer(request, exchange, match, incoming)
                    return await send_large(request, exchange, answer, match.route.is_large)

    async def _answer(
        self, request: web.BaseRequest, exchange: Exchange, match: Match, incoming: Request
    ) -> web.StreamResponse:
        services, call, principal = self._services, incoming.call, incoming.caller.principal
        rule = match.route.rule_for(principal)
        match rule:
            case Unchanged():
                return await self._forward(
                    request, exchange, match, incoming, as_it_is(call, has_body=match.route.body is not Body.NONE)
                )
            case Rewrites(on_disk=locate) if (file := await self._find(locate, incoming)) is not None:
                return await self._from_disk(request, exchange, match.route, file)
            case Rewrites(request=rewrite):
                return await self._forward(request, exchange, match, incoming, rewrite(incoming))
            case Asks(rule=ask, is_exclusive=is_exclusive):
                limit_s, check = match.route.time_limit_s, self.running.check
                talk = Conversation(
                    services.upstream, services.desk, principal, exchange, limit_s, check, services.heavy
                )
                turn = services.turns.of(principal.tenant) if is_exclusive else nullcontext()
                held = talk.hold_in(turn, ask(incoming))
                # What only reads ends with its client; else many that left would go on reading.
                is_read = match.route.method == "GET"
                reply = await (held if is_read else self.running.finish(held, exchange))
                if exchange.route == SUBMISSION:
                    exchange.notes |= describe_comfyuis(reply)
                return reply_with(exchange, told(reply, incoming.left_out))
            case Describes(rule=describe, picks=picks):
                kept = await services.shelf.get(incoming, describe, match.parameters[picks] if picks else None)
                return reply_with(exchange, kept.answer(request.headers))
            case Relays() | AdminsOnly() | Refused():
                raise AssertionError("relayed already, or refused by rule_for")
        assert_never(rule)

    def _check_head(self, request: web.BaseRequest) -> None:
        max_bytes = self._services.rulebook.config.server.max_header_bytes
        if sum(len(name) + len(value) for name, value in request.raw_headers) > max_bytes:
            raise Violation(
                Reason.HEADER_MALFORMED, "The head of the request is too large.", f"at most {max_bytes} bytes"
            )

    async def _find(self, locate: Locate | None, incoming: Request) -> Path | None:
        disk = self._services.storage.disk
        where = locate(incoming) if locate is not None and disk is not None else None
        return await disk.find(*where) if where is not None and disk is not None else None

    async def _from_disk(
        self, request: web.BaseRequest, exchange: Exchange, route: Route, file: Path
    ) -> web.StreamResponse:
        """A picture without ComfyUI's event loop, also while that is busy."""
        response = serve_file(file, cache_control=route.caching.value, limits=self._services.rulebook.upload_limits)
        stamp(exchange, response.headers)
        exchange.has_started = True
        await response.prepare(request)
        exchange.status = response.status
        exchange.sent_bytes = response.content_length or 0
        return response

    async def _read(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        route: Route,
        principal: Principal,
        call: ClientCall,
        place: BodyPlace,
        credentials: Presented,
    ) -> Request:
        """The bounded document that the rule judges; bodies that stream stay where they are."""
        caller = await self._services.caller(principal, route)
        if route.stores and not principal.is_admin:
            await self._services.storage.room_bytes(principal.tenant)
        if isinstance(route.rule_for(principal), Unchanged) or route.body in (Body.NONE, Body.STREAM):
            return Request(call, caller)
        limits, over = self._services.rulebook.json_limits, None
        if route.body is not Body.RAW and route.max_json_bytes < limits.max_bytes:
            limits, over = limits.within(route.max_json_bytes), request_body.too_large_here(route.max_json_bytes)
        raw = await request_body.read_whole(request, limits, place, over)
        exchange.received_bytes = len(raw)
        heavy, tenant, max_parts = self._services.heavy, principal.tenant, route.max_json_parts
        if route.body is Body.RAW:
            await heavy.space(tenant, len(raw))
            max_parts = self._services.rulebook.config.server.max_prompt_parts
        read = partial(read_document, credentials, raw, route.body, max_parts)
        document, raw, left_out = await heavy.run(tenant, read, len(raw))
        return Request(call, caller, document=document, raw=raw, left_out=left_out)

    async def _forward(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        match: Match,
        incoming: Request,
        outgoing: UpstreamCall | ClientReply,
    ) -> web.StreamResponse:
        if isinstance(outgoing, ClientReply):
            return reply_with(exchange, outgoing)
        route = match.route
        rule = route.rule_for(incoming.caller.principal)
        rewrites_reply = rule.reply if isinstance(rule, Rewrites) else None
        sent, content, held = await self._body_of(request, route, outgoing, incoming)
        fields = headers.to_upstream(request.headers, with_body=isinstance(outgoing.body, StreamedBody))
        if rewrites_reply is not None:
            fields = CIMultiDict({"Accept-Encoding": "identity"})
            if outgoing.method == "HEAD":  # its length is that of the rewritten answer (RFC 9110, 9.3.2)
                outgoing = replace(outgoing, method="GET")
        if isinstance(content, UploadStream):
            fields["Content-Type"] = content.content_type
        started_s = time.perf_counter()
        sending = self._services.upstream.send(outgoing, fields, content, time_limit_s=route.time_limit_s)
        async with AsyncExitStack() as stack:
            if sent is not None:
                stack.callback(_count_received, exchange, sent)  # also of what is refused or breaks off
            stack.enter_context(held)
            turn = stack.enter_context(self._services.pictures.turn(incoming.caller.principal.tenant))
            if route.makes_picture(incoming.call):
                await self._check_source(rule, incoming)
                await wait_for(turn, content)
            stream = await stack.enter_async_context(sending)
            turn.release()  # ComfyUI has made the picture before it answers
            exchange.upstream_s = time.perf_counter() - started_s
            if sent is not None and stream.status < 400:
                self._services.storage.stored(incoming.caller.principal.tenant, sent.received_bytes)
            if rewrites_reply is not None and stream.status < 400:
                value = (await stream.whole()).value
                return reply_with(exchange, ClientReply(stream.status, orjson.dumps(rewrites_reply(value, incoming))))
            exchange.status = stream.status
            last = match.segments[-1] if match.segments else ""
            is_shared = self._services.rulebook.config.server.share_web_ui
            head = forwarded_headers(exchange, stream.headers, route.caching, last, is_shared=is_shared)
            if stream.is_small:
                # Head and body leave in one write: half the cost of a small answer is its system calls.
                small = await stream.body(SMALL_BYTES)
                exchange.sent_bytes = len(small)
                return web.Response(status=stream.status, headers=head, body=small)
            response = web.StreamResponse(status=stream.status, headers=head)
            exchange.has_started = True
            await response.prepare(request)
            async for chunk in stream.chunks():
                exchange.sent_bytes += len(chunk)
                await response.write(chunk)
            await response.write_eof()
            return response

    async def _check_source(self, rule: TenantRule, incoming: Request) -> None:
        """Raises Violation(picture-too-large), where the gate sees ComfyUI's folders."""
        disk, locate = self._services.storage.disk, rule.source if isinstance(rule, Rewrites) else None
        where = locate(incoming) if locate is not None and disk is not None else None
        if where is not None and disk is not None:
            check_pixels(await disk.head(*where, HEAD_BYTES), incoming.caller.max_picture_pixels)

    async def _body_of(
        self, request: web.BaseRequest, route: Route, outgoing: UpstreamCall, incoming: Request
    ) -> tuple[request_body.BodyStream | None, Any, AbstractContextManager[None]]:
        """The client's stream, to be counted, what is sent of it, and the room that it takes meanwhile."""
        held: AbstractContextManager[None] = nullcontext()
        if isinstance(outgoing.body, bytes) or outgoing.body is None:
            return None, outgoing.body, held
        services, principal = self._services, incoming.caller.principal
        is_document = route.body is not Body.STREAM
        limits, over = (services.rulebook.json_limits if is_document else services.rulebook.upload_limits), None
        room = await services.storage.room_bytes(principal.tenant) if route.stores and not principal.is_admin else None
        if room is not None and room < limits.max_bytes:
            limits, over = limits.within(room), services.storage.full(principal.tenant)
        stream = request_body.BodyStream(request, limits, over, lambda: self.running.check(principal))
        if room is not None:
            declared = request.content_length
            held = services.storage.hold(principal.tenant, limits.max_bytes if declared is None else declared)
        if isinstance(outgoing.body, UploadBody):
            upload = UploadStream(request, stream, outgoing.body.plan, principal, services.limiter.spend_bytes)
            return stream, upload, held
        return (stream, stream, held) if request.can_read_body else (None, None, held)

    async def _relay(self, request: web.BaseRequest, exchange: Exchange, incoming: Request) -> web.StreamResponse:
        if request.method != "GET" or not is_upgrade(request) or not web.WebSocketResponse().can_prepare(request):
            raise Violation(Reason.HEADER_MALFORMED, "This route is a WebSocket: send an upgrade (RFC 6455, 4.1).")
        return await self._services.streams.serve(request, exchange, incoming)

    def _failed(self, request: web.BaseRequest, exchange: Exchange, error: Exception) -> web.StreamResponse:
        refusal = refusal_for(error)
        if refusal is not None:
            exchange.notes |= describe(refusal)
        if isinstance(error, ClientGone | ConnectionResetError):
            exchange.reason = exchange.reason or "client-gone"
            if exchange.status != 101:
                exchange.status = 499
        elif exchange.has_started:
            # The head is out: an honest end is impossible, so the connection breaks and the client sees an error.
            exchange.reason = refusal.reason if refusal else "internal-error"
        elif refusal is not None:
            return refuse(request, exchange, refusal)
        if refusal is None and not isinstance(error, ClientGone | ConnectionResetError):
            _log.error("request %s failed", exchange.request_id, exc_info=error)
        if exchange.has_started or exchange.status == 499:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=499)
        return refuse(request, exchange, _BUG)


def _unlisted(segments: tuple[str, ...]) -> Exception:
    """Why there is no row for a call: no such path, or another method."""
    methods = TABLE.methods(segments)
    if methods:
        return MethodNotAllowed(methods)
    return Violation(Reason.ROUTE_UNLISTED, "There is no such route here.")


def _count_received(exchange: Exchange, sent: request_body.BodyStream) -> None:
    exchange.received_bytes = sent.received_bytes


def _without_credentials(query: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in query if pair[0] not in CREDENTIAL_PARAMETERS)
