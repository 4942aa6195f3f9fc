"""The events of one client id, and the client that listens to them: always drained, they outlive their client for a while, and it gets what it
missed when it comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from policy.namespace import Namespace
from policy.rule_context import OwnJobs
from policy.rules.events import Event, status_frame, to_upstream
from policy.rules.results import SDK_CLIENT
from proxy.http.websocket import Close, WebSocket
from proxy.http.websocket_frames import TOO_BIG, Payload
from proxy.jobs.events import SocketReports
from proxy.websocket.connections import EVENT_TOO_BIG, UPSTREAM_GONE
from proxy.websocket.replay_buffer import ReplayBuffer
from proxy.websocket.send_queue import SendQueue
from proxy.websocket.upstream_events import UpstreamEvents

Share = Callable[[str, str | Payload, str], None]
Lost = Callable[["EventSession", str], None]
_NOTHING_KEPT: Final[Mapping[str, ReplayBuffer]] = MappingProxyType({})
_NO_OTHERS: Final[Mapping[str, UpstreamEvents]] = MappingProxyType({})

FLAGS: Final = '{"type": "feature_flags", "data": {"supports_preview_metadata": true}}'
"""What ComfyUI is told on a socket of the gate's own: previews come with their node and job."""


class EventSession:
    """At most one client is attached: a second one with the same id takes over, as in ComfyUI.

    It ends with its socket to ComfyUI. Where there are several ComfyUIs it has a socket to each at which jobs of its client id are, and ends
    when the gate closes it: while one of them is away there is no socket to that one, and its client stays.
    """

    __slots__ = (
        "_farewell",
        "_first",
        "_flags",
        "_flags_reply",
        "_kept",
        "_on_end",
        "_on_lost",
        "_others",
        "_reports",
        "_share",
        "client_id",
        "grace",
        "is_closing",
        "is_open",
        "jobs",
        "names",
        "opened_at_s",
        "send_queue",
    )

    def __init__(
        self,
        names: Namespace,
        client_id: str,
        jobs: OwnJobs,
        reports: SocketReports,
        on_end: Callable[[EventSession], None] = lambda session: None,
        share: Share | None = None,
        on_lost: Lost | None = None,
    ) -> None:
        """on_end: called when it is over. share: hands events on to the tenant's other streams (kind, empty for binary ones; message; ComfyUI).
        on_lost: called with a ComfyUI to which its socket has ended; None where there is one ComfyUI.
        """
        self.names = names
        self.client_id = client_id
        self.jobs = jobs
        self.send_queue: SendQueue | None = None
        self._kept = _NOTHING_KEPT
        """By ComfyUI."""
        self._on_end = on_end
        self._on_lost = on_lost
        self._share = share
        self.opened_at_s = time.time()
        self._flags = FLAGS if client_id == SDK_CLIENT else None
        self._flags_reply: str | None = None
        self.is_open = True
        self.is_closing = False
        """The gate closes it: a client that comes just now gets another one, when this one has ended."""
        self._farewell: Close | None = None
        self.grace: asyncio.TimerHandle | None = None
        """Runs while it waits for a client that may come back."""
        self._reports = reports
        self._first = UpstreamEvents(self, reports, reports.running(jobs, ""))
        self._others = _NO_OTHERS
        """By ComfyUI, but for the first."""

    @property
    def is_attached(self) -> bool:
        return self.send_queue is not None

    def at(self, comfyui: str) -> UpstreamEvents:
        """What comes from there. comfyui: "" for the first."""
        if not comfyui:
            return self._first
        if comfyui not in self._others:
            here = self._reports.running(self.jobs, comfyui)
            self._others = {**self._others, comfyui: UpstreamEvents(self, self._reports, here, comfyui)}
        return self._others[comfyui]

    def begin(self, socket: WebSocket, comfyui: str = "") -> None:
        """It hears this socket from now on."""
        self.at(comfyui).start(socket)
        if self._flags is not None:
            socket.send(self._flags)

    def attach(self, send_queue: SendQueue) -> None:
        """Sends events there from now on. A client that comes back gets what it missed.

        The first frame is the status with its id, as clients know it from ComfyUI: whose own may come after events that the gate tells at once.
        """
        self.send_queue = send_queue
        self.stop_grace()
        send_queue.put(status_frame(self.jobs, self.client_id))
        for kept in self._kept.values():
            for text in kept.texts():
                send_queue.put(text)

    def stop_grace(self) -> None:
        if self.grace is not None:
            self.grace.cancel()
            self.grace = None

    def detach(self, send_queue: SendQueue) -> None:
        if self.send_queue is send_queue:
            self.send_queue = None

    def said_goodbye(self) -> tuple[str, ...]:
        """The client closed in order. → the jobs of whose end it has heard: the next socket of its id is not told of them again.

        Clients with one id for all their jobs take the first end that comes for the end of the job that they have just sent.
        """
        for kept in self._kept.values():
            kept.drop_what_ended()
        return tuple(prompt_id for events in (self._first, *self._others.values()) for prompt_id in events.ends())

    def from_client(self, data: str | Payload) -> None:
        """ComfyUI hears one thing from a client: its feature flags, once per upstream socket.

        SECURITY: what a client sends costs time that everybody waits for; once the flags are answered nothing is parsed
        (tests/security/test_client_messages.py).
        """
        if self._flags_reply is not None:
            if self.send_queue is not None and isinstance(data, str) and '"feature_flags"' in data:
                self.send_queue.put(self._flags_reply)
            return
        message = to_upstream(data) if isinstance(data, str) else None
        if message is not None:
            if self._on_lost is not None:
                self._flags = self._flags or message  # ComfyUI takes the first
            for events in (self._first, *self._others.values()):
                events.say(message)

    def close(self, farewell: Close | None = None) -> None:
        """farewell: how its client's socket ends, once ComfyUI has none of this id any more; as when ComfyUI went away where there is none."""
        self.is_closing = True
        self._farewell = farewell
        for events in (self._first, *self._others.values()):
            events.close()
        self.end_if_over()

    async def wait_until_ended(self) -> None:
        """Until none of its connections is there."""
        for events in (self._first, *self._others.values()):
            await events.wait_until_ended()

    # What its sockets to ComfyUI tell (proxy/websocket/upstream_events.py).

    def take_own(self, event: Event, comfyui: str) -> None:
        if comfyui:
            return  # the first one speaks to clients
        if event.kind != "feature_flags":
            return  # a status, which is the gate's to tell: with its id to who comes, and when the tenant's own count changes
        is_told, self._flags_reply = self._flags_reply is not None, event.text
        if is_told and self._on_lost is not None:
            return  # by the first one as it was before it was away
        if self.send_queue is not None:
            self.send_queue.put(event.text)

    def lost(self, events: UpstreamEvents, close: Close, *, is_said: bool) -> None:
        gone = EVENT_TOO_BIG if close.code == TOO_BIG and not is_said else UPSTREAM_GONE
        if self._on_lost is None:
            self.is_closing = True
        elif gone is EVENT_TOO_BIG and not self.is_closing:
            self.close(gone)
        self.end_if_over(gone)
        if not self.is_closing and self._on_lost is not None and not events.is_closing:
            self._on_lost(self, events.comfyui)

    def end_if_over(self, gone: Close = UPSTREAM_GONE) -> None:
        """It is over when it closes, and none of its sockets is there, or on its way. gone: told to its client, where it closes for no other reason."""
        has_any = any(events.is_open or events.is_opening for events in (self._first, *self._others.values()))
        if has_any or not self.is_closing or not self.is_open:
            return
        self.is_open = False
        if self.send_queue is not None:
            self.send_queue.close(self._farewell or gone, at_once=self._farewell is not None)
        self._on_end(self)

    # What it hands on.

    def hand_on(self, kind: str, message: str | Payload, ready: Payload | None = None, comfyui: str = "") -> None:
        """An event for this client, whichever upstream socket brought it. kind: empty for binary ones, which are not kept. ready: see `Sink`."""
        if isinstance(message, str):
            kept = self._kept.get(comfyui)
            if kept is not None:
                kept.keep(kind, message)
            elif self.client_id != SDK_CLIENT:  # there nobody comes back
                self._kept = {**self._kept, comfyui: ReplayBuffer()}
                self._kept[comfyui].keep(kind, message)
        send_queue = self.send_queue
        if send_queue is not None:
            send_queue.put(message, ready)
        if self._share is not None:
            self._share(kind, message, comfyui)

    def push_status(self, status: str) -> None:
        """The tenant's own count of jobs changed."""
        if self.send_queue is not None:
            self.send_queue.put(status)
