"""The live events of tenants' clients: one EventSession per client id, whose upstream socket is always drained, outlives its client for a
while, and hands a client that comes back what it missed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from policy.call import Opaque, UpstreamCall, UpstreamText
from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rule_context import OwnJobs, RuleContext
from policy.rules.events import status_frame
from policy.rules.recall import events_of
from policy.rules.results import OWN_CLIENTS, SDK_CLIENT, UNNAMED_CLIENT
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.http.request_record import RequestRecord
from proxy.http.websocket import CLOSE_LIMIT_S, Close, WebSocket
from proxy.http.websocket_frames import Payload
from proxy.jobs.events import SocketReports
from proxy.jobs.registry import Job
from proxy.limits.keyed_semaphore import KeyedSemaphore
from proxy.tasks import Tasks
from proxy.upstream.client import Upstream
from proxy.websocket.event_session import EventSession
from proxy.websocket.paced_counts import PacedCounts
from proxy.websocket.send_queue import SendQueue
from proxy.websocket.upstream_events import UpstreamEvents

MAX_WAITING_STREAMS: Final = 16
"""Of one tenant: streams whose client is gone and may come back."""

_log = logging.getLogger("comfygate")


class Several(Protocol):
    """Keeps sockets of sessions to several ComfyUIs (proxy/websocket/session_sockets.py)."""

    def attached(self, session: EventSession) -> None:
        """There is another session, or an old one has a client again. Its socket to the first ComfyUI is open unless that one is away."""

    def lost(self, session: EventSession, comfyui: str) -> None:
        """A socket has ended that the gate did not close."""

    def job_changed(self, job: Job) -> None: ...

    async def stop(self) -> None: ...

    def connected(self, comfyui: str) -> None:
        """A ComfyUI is there, perhaps anew; "" for the first."""

    def has_missed(self, session: EventSession, job: Job) -> bool:
        """Whether it has not heard all of a job that has ended."""
        ...

    def events_of(self, session: EventSession, job: Job) -> UpstreamEvents:
        """Of the ComfyUI that the job was at."""
        ...


class EventSessions:
    """Of tenants, by client id. reports: told what they hear of jobs."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        reconnect_grace_s: Callable[[], float],
        reports: SocketReports,
        read_entry: Callable[[Job], Awaitable[Mapping[str, Any] | None]],
    ) -> None:
        """read_entry: of the history, in the client's names; None where it cannot be read."""
        self._read_entry = read_entry
        self._upstream = upstream
        self._reconnect_grace_s = reconnect_grace_s
        self._reports = reports
        self._streams: dict[TenantId, dict[str, EventSession]] = {}
        self._opening = KeyedSemaphore()
        self._counts = PacedCounts(self.push_status)
        self._tasks = Tasks()
        self.on_own_ended: Callable[[TenantId], None] = lambda tenant: None
        """Told when a tenant's socket for jobs of SDK_CLIENT is gone."""
        self.several: Several | None = None
        """Where there are several ComfyUIs."""

    async def stop(self) -> None:
        """Closes all of them; not for long."""
        await self._tasks.stop()
        if self.several is not None:
            await self.several.stop()
        await self.close_all()
        await self._tasks.stop()

    async def close_all(self, farewell: Close | None = None) -> None:
        """Those that are open, upstream first, not for long. farewell: see `EventSession.close`.

        A client that is told so comes back at another gate at once, and when an older socket of its id closes ComfyUI takes the newer one off its list (E.4).
        """
        streams = [stream for of_tenant in self._streams.values() for stream in of_tenant.values()]
        for stream in streams:
            stream.close(farewell)
        if streams:
            await asyncio.wait(
                [self._tasks.start(stream.wait_until_ended(), "event stream end") for stream in streams],
                timeout=CLOSE_LIMIT_S,
            )

    def stream(self, tenant: TenantId, client_id: str) -> EventSession | None:
        """The session of this client id, which may be about to end."""
        return self._streams.get(tenant, {}).get(client_id)

    def push_status(self, tenant: TenantId) -> None:
        """Tells the tenant's clients how many of its jobs wait and run."""
        status = ""
        for stream in self._streams.get(tenant, {}).values():
            status = status or status_frame(stream.jobs)
            stream.push_status(status)

    def job_changed(self, job: Job) -> None:
        if self._streams.get(job.tenant):
            self._counts.changed(job.tenant)
            if self.several is not None:
                self.several.job_changed(job)

    async def attach(
        self, record: RequestRecord, context: RuleContext, client_id: str, send_queue: SendQueue
    ) -> EventSession:
        """A session that hears ComfyUI, and sends to this client from now on. Raises UpstreamUnavailable, UpstreamTimeout."""
        key = (context.principal.tenant, client_id)
        upstream_id = context.names.client_id_to_upstream(client_id)
        # Two upstream sockets of one id at a time would leave ComfyUI with neither (E.4).
        async with self._opening.of(key):
            stream = self.stream(*key)
            if stream is not None and stream.is_closing:
                await stream.wait_until_ended()
            elif stream is not None and stream.is_open:
                stream.attach(send_queue)
                if self.several is not None:
                    self.several.attached(stream)
                return stream
            started_s = time.perf_counter()
            stream = await self._open(context.names, client_id, upstream_id, context.jobs, send_queue)
            record.upstream_s = time.perf_counter() - started_s
            return stream

    async def _open(
        self,
        names: Namespace,
        client_id: str,
        upstream_id: UpstreamText,
        jobs: OwnJobs,
        send_queue: SendQueue | None = None,
    ) -> EventSession:
        socket = await _connect_first(self._upstream, upstream_id, may_be_away=self.several is not None)
        # SECURITY: with the streams of the same tenant alone (tests/matrix/test_unnamed.py).
        share = partial(_share, partial(self._named, names.tenant)) if client_id == UNNAMED_CLIENT else None
        on_lost = None if self.several is None else self.several.lost
        stream = EventSession(names, client_id, jobs, self._reports, self._ended, share, on_lost)
        self._streams.setdefault(names.tenant, {})[client_id] = stream
        if send_queue is not None:
            stream.attach(send_queue)
        if socket is not None:
            stream.begin(socket)
        if self.several is not None:
            self.several.attached(stream)
        return stream

    async def listen(self, tenant: TenantId, jobs: OwnJobs) -> None:
        """Hears the events of the tenant's jobs without a client id, for all its sockets; nothing to do while it has none."""
        if self._named(tenant):
            try:
                await self.hear(tenant, jobs, UNNAMED_CLIENT)
            except (UpstreamUnavailable, UpstreamTimeout) as error:
                _log.info("events of jobs without a client id are not heard: %s", error)

    async def hear(self, tenant: TenantId, jobs: OwnJobs, client_id: str) -> None:
        """Hears the events of this client id, one of OWN_CLIENTS, from now on. Raises UpstreamUnavailable, UpstreamTimeout."""
        key, names = (tenant, client_id), Namespace(tenant)
        async with self._opening.of(key):
            stream = self.stream(*key)
            if stream is not None and stream.is_closing:
                await stream.wait_until_ended()
            elif stream is not None and stream.is_open:
                return
            await self._open(names, client_id, names.client_id_to_upstream(client_id), jobs)

    def _named(self, tenant: TenantId) -> list[EventSession]:
        return [
            stream
            for client_id, stream in self._streams.get(tenant, {}).items()
            if client_id not in OWN_CLIENTS and stream.is_open
        ]

    def job_ended(self, job: Job, *, is_elsewhere: bool = False) -> None:
        """A client that submitted first and opened its socket then is told what it missed.

        is_elsewhere: another gate has seen its end. ComfyUI's events may have come here before it was known whose they are, and what that gate says
        of the job itself is said there alone: whoever was there, or comes back from elsewhere, and has heard of no end is told.
        """
        has_missed = partial(_has_missed_its_end, self._reconnect_grace_s()) if is_elsewhere else _has_missed
        stream = self.stream(job.tenant, job.client_id) if job.client_id != SDK_CLIENT else None
        if stream is not None and stream.is_open and has_missed(self.several, stream, job):
            self._tasks.start(self._recall(stream, job, has_missed), "recall")

    async def _recall(
        self, stream: EventSession, job: Job, has_missed: Callable[[Several | None, EventSession, Job], bool]
    ) -> None:
        events = events_of(await self._read_entry(job), job.prompt_id)
        if has_missed(self.several, stream, job):
            _events_of(self.several, stream, job).tell(job.prompt_id, events)

    def job_failed(self, job: Job, entry: Mapping[str, Any]) -> None:
        """ComfyUI does not tell of its end. entry: of the history, in the client's names."""
        stream = self.stream(job.tenant, job.client_id or UNNAMED_CLIENT)
        if stream is not None and stream.is_open:
            _events_of(self.several, stream, job).tell(job.prompt_id, events_of(entry, job.prompt_id))

    def _ended(self, stream: EventSession) -> None:
        tenant = stream.names.tenant
        of_tenant = self._streams.get(tenant, {})
        if of_tenant.get(stream.client_id) is stream:
            del of_tenant[stream.client_id]
            if stream.client_id == SDK_CLIENT:
                self.on_own_ended(tenant)
        if not of_tenant:
            self._streams.pop(tenant, None)
        unnamed = of_tenant.get(UNNAMED_CLIENT)
        if unnamed is not None and not unnamed.is_attached and not self._named(tenant):
            unnamed.close()

    def leave(self, stream: EventSession) -> None:
        """Keeps the upstream socket for a client that may come back: while a job of its tenant waits or runs, and not for too many."""
        tenant = stream.names.tenant
        is_shared = stream.client_id == UNNAMED_CLIENT and bool(self._named(tenant))
        if stream.is_attached or not stream.is_open or is_shared or stream.client_id == SDK_CLIENT:
            return  # the last is closed by whoever keeps it open (proxy/websocket/own_sockets.py)
        stream.stop_grace()  # of another client of its id that has left before: its time would end the next one's
        waiting = [other for other in self._named(tenant) if not other.is_attached]
        delay_s = (
            self._reconnect_grace_s() if stream.jobs.count_unfinished() and len(waiting) <= MAX_WAITING_STREAMS else 0.0
        )
        if delay_s:
            stream.grace = asyncio.get_running_loop().call_later(delay_s, stream.close)
        else:
            stream.close()


