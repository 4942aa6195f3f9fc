"""The live events of tenants' clients: one EventSession per client id, whose upstream socket is always drained, outlives its client for a
while, and hands a client that comes back what it missed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from policy.call import Opaque, UpstreamCall, UpstreamText
from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rule_context import OwnJobs, RuleContext
from policy.rules.recall import events_of
from policy.rules.results import UNNAMED_CLIENT
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.http.request_record import RequestRecord
from proxy.jobs.events import SocketReports
from proxy.jobs.registry import Job
from proxy.limits.keyed_semaphore import KeyedSemaphore
from proxy.tasks import Tasks
from proxy.upstream.client import Upstream
from proxy.websocket import relay
from proxy.websocket.event_session import MAX_KEPT_BYTES, EventSession
from proxy.websocket.send_queue import Frame, SendQueue

MAX_WAITING_STREAMS: Final = 16
"""Of one tenant: streams whose client is gone and may come back."""

RECALL_LIMIT_S: Final = 10.0

_log = logging.getLogger("comfygate")


class EventSessions:
    """Of tenants, by client id. reports: told what they hear of jobs."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        reconnect_grace_s: Callable[[], float],
        reports: SocketReports,
    ) -> None:
        self._upstream = upstream
        self._reconnect_grace_s = reconnect_grace_s
        self._reports = reports
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

    async def attach(
        self, record: RequestRecord, context: RuleContext, client_id: str, send_queue: SendQueue
    ) -> EventSession:
        """A session that hears ComfyUI, and sends to this client from now on. Raises UpstreamUnavailable, UpstreamTimeout."""
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
        socket = await connect(self._upstream, upstream_id)
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

    def leave(self, context: RuleContext, client_id: str, stream: EventSession) -> None:
        """Keeps the upstream socket for a client that may come back: while a job of its tenant waits or runs, and not for too many."""
        tenant = context.principal.tenant
        is_shared = client_id == UNNAMED_CLIENT and bool(self._named(tenant))
        if stream.is_attached or not stream.is_open or is_shared:
            return
        waiting = [other for other in self._named(tenant) if not other.is_attached]
        has_work = context.jobs.count_unfinished() > 0
        delay_s = self._reconnect_grace_s() if has_work and len(waiting) <= MAX_WAITING_STREAMS else 0.0
        self._tasks.start(self._close_later(stream, delay_s), "event stream grace")

    async def _close_later(self, stream: EventSession, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if not stream.is_attached and time.monotonic() - stream.left_at_s >= delay_s - 0.01:
            await stream.close()


async def connect(upstream: Upstream, client_id: UpstreamText | None) -> relay.UpstreamSocket:
    """ComfyUI's events for a client id, None for one of ComfyUI's choice. Raises UpstreamUnavailable, UpstreamTimeout."""
    query = () if client_id is None else (("clientId", client_id),)
    return await upstream.connect(UpstreamCall("GET", (Opaque("ws"),), query))
