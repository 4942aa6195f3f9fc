"""Serves the WebSockets of clients. An admin's is relayed as it is; a tenant's is fed by the session of its client id."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from functools import partial

from aiohttp import WSCloseCode

from policy.call import Opaque
from policy.rule_context import RuleContext, RuleInput
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.jobs.registry import JobRegistry
from proxy.upstream.client import Upstream
from proxy.websocket import relay
from proxy.websocket.accepted import AcceptedSocket
from proxy.websocket.connections import ConnectionRegistry
from proxy.websocket.event_session import EventSession
from proxy.websocket.event_sessions import EventSessions, connect
from proxy.websocket.places import Places, Slot
from proxy.websocket.send_queue import Close, SendQueue


class ClientSockets:
    """slot: of `Places`."""

    def __init__(
        self,
        upstream: Upstream,
        sessions: EventSessions,
        sockets: ConnectionRegistry,
        *,
        reconnect_grace_s: Callable[[], float],
        slot: Slot,
        jobs: JobRegistry,
    ) -> None:
        self._upstream = upstream
        self._sessions = sessions
        self._sockets = sockets
        self._reconnect_grace_s = reconnect_grace_s
        self._jobs = jobs
        self._places = Places(slot, jobs.working_clients)

    async def serve(self, request: Request, record: RequestRecord, incoming: RuleInput) -> None:
        """Upgrades and serves until either side closes. Raises LimitExceeded, and before the upgrade UpstreamUnavailable and UpstreamTimeout."""
        principal, send_queue = incoming.context.principal, SendQueue()
        client_id = incoming.call.first("clientId") or secrets.token_hex(16)
        async with self._places.take(principal, client_id, send_queue):
            if principal.is_admin:
                await self._relay(request, record, incoming, send_queue)
                return
            await self._serve_tenant(request, record, incoming, client_id, send_queue)

    async def _relay(self, request: Request, record: RequestRecord, incoming: RuleInput, send_queue: SendQueue) -> None:
        client_id = incoming.call.first("clientId")
        upstream = await connect(self._upstream, None if client_id is None else Opaque(client_id))
        try:
            client = await relay.accept(request)
        except BaseException:
            await upstream.close()
            raise
        record.status = 101
        with self._sockets.register(incoming.context.principal, send_queue):
            await relay.relay(request, client, upstream, send_queue)

    async def _serve_tenant(
        self,
        request: Request,
        record: RequestRecord,
        incoming: RuleInput,
        client_id: str,
        send_queue: SendQueue,
    ) -> None:
        context = incoming.context
        stream = await self._sessions.attach(record, context, client_id, send_queue)
        try:
            await self._catch_up(context, client_id, stream)
            client = await relay.accept(request)
            record.status = 101
            with self._sockets.register(context.principal, send_queue):
                left = partial(self._left, client, stream)
                await relay.serve_client(request, client, send_queue, stream.from_client, left)
        finally:
            stream.detach(send_queue)
            self._sessions.leave(context, client_id, stream)

    def _left(self, client: AcceptedSocket, stream: EventSession, close: Close) -> None:
        """A connection that broke may have lost events on its way: only a client that says goodbye has heard what it was sent."""
        if client.close_code not in (None, WSCloseCode.ABNORMAL_CLOSURE):
            self._jobs.mark_heard(stream.said_goodbye())

    async def _catch_up(self, context: RuleContext, client_id: str, stream: EventSession) -> None:
        """What was submitted before this socket came."""
        tenant = context.principal.tenant
        if self._jobs.has_unnamed(tenant):
            await self._sessions.listen(tenant, context.jobs)
        last = self._jobs.last_of(tenant, client_id)
        ended_s = math.inf if last is None or last.ended_at_s is None else time.time() - last.ended_at_s
        if last is not None and not last.was_heard and ended_s < self._reconnect_grace_s():
            self._sessions.job_ended(last)