def all_open(sessions: EventSessions) -> list[EventSession]:
    """Those of all tenants."""
    return [each for of_tenant in sessions._streams.values() for each in of_tenant.values() if each.is_open]


def _has_missed(several: Several | None, stream: EventSession, job: Job) -> bool:
    if several is not None:
        return several.has_missed(stream, job)
    return stream.opened_at_s > job.claimed_at_s and not stream.at("").knows(job.prompt_id)


def _has_missed_its_end(grace_s: float, several: Several | None, stream: EventSession, job: Job) -> bool:
    """grace_s: how long before the socket was opened it may have ended."""
    was_there = job.ended_at_s is not None and stream.opened_at_s - job.ended_at_s < grace_s
    return was_there and not _events_of(several, stream, job).has_ended(job.prompt_id)


def _events_of(several: Several | None, stream: EventSession, job: Job) -> UpstreamEvents:
    return stream.at("") if several is None else several.events_of(stream, job)


def _share(streams: Callable[[], list[EventSession]], kind: str, message: str | Payload, comfyui: str) -> None:
    for stream in streams():
        stream.hand_on(kind, message, None, comfyui)


async def _connect_first(upstream: Upstream, client_id: UpstreamText, *, may_be_away: bool) -> WebSocket | None:
    """None while it is away. Raises UpstreamUnavailable, UpstreamTimeout, where it may not be."""
    try:
        return await connect(upstream, client_id)
    except (UpstreamUnavailable, UpstreamTimeout):
        if not may_be_away:
            raise
        return None


async def connect(upstream: Upstream, client_id: UpstreamText | None) -> WebSocket:
    """ComfyUI's events for a client id, None for one of ComfyUI's choice. Raises UpstreamUnavailable, UpstreamTimeout."""
    query = () if client_id is None else (("clientId", client_id),)
    return await upstream.connect(UpstreamCall("GET", (Opaque("ws"),), query))
