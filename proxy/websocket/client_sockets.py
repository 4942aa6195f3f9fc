"""Serves the WebSockets of clients. An admin's is relayed as it is; a tenant's is fed by the session of its client id."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from policy.call import Opaque
from policy.rule_context import RuleContext, RuleInput
from proxy.http.heartbeat import Heartbeat
from proxy.http.replies import UpgradedReply
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.http.upgrade import accept
from proxy.jobs.registry import JobRegistry
from proxy.upstream.client import Upstream
from proxy.websocket.client_socket import ClientSocket
from proxy.websocket.connections import GOING_AWAY, ConnectionRegistry, Socket
from proxy.websocket.event_session import EventSession
from proxy.websocket.event_sessions import EventSessions, connect
from proxy.websocket.places import Place, Places, Slot
from proxy.websocket.relay import RelayedClient
from proxy.websocket.send_queue import SendQueue
from proxy.websocket.tenant_client import TenantClient

SILENCE_S: Final = 300.0
"""A client that answers no ping for so long is given up, whatever its machine does."""


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
        self._heartbeat = Heartbeat(SILENCE_S)

    async def serve(self, request: Request, record: RequestRecord, incoming: RuleInput) -> UpgradedReply:
        """Upgrades; what comes and goes from then on needs no request. Raises LimitExceeded, and before the upgrade UpstreamUnavailable and
        UpstreamTimeout.
        """
        principal, send_queue = incoming.context.principal, SendQueue()
        client_id = incoming.call.first("clientId") or secrets.token_hex(16)
        place = await self._places.take(principal, client_id, send_queue)
        try:
            if principal.is_admin:
                client = await self._relay(request, incoming, send_queue)
            else:
                client = await self._serve_tenant(request, record, incoming.context, client_id, send_queue)
        except BaseException:
            self._places.leave(place)
            raise
        record.status = 101
        client.at_end(partial(self._left, place, self._sockets.register(principal, send_queue)))
        self._heartbeat.watch(client.socket)
        client.open()
        return UpgradedReply(client.at_end)

    def _left(self, place: Place, socket: Socket) -> None:
        self._sockets.remove(socket)
        self._places.leave(place)

    async def _relay(self, request: Request, incoming: RuleInput, send_queue: SendQueue) -> ClientSocket:
        client_id = incoming.call.first("clientId")
        upstream = await connect(self._upstream, None if client_id is None else Opaque(client_id))
        try:
            client = RelayedClient(send_queue, upstream)
            await accept(request, client.socket)
        except BaseException:
            upstream.close(GOING_AWAY)
            raise
        return client

    async def _serve_tenant(
        self, request: Request, record: RequestRecord, context: RuleContext, client_id: str, send_queue: SendQueue
    ) -> ClientSocket:
        stream = await self._sessions.attach(record, context, client_id, send_queue)
        try:
            await self._catch_up(context, client_id, stream)
            client = TenantClient(send_queue, stream, self._jobs, self._sessions.leave)
            await accept(request, client.socket)
        except BaseException:
            stream.detach(send_queue)
            self._sessions.leave(stream)
            raise
        return client

    async def _catch_up(self, context: RuleContext, client_id: str, stream: EventSession) -> None:
        """What was submitted before this socket came."""
        tenant = context.principal.tenant
        if self._jobs.has_unnamed(tenant):
            await self._sessions.listen(tenant, context.jobs)
        last = self._jobs.last_of(tenant, client_id)
        ended_s = math.inf if last is None or last.ended_at_s is None else time.time() - last.ended_at_s
        if last is not None and not last.was_heard and ended_s < self._reconnect_grace_s():
            self._sessions.job_ended(last)
