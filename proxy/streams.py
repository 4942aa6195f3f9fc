"""The live events of clients. An admin's socket is relayed as it is; a tenant's is one EventStream per client id, whose upstream socket
is always drained, outlives its client for a while, and hands a client that comes back what it missed."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web

from policy.call import Opaque, UpstreamCall, UpstreamText
from policy.caller import Caller, OwnJobs, Request
from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rules.events import Event, EventRules, status_frame, to_upstream
from policy.rules.results import temp_files
from proxy import websocket
from proxy.exchange import Exchange
from proxy.history import cached_nodes
from proxy.messagerate import MessageRate
from proxy.outbox import Frame, Outbox
from proxy.places import Places, Slot
from proxy.sockets import TOO_MANY_MESSAGES, UPSTREAM_GONE, Sockets
from proxy.tasks import Tasks
from proxy.tempfiles import Made
from proxy.turns import Turns
from proxy.upstream import Upstream

MAX_KEPT_EVENTS: Final = 2000
MAX_KEPT_BYTES: Final = 4 * 1024**2
MAX_WAITING_STREAMS: Final = 16
"""Of one tenant: streams whose client is gone and may come back."""

_PROGRESS: Final = frozenset({"progress", "progress_state"})
_ENDS: Final = frozenset({"execution_success", "execution_error", "execution_interrupted"})


class KeptEvents:
    """The text events of the job that runs, or ran last: what a client that lost its connection may have missed. Bounded."""

    def __init__(self) -> None:
        self._events: deque[tuple[str, str]] = deque()
        self._bytes = 0

    def keep(self, kind: str, text: str) -> None:
        if kind == "execution_start":
            self._events.clear()
            self._bytes = 0
        elif kind in _PROGRESS and self._events and self._events[-1][0] == kind:
            self._bytes -= len(self._events.pop()[1])  # each tells the whole state: the newest is enough
        self._events.append((kind, text))
        self._bytes += len(text)
        while len(self._events) > MAX_KEPT_EVENTS or self._bytes > MAX_KEPT_BYTES:
            self._bytes -= len(self._events.popleft()[1])

    def texts(self) -> list[str]:
        return [text for _, text in self._events]


@dataclass(frozen=True, slots=True)
class JobHooks:
    """What the streams tell of their tenants' jobs, in the order in which ComfyUI's events say so."""

    started: Callable[[str], None]
    ended: Callable[[str], None]
    made_temp_files: Callable[[str, list[str], Made], None]


class EventStream:
    """One upstream socket. At most one client is attached: a second one with the same id takes over, as in ComfyUI."""

    def __init__(
        self, socket: websocket.UpstreamSocket, names: Namespace, client_id: str, jobs: OwnJobs, hooks: JobHooks
    ) -> None:
        self._socket = socket
        self._rules = EventRules(names, client_id)
        self._client_id = client_id
        self._jobs = jobs
        self._hooks = hooks
        self._outbox: Outbox | None = None
        self._kept = KeptEvents()
        self._cached: tuple[str, frozenset[str]] | None = None
        self._flags_reply: str | None = None
        self._rate = MessageRate()
        self._is_greeted = False
        self.is_open = True
        self.is_closing = False
        """The gate closes it: a client that comes just now gets another one, when this one has ended."""
        self.ended = asyncio.Event()
        self.left_at_s = 0.0

    @property
    def is_attached(self) -> bool:
        return self._outbox is not None

    def attach(self, outbox: Outbox, *, is_new: bool) -> None:
        """Sends events there from now on. A client that comes back gets what ComfyUI sends to new sockets alone, and what it missed."""
        self._outbox = outbox
        self._rate = MessageRate()
        if not is_new:
            self._is_greeted = True
            outbox.put(Frame(status_frame(self._jobs, self._client_id)))
            for text in self._kept.texts():
                outbox.put(Frame(text))

    def detach(self, outbox: Outbox) -> None:
        if self._outbox is outbox:
            self._outbox = None
            self.left_at_s = time.monotonic()

    async def run(self) -> None:
        """Drains ComfyUI until it closes."""
        close = UPSTREAM_GONE
        try:
            close = await websocket.drain(self._socket, self._deliver)
        finally:
            self.is_open = False
            if self._outbox is not None:
                self._outbox.close(close if close.code == websocket.TOO_BIG else UPSTREAM_GONE)
            await self._socket.close()
            if not self.is_closing:
                self.ended.set()

    async def from_client(self, data: str | bytes) -> None:
        """ComfyUI hears one thing from a client: its feature flags, once per upstream socket.

        SECURITY: what a client sends costs time that everybody waits for; above a rate its socket is closed, and once the flags
        are answered nothing is parsed (tests/security/test_client_messages.py).
        """
        if not self._rate.takes(len(data)):
            if self._outbox is not None:
                self._outbox.close(TOO_MANY_MESSAGES, at_once=True)
            return
        if self._flags_reply is not None:
            if self._outbox is not None and isinstance(data, str) and '"feature_flags"' in data:
                self._outbox.put(Frame(self._flags_reply))
            return
        message = to_upstream(data) if isinstance(data, str) else None
        if message is None:
            return
        try:
            await self._socket.send_str(message)
        except (ConnectionError, aiohttp.ClientError, RuntimeError):
            return  # ComfyUI is gone: run() sees the same and closes the client

    async def close(self) -> None:
        self.is_closing = True
        try:
            await self._socket.close()
        finally:
            self.ended.set()

    def _deliver(self, frame: Frame) -> None:
        if isinstance(frame.data, bytes):
            data = self._rules.binary(frame.data, self._jobs)
            if data is not None and self._outbox is not None:
                self._outbox.put(Frame(data, frame.is_preview))
            return
        event = self._rules.text(frame.data, self._jobs)
        if event is None:
            return
        if event.kind == "feature_flags":
            self._flags_reply = event.text
        elif event.kind == "status":
            if "sid" not in event.data:
                return  # a broadcast tells that somebody's queue changed: the gate announces the tenant's own changes
            self._is_greeted = True
        else:
            self._tell(event)
            self._kept.keep(event.kind, event.text)
            if self._outbox is not None:
                self._outbox.used_at_s = time.monotonic()
        if self._outbox is not None:
            self._outbox.put(Frame(event.text))

    def announce(self) -> None:
        """The tenant's own count of jobs changed. A socket's first frame is the one with its id, as clients know it from ComfyUI."""
        if self._outbox is not None and self._is_greeted:
            self._outbox.put(Frame(status_frame(self._jobs)))

    def _tell(self, event: Event) -> None:
        """Events come before the observer has asked: what the client does next must find the ledger up to date."""
        if event.prompt_id is None:
            return
        if event.kind == "execution_start":
            self._hooks.started(event.prompt_id)
        elif event.kind == "execution_cached":
            self._cached = (event.prompt_id, cached_nodes(event.data))
        elif event.kind in _ENDS:
            self._hooks.ended(event.prompt_id)
        elif event.kind == "executed" and (names := temp_files(event.data.get("output"))):
            self._hooks.made_temp_files(event.prompt_id, names, self._made(event))

    def _made(self, event: Event) -> Made:
        if self._cached is None or self._cached[0] != event.prompt_id:
            return Made.UNKNOWN  # this socket was opened while the job ran
        return Made.EARLIER if event.data.get("node") in self._cached[1] else Made.NOW


class EventStreams:
    """slot, working: of `Places`."""

    def __init__(
        self,
        upstream: Upstream,
        sockets: Sockets,
        *,
        reconnect_grace_s: Callable[[], float],
        hooks: JobHooks,
        slot: Slot = lambda principal: nullcontext(),
        working: Callable[[TenantId], frozenset[str]] = lambda tenant: frozenset(),
    ) -> None:
        self._upstream = upstream
        self._sockets = sockets
        self._reconnect_grace_s = reconnect_grace_s
        self._hooks = hooks
        self._places = Places(slot, working)
        self._streams: dict[tuple[TenantId, str], EventStream] = {}
        self._opening = Turns()
        self._tasks = Tasks()

    async def stop(self) -> None:
        await self._tasks.stop()

    def announce(self, tenant: TenantId) -> None:
        """Tells the tenant's clients how many of its jobs wait and run."""
        for (owner, _), stream in self._streams.items():
            if owner == tenant:
                stream.announce()

    async def serve(self, request: web.BaseRequest, exchange: Exchange, incoming: Request) -> web.StreamResponse:
        """Upgrades and serves until either side closes. ComfyUI is asked first: when it is down the client gets an honest 502."""
        principal, outbox = incoming.caller.principal, Outbox()
        client_id = incoming.call.first("clientId") or secrets.token_hex(16)
        async with self._places.take(principal, client_id, outbox):
            if principal.is_admin:
                return await self._relay(request, exchange, incoming, outbox)
            return await self._serve_tenant(request, exchange, incoming, client_id, outbox)

    async def _relay(
        self, request: web.BaseRequest, exchange: Exchange, incoming: Request, outbox: Outbox
    ) -> web.StreamResponse:
        client_id = incoming.call.first("clientId")
        upstream = await self._connect(exchange, None if client_id is None else Opaque(client_id))
        try:
            client = await websocket.accept(request)
        except BaseException:
            await upstream.close()
            raise
        exchange.status, exchange.has_started = 101, True
        with self._sockets.register(incoming.caller.principal, outbox):
            await websocket.relay(request, client, upstream, outbox)
        return client

    async def _serve_tenant(
        self, request: web.BaseRequest, exchange: Exchange, incoming: Request, client_id: str, outbox: Outbox
    ) -> web.StreamResponse:
        caller = incoming.caller
        stream = await self._attach(exchange, caller, client_id, outbox)
        try:
            client = await websocket.accept(request)
            exchange.status, exchange.has_started = 101, True
            with self._sockets.register(caller.principal, outbox):
                await websocket.serve_client(request, client, outbox, stream.from_client)
            return client
        finally:
            stream.detach(outbox)
            self._leave(caller, client_id, stream)

    async def _attach(self, exchange: Exchange, caller: Caller, client_id: str, outbox: Outbox) -> EventStream:
        key = (caller.principal.tenant, client_id)
        upstream_id = caller.names.client_id_to_upstream(client_id)
        # Two upstream sockets of one id at a time would leave ComfyUI with neither (E.4).
        async with self._opening.of(key):
            stream = self._streams.get(key)
            if stream is not None and stream.is_closing:
                await stream.ended.wait()
            elif stream is not None and stream.is_open:
                stream.attach(outbox, is_new=False)
                return stream
            socket = await self._connect(exchange, upstream_id)
            stream = EventStream(socket, caller.names, client_id, caller.jobs, self._hooks)
            stream.attach(outbox, is_new=True)
            self._streams[key] = stream
            self._tasks.start(self._run(key, stream), "event stream")
            return stream

    async def _run(self, key: tuple[TenantId, str], stream: EventStream) -> None:
        try:
            await stream.run()
        finally:
            if self._streams.get(key) is stream:
                del self._streams[key]

    async def _connect(self, exchange: Exchange, client_id: UpstreamText | None) -> websocket.UpstreamSocket:
        query = () if client_id is None else (("clientId", client_id),)
        started_s = time.perf_counter()
        socket = await self._upstream.connect(UpstreamCall("GET", (Opaque("ws"),), query))
        exchange.upstream_s = time.perf_counter() - started_s
        return socket

    def _leave(self, caller: Caller, client_id: str, stream: EventStream) -> None:
        """Keeps the upstream socket for a client that may come back: while a job of its tenant waits or runs, and not for too many."""
        if stream.is_attached or not stream.is_open:
            return
        tenant = caller.principal.tenant
        waiting = [other for (owner, _), other in self._streams.items() if owner == tenant and not other.is_attached]
        has_work = bool(caller.jobs.pending() or caller.jobs.running())
        delay_s = self._reconnect_grace_s() if has_work and len(waiting) <= MAX_WAITING_STREAMS else 0.0
        self._tasks.start(self._close_later(stream, delay_s), "event stream grace")

    async def _close_later(self, stream: EventStream, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if not stream.is_attached and time.monotonic() - stream.left_at_s >= delay_s - 0.01:
            await stream.close()
