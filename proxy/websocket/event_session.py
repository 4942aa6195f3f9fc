"""One upstream socket with its events, and the client that listens to it: always drained, it outlives its client for a while, and hands a
client that comes back what it missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from policy.namespace import Namespace
from policy.rule_context import OwnJobs
from policy.rules.events import PROGRESS, Event, EventRules, status_frame, to_upstream
from policy.rules.results import SDK_CLIENT
from proxy.http.websocket import Close, Hearer, WebSocket
from proxy.http.websocket_frames import TOO_BIG, Payload
from proxy.jobs.events import SocketReports
from proxy.websocket.connections import EVENT_TOO_BIG, GOING_AWAY, UPSTREAM_GONE
from proxy.websocket.heard_jobs import HeardJobs
from proxy.websocket.replay_buffer import ReplayBuffer
from proxy.websocket.send_queue import Frame, SendQueue, is_preview

Share = Callable[[str, Frame], None]


class EventSession(Hearer):
    """The receiver of one upstream socket. At most one client is attached: a second one with the same id takes over, as in ComfyUI."""

    __slots__ = (
        "_farewell",
        "_flags_reply",
        "_has_ended",
        "_heard",
        "_is_greeted",
        "_kept",
        "_on_end",
        "_reports",
        "_rules",
        "_send_queue",
        "_share",
        "_socket",
        "client_id",
        "grace",
        "is_closing",
        "is_open",
        "jobs",
        "opened_at_s",
    )

    def __init__(
        self,
        socket: WebSocket,
        names: Namespace,
        client_id: str,
        jobs: OwnJobs,
        reports: SocketReports,
        on_end: Callable[[EventSession], None] = lambda session: None,
        share: Share | None = None,
    ) -> None:
        """on_end: called when the socket is gone. share: hands events on to the tenant's other streams (kind, empty for binary ones; frame)."""
        self._socket = socket
        self._rules = EventRules(names, client_id)
        self.client_id = client_id
        self.jobs = jobs
        self._heard = HeardJobs(jobs, reports)
        self._reports = reports
        self._send_queue: SendQueue | None = None
        self._kept = ReplayBuffer()
        self._on_end = on_end
        self._share = share
        self.opened_at_s = time.time()
        self._flags_reply: str | None = None
        self._is_greeted = False
        self.is_open = True
        self.is_closing = False
        """The gate closes it: a client that comes just now gets another one, when this one has ended."""
        self._has_ended: asyncio.Event | None = None
        self._farewell: Close | None = None
        self.grace: asyncio.TimerHandle | None = None
        """Runs while it waits for a client that may come back."""

    @property
    def names(self) -> Namespace:
        return self._rules.names

    @property
    def is_attached(self) -> bool:
        return self._send_queue is not None

    def attach(self, send_queue: SendQueue, *, is_new: bool) -> None:
        """Sends events there from now on. A client that comes back gets what ComfyUI sends to new sockets alone, and what it missed."""
        self._send_queue = send_queue
        self.stop_grace()
        if not is_new:
            self._is_greeted = True
            send_queue.put(Frame(status_frame(self.jobs, self.client_id)))
            for text in self._kept.texts():
                send_queue.put(Frame(text))

    def stop_grace(self) -> None:
        if self.grace is not None:
            self.grace.cancel()
            self.grace = None

    def detach(self, send_queue: SendQueue) -> None:
        if self._send_queue is send_queue:
            self._send_queue = None

    def said_goodbye(self) -> tuple[str, ...]:
        """The client closed in order. → the jobs of whose end it has heard: the next socket of its id is not told of them again.

        Clients with one id for all their jobs take the first end that comes for the end of the job that they have just sent.
        """
        self._kept.drop_what_ended()
        return self._heard.ends()

    def from_client(self, data: str | Payload) -> None:
        """ComfyUI hears one thing from a client: its feature flags, once per upstream socket.

        SECURITY: what a client sends costs time that everybody waits for; once the flags are answered nothing is parsed
        (tests/security/test_client_messages.py).
        """
        if self._flags_reply is not None:
            if self._send_queue is not None and isinstance(data, str) and '"feature_flags"' in data:
                self._send_queue.put(Frame(self._flags_reply))
            return
        message = to_upstream(data) if isinstance(data, str) else None
        if message is not None:
            self._socket.send(message)

    def close(self, farewell: Close | None = None) -> None:
        """farewell: how its client's socket ends, once ComfyUI has none of this id any more; as when ComfyUI went away where there is none."""
        self.is_closing = True
        self._farewell = farewell
        self._socket.close(GOING_AWAY)

    async def wait_until_ended(self) -> None:
        """Until its connection is gone."""
        if self.is_open:
            self._has_ended = self._has_ended or asyncio.Event()
            await self._has_ended.wait()

    # What the WebSocket to ComfyUI calls. None of these waits: one client that does not read would stall everybody's events.

    def received(self, data: str | Payload) -> None:
        if not isinstance(data, str):
            if (named := self._rules.binary(data, self.jobs)) is not None:
                self._reports.listener.pictured(named, self.jobs)
                self.hand_on("", Frame(named, is_preview(named)), self._socket.frame if named is data else None)
            return
        event = self._rules.text(data, self.jobs)
        if event is None:
            return
        if event.kind == "feature_flags" or event.kind == "status":
            self._take_own(event)
            return
        if self._reports.withholds(event):
            return
        if event.kind not in PROGRESS:  # they are most of all events, and say nothing that the others do not
            self._heard.tell(event, is_attached=self._send_queue is not None)
            if self._send_queue is not None:
                self._send_queue.used_at_s = time.monotonic()
        self._reports.listener.heard(event, self.jobs)
        self.hand_on(event.kind, Frame(event.text), self._socket.frame if event.text is data else None)

    def _take_own(self, event: Event) -> None:
        """What is said to this socket alone, and of no job."""
        if event.kind == "feature_flags":
            self._flags_reply = event.text
        elif "sid" in event.data:
            self._is_greeted = True
        else:
            return  # a broadcast tells that somebody's queue changed: the gate announces the tenant's own changes
        if self._send_queue is not None:
            self._send_queue.put(Frame(event.text))

    def ended(self, close: Close, *, is_said: bool) -> None:
        self.is_open = False
        if self._send_queue is not None:
            gone = EVENT_TOO_BIG if close.code == TOO_BIG and not is_said else UPSTREAM_GONE
            self._send_queue.close(self._farewell or gone, at_once=self._farewell is not None)
        if self._has_ended is not None:
            self._has_ended.set()
        self._on_end(self)

    # What it hands on.

    def hand_on(self, kind: str, frame: Frame, ready: bytes | None = None) -> None:
        """An event for this client, whichever upstream socket brought it. kind: empty for binary ones, which are not kept. ready: see `Sink`."""
        if isinstance(frame.data, str) and self.client_id != SDK_CLIENT:  # there nobody comes back
            self._kept.keep(kind, frame.data)
        if self._send_queue is not None:
            self._send_queue.put(frame, ready)
        if self._share is not None:
            self._share(kind, frame)

    def tell(self, prompt_id: str, events: Iterable[Event], *, unless_heard: bool = False) -> None:
        """What ComfyUI does not say of a job itself, or has said before this socket was there. A beginning that was heard is not told again.

        unless_heard: nothing is told to a socket that has heard of the job after all.
        """
        is_heard = self._heard.knows(prompt_id)
        for event in () if is_heard and unless_heard else events:
            if event.kind != "execution_start" or not is_heard:
                self._heard.tell(event, is_attached=self._send_queue is not None)
                self.hand_on(event.kind, Frame(event.text))

    def push_status(self, frame: Frame) -> None:
        """The tenant's own count of jobs changed. A socket's first frame is the one with its id, as clients know it from ComfyUI."""
        if self._send_queue is not None and self._is_greeted:
            self._send_queue.put(frame)
