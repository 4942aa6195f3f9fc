"""The live events of clients. An admin's socket is relayed as it is; a tenant's is one EventStream per client id, whose upstream socket
is always drained, outlives its client for a while, and hands a client that comes back what it missed."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from aiohttp import WSCloseCode, web

from policy.call import Opaque, UpstreamCall, UpstreamText
from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rule_context import OwnJobs, RuleContext, RuleInput
from policy.rules.recall import events_of
from policy.rules.results import UNNAMED_CLIENT
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.http.request_record import RequestRecord
from proxy.jobs.events import SocketReports
from proxy.jobs.registry import Job, JobRegistry
from proxy.limits.keyed_semaphore import KeyedSemaphore
from proxy.tasks import Tasks
from proxy.upstream.client import Upstream
from proxy.websocket import relay
from proxy.websocket.connections import ConnectionRegistry
from proxy.websocket.event_session import MAX_KEPT_BYTES, EventSession
from proxy.websocket.places import Places, Slot
from proxy.websocket.send_queue import Close, Frame, SendQueue

MAX_WAITING_STREAMS: Final = 16
"""Of one tenant: streams whose client is gone and may come back."""

RECALL_LIMIT_S: Final = 10.0

_log = logging.getLogger("comfygate")


class EventSessions:
    """reports: told what the sockets hear of jobs. slot: of `Places`."""

    def __init__(
        self,
        upstream: Upstream,
        sockets: ConnectionRegistry,
        *,
        reconnect_grace_s: Callable[[], float],
        reports: SocketReports,
        slot: Slot,
        jobs: JobRegistry,
    ) -> None:
        self._upstream = upstream
        self._jobs = jobs
        self._sockets = sockets
        self._reconnect_grace_s = reconnect_grace_s
        self._reports = reports
        self._places = Places(slot, jobs.working_clients)
        self._streams: dict[tuple[TenantId, str], EventSession] = {}
        self._opening = KeyedSemaphore()
        self._tasks = Tasks()

    async def stop(self) -> None:
        await self._tasks.stop()

    def push_status(self, tenant: TenantId) -> None:
        """Tells the tenant's clients how many of its jobs wait and run."""
        for (owner, _), stream in self._streams.items():
            if owner == tenant:
                stream.push_status()

    def job_changed(self, job: Job) -> None:
        self.push_status(job.tenant)

    async def serve(self, request: web.BaseRequest, record: RequestRecord, incoming: RuleInput) -> web.StreamResponse:
        """Upgrades and serves until either side closes. ComfyUI is asked first: when it is down the client gets an honest 502."""
        principal, send_queue = incoming.context.principal, SendQueue()
        client_id = incoming.call.first("clientId") or secrets.token_hex(16)
        async with self._places.take(principal, client_id, send_queue):
            if principal.is_admin:
                return await self._relay(request, record, incoming, send_queue)
            return await self._serve_tenant(request, record, incoming, client_id, send_queue)

    async def _relay(
        self, request: web.BaseRequest, record: RequestRecord, incoming: RuleInput, send_queue: SendQueue
    ) -> web.StreamResponse:
        client_id = incoming.call.first("clientId")
        upstream = await self._connect(None if client_id is None else Opaque(client_id))
        try:
            client = await relay.accept(request)
        except BaseException:
            await upstream.close()
            raise
        record.status, record.has_started = 101, True
        with self._sockets.register(incoming.context.principal, send_queue):
            await relay.relay(request, client, upstream, send_queue)
        return client

    async def _serve_tenant(
        self,
        request: web.BaseRequest,
        record: RequestRecord,
        incoming: RuleInput,
        client_id: str,
        send_queue: SendQueue,
    ) -> web.StreamResponse:
        context = incoming.context
        stream = await self._attach(record, context, client_id, send_queue)
        try:
            await self._catch_up(context, client_id, stream)
            client = await relay.accept(request)
            record.status, record.has_started = 101, True
            with self._sockets.register(context.principal, send_queue):
                left = partial(self._left, client, stream)
                await relay.serve_client(request, client, send_queue, stream.from_client, left)
            return client
        finally:
            stream.detach(send_queue)
            self._leave(context, client_id, stream)

    def _left(self, client: web.WebSocketResponse, stream: EventSession, close: Close) -> None:
        """A connection that broke may have lost events on its way: only a client that says goodbye has heard what it was sent."""
        if client.close_code not in (None, WSCloseCode.ABNORMAL_CLOSURE):
            self._jobs.mark_heard(stream.said_goodbye())

    async def _catch_up(self, context: RuleContext, client_id: str, stream: EventSession) -> None:
        """What was submitted before this socket came."""
        tenant = context.principal.tenant
        if self._jobs.has_unnamed(tenant):
            await self.listen(tenant, context.jobs)
        last = self._jobs.last_of(tenant, client_id)
        ended_s = math.inf if last is None or last.ended_at_s is None else time.time() - last.ended_at_s
        if last is not None and not last.was_heard and ended_s < self._reconnect_grace_s():
            self.job_ended(last)

    async def _attach(
        self, record: RequestRecord, context: RuleContext, client_id: str, send_queue: SendQueue
    ) -> EventSession:
        key = (context.principal.tenant, client_id)
        upstream_id = context.names.client_id_to_upstream(client_id)
        # Two upstream sockets of one id at a time would leave ComfyUI with neither (E.4).
        async with self._opening.of(key):
            stream = self._streams.get(key)
            if stream is not None and stream.is_closing:
                await stream.ended.wait()
            elif stream is not None and stream.is_open:
                stream.attach(send_queue, is_new=False)
                return stream
            stream = await self._open(key, upstream_id, context.names, context.jobs, record)
            stream.attach(send_queue, is_new=True)
            return stream

    async def _open(
        self,
        key: tuple[TenantId, str],
        upstream_id: UpstreamText,
        names: Namespace,
        jobs: OwnJobs,
        record: RequestRecord | None = None,
    ) -> EventSession:
        started_s = time.perf_counter()
        socket = await self._connect(upstream_id)
        if record is not None:
            record.upstream_s = time.perf_counter() - started_s
        share = partial(self._share, key[0]) if key[1] == UNNAMED_CLIENT else None
        stream = self._streams[key] = EventSession(socket, names, key[1], jobs, self._reports, share)
        self._tasks.start(self._run(key, stream), "event stream")
        return stream

    async def listen(self, tenant: TenantId, jobs: OwnJobs) -> None:
        """Hears the events of the tenant's jobs without a client id, for all its sockets; nothing to do while it has none."""
        key, names = (tenant, UNNAMED_CLIENT), Namespace(tenant)
        if not self._named(tenant):
            return
        async with self._opening.of(key):
            stream = self._streams.get(key)
            if stream is not None and stream.is_closing:
                await stream.ended.wait()
            elif stream is not None and stream.is_open:
                return
            try:
                await self._open(key, names.client_id_to_upstream(UNNAMED_CLIENT), names, jobs)
            except (UpstreamUnavailable, UpstreamTimeout) as error:
                _log.info("events of jobs without a client id are not heard: %s", error)

    def _named(self, tenant: TenantId) -> list[EventSession]:
        return [
            stream
            for (owner, client_id), stream in self._streams.items()
            if owner == tenant and client_id != UNNAMED_CLIENT and stream.is_open
        ]

    def _share(self, tenant: TenantId, kind: str, frame: Frame) -> None:
        # SECURITY: to the streams of the same tenant alone (tests/matrix/test_unnamed.py).
        for stream in self._named(tenant):
            stream.overhear(kind, frame)

    def job_ended(self, job: Job) -> None:
        """A client that submitted first and opened its socket then is told what it missed."""
        stream = self._streams.get((job.tenant, job.client_id))
        if stream is not None and stream.is_open and stream.opened_at_s > job.claimed_at_s:
            self._tasks.start(self._recall(stream, job), "recall")

    async def _recall(self, stream: EventSession, job: Job) -> None:
        call = UpstreamCall("GET", (Opaque("history"), Opaque(job.prompt_id)))
        try:
            reply = await self._upstream.ask(call, time_limit_s=RECALL_LIMIT_S, max_bytes=MAX_KEPT_BYTES)
        except (UpstreamUnavailable, UpstreamTimeout):
            return  # what it missed it finds in its history
        entry = reply.value.get(job.prompt_id) if isinstance(reply.value, dict) else None
        stream.recall(job.prompt_id, events_of(entry, job.prompt_id))

    async def _run(self, key: tuple[TenantId, str], stream: EventSession) -> None:
        try:
            await stream.run()
        finally:
            if self._streams.get(key) is stream:
                del self._streams[key]
            unnamed = self._streams.get((key[0], UNNAMED_CLIENT))
            if unnamed is not None and not unnamed.is_attached and not self._named(key[0]):
                await unnamed.close()

    async def _connect(self, client_id: UpstreamText | None) -> relay.UpstreamSocket:
        query = () if client_id is None else (("clientId", client_id),)
        return await self._upstream.connect(UpstreamCall("GET", (Opaque("ws"),), query))

    def _leave(self, context: RuleContext, client_id: str, stream: EventSession) -> None:
        """Keeps the upstream socket for a client that may come back: while a job of its tenant waits or runs, and not for too many."""
        tenant = context.principal.tenant
        is_shared = client_id == UNNAMED_CLIENT and bool(self._named(tenant))
        if stream.is_attached or not stream.is_open or is_shared:
            return
        waiting = [other for other in self._named(tenant) if not other.is_attached]
        has_work = bool(context.jobs.pending() or context.jobs.running())
        delay_s = self._reconnect_grace_s() if has_work and len(waiting) <= MAX_WAITING_STREAMS else 0.0
        self._tasks.start(self._close_later(stream, delay_s), "event stream grace")

    async def _close_later(self, stream: EventSession, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if not stream.is_attached and time.monotonic() - stream.left_at_s >= delay_s - 0.01:
            await stream.close()
