"""One upstream socket with its events, and the client that listens to it: always drained, it outlives its client for a while, and hands a
client that comes back what it missed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import aiohttp

from policy.namespace import Namespace
from policy.rule_context import OwnJobs
from policy.rules.events import ENDS, Event, EventRules, status_frame, to_upstream
from policy.rules.results import temp_files
from proxy.jobs.events import SocketReports
from proxy.jobs.history import cached_nodes
from proxy.jobs.temp_files import Made
from proxy.websocket import relay
from proxy.websocket.connections import TOO_MANY_MESSAGES, UPSTREAM_GONE
from proxy.websocket.message_rate import MessageRate
from proxy.websocket.send_queue import Frame, SendQueue

MAX_KEPT_EVENTS: Final = 2000
MAX_KEPT_BYTES: Final = 4 * 1024**2
MAX_HEARD: Final = 64
"""Ids of jobs that a stream has heard of."""
_PROGRESS: Final = frozenset({"progress", "progress_state"})


class ReplayBuffer:
    """The text events of the job that runs, or ran last: what a client that lost its connection may have missed. Bounded."""

    def __init__(self) -> None:
        self._events: deque[tuple[str, str]] = deque()
        self._bytes = 0
        self._is_over = self._is_dropped = False

    def keep(self, kind: str, text: str) -> None:
        if kind == "execution_start":
            self._clear()
            self._is_over = self._is_dropped = False
        elif self._is_dropped:
            return
        elif kind in _PROGRESS and self._events and self._events[-1][0] == kind:
            self._bytes -= len(self._events.pop()[1])  # each tells the whole state: the newest is enough
        self._events.append((kind, text))
        self._bytes += len(text)
        self._is_over = self._is_over or kind in ENDS
        while len(self._events) > MAX_KEPT_EVENTS or self._bytes > MAX_KEPT_BYTES:
            self._bytes -= len(self._events.popleft()[1])

    def drop_what_ended(self) -> None:
        """Nothing of a job that has ended is kept any more, nor what still comes of it."""
        if self._is_over:
            self._clear()
            self._is_dropped = True

    def texts(self) -> list[str]:
        return [text for _, text in self._events]

    def _clear(self) -> None:
        self._events.clear()
        self._bytes = 0


class EventSession:
    """One upstream socket. At most one client is attached: a second one with the same id takes over, as in ComfyUI."""

    def __init__(
        self,
        socket: relay.UpstreamSocket,
        names: Namespace,
        client_id: str,
        jobs: OwnJobs,
        reports: SocketReports,
        share: Callable[[str, Frame], None] | None = None,
    ) -> None:
        """share: hands events on to the tenant's other streams (kind, empty for binary ones; frame)."""
        self._socket = socket
        self._rules = EventRules(names, client_id)
        self._client_id = client_id
        self._jobs = jobs
        self._reports = reports
        self._send_queue: SendQueue | None = None
        self._kept = ReplayBuffer()
        self._cached: tuple[str, frozenset[str]] | None = None
        self._share = share
        self._heard: deque[str] = deque(maxlen=MAX_HEARD)
        self._ends_told: deque[str] = deque(maxlen=MAX_HEARD)
        self.opened_at_s = time.time()
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
        return self._send_queue is not None

    def attach(self, send_queue: SendQueue, *, is_new: bool) -> None:
        """Sends events there from now on. A client that comes back gets what ComfyUI sends to new sockets alone, and what it missed."""
        self._send_queue = send_queue
        self._rate = MessageRate()
        if not is_new:
            self._is_greeted = True
            send_queue.put(Frame(status_frame(self._jobs, self._client_id)))
            for text in self._kept.texts():
                send_queue.put(Frame(text))

    def detach(self, send_queue: SendQueue) -> None:
        if self._send_queue is send_queue:
            self._send_queue = None
            self.left_at_s = time.monotonic()

    def said_goodbye(self) -> tuple[str, ...]:
        """The client closed in order. → the jobs of whose end it has heard: the next socket of its id is not told of them again.

        Clients with one id for all their jobs take the first end that comes for the end of the job that they have just sent.
        """
        self._kept.drop_what_ended()
        return tuple(self._ends_told)

    async def run(self) -> None:
        """Drains ComfyUI until it closes."""
        close = UPSTREAM_GONE
        try:
            close = await relay.drain(self._socket, self._deliver)
        finally:
            self.is_open = False
            if self._send_queue is not None:
                self._send_queue.close(close if close.code == relay.TOO_BIG else UPSTREAM_GONE)
            await self._socket.close()
            if not self.is_closing:
                self.ended.set()

    async def from_client(self, data: str | bytes) -> None:
        """ComfyUI hears one thing from a client: its feature flags, once per upstream socket.

        SECURITY: what a client sends costs time that everybody waits for; above a rate its socket is closed, and once the flags
        are answered nothing is parsed (tests/security/test_client_messages.py).
        """
        if not self._rate.takes(len(data)):
            if self._send_queue is not None:
                self._send_queue.close(TOO_MANY_MESSAGES, at_once=True)
            return
        if self._flags_reply is not None:
            if self._send_queue is not None and isinstance(data, str) and '"feature_flags"' in data:
                self._send_queue.put(Frame(self._flags_reply))
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
            if data is not None:
                self._hand_on("", Frame(data, frame.is_preview))
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
            if self._send_queue is not None:
                self._send_queue.used_at_s = time.monotonic()
            self._hand_on(event.kind, Frame(event.text))
            return
        if self._send_queue is not None:
            self._send_queue.put(Frame(event.text))

    def _hand_on(self, kind: str, frame: Frame) -> None:
        self.overhear(kind, frame)
        if self._share is not None:
            self._share(kind, frame)

    def overhear(self, kind: str, frame: Frame) -> None:
        """An event for this client, whichever upstream socket brought it. kind: empty for binary ones, which are not kept."""
        if isinstance(frame.data, str):
            self._kept.keep(kind, frame.data)
        if self._send_queue is not None:
            self._send_queue.put(frame)

    def recall(self, prompt_id: str, frames: list[str]) -> None:
        """The events of a job that ended before this socket was there, unless it heard of the job after all."""
        if prompt_id not in self._heard:
            for text in frames:
                self._deliver(Frame(text))

    def push_status(self) -> None:
        """The tenant's own count of jobs changed. A socket's first frame is the one with its id, as clients know it from ComfyUI."""
        if self._send_queue is not None and self._is_greeted:
            self._send_queue.put(Frame(status_frame(self._jobs)))

    def _tell(self, event: Event) -> None:
        """Events come before the queue watcher has asked: what the client does next must find the registry up to date."""
        if event.kind == "executing":
            self._tell_place(event)
        if event.prompt_id is None:
            return
        if event.prompt_id not in self._heard:
            self._heard.append(event.prompt_id)
        if event.kind == "execution_start":
            self._reports.started(event.prompt_id)
        elif event.kind == "execution_cached":
            self._cached = (event.prompt_id, cached_nodes(event.data))
        elif event.kind in ENDS:
            self._reports.ended(event.prompt_id)
            if self._send_queue is not None:
                self._ends_told.append(event.prompt_id)
        elif event.kind == "executed" and (names := temp_files(event.data.get("output"))):
            self._reports.made_temp_files(event.prompt_id, names, self._made(event))

    def _tell_place(self, event: Event) -> None:
        """Where a job is. To a socket that is opened meanwhile ComfyUI does not say of which job it speaks: of the one that runs."""
        running = self._jobs.running() if event.prompt_id is None else [event.prompt_id]
        nodes = (event.data.get("node"), event.data.get("display_node"))
        if len(running) == 1:
            self._reports.is_at(running[0], frozenset(node for node in nodes if isinstance(node, str)))

    def _made(self, event: Event) -> Made:
        if self._cached is None or self._cached[0] != event.prompt_id:
            return Made.UNKNOWN  # this socket was opened while the job ran
        return Made.EARLIER if event.data.get("node") in self._cached[1] else Made.NOW
