"""What one ComfyUI sends to one client id: each event is judged once, reported, and handed on."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from typing import Protocol

from policy.namespace import Namespace
from policy.rule_context import OwnJobs
from policy.rules.events import OF_ONE_SOCKET, PROGRESS, Event, EventRules
from proxy.http.websocket import Close, Hearer, WebSocket
from proxy.http.websocket_frames import Payload
from proxy.jobs.events import RunningJobs, SocketReports
from proxy.websocket.connections import GOING_AWAY
from proxy.websocket.heard_jobs import HeardJobs
from proxy.websocket.send_queue import SendQueue


class Session(Protocol):
    """Whose events they are (proxy/websocket/event_session.py)."""

    names: Namespace
    client_id: str
    jobs: OwnJobs
    send_queue: SendQueue | None

    @property
    def is_attached(self) -> bool:
        """Whether a client hears what is handed on."""
        ...

    def take_own(self, event: Event, comfyui: str) -> None:
        """What was said to a socket alone, and of no job."""

    def hand_on(self, kind: str, message: str | Payload, ready: Payload | None = None, comfyui: str = "") -> None: ...

    def lost(self, events: UpstreamEvents, close: Close, *, is_said: bool) -> None:
        """A socket has ended."""

    def end_if_over(self) -> None: ...


class UpstreamEvents(Hearer):
    """The receiver of one socket, and of the next when that is gone. comfyui: "" for the first. here: which of the tenant's jobs run there."""

    __slots__ = (
        "_has_ended",
        "_heard",
        "_here",
        "_reports",
        "_rules",
        "_session",
        "_socket",
        "comfyui",
        "is_closing",
        "is_open",
        "is_opening",
        "opened_at_s",
    )

    def __init__(self, session: Session, reports: SocketReports, here: RunningJobs, comfyui: str = "") -> None:
        self._session = session
        self._reports = reports
        self._here = here
        self.comfyui = comfyui
        self._socket: WebSocket | None = None
        self._rules = EventRules(session.names, session.client_id)
        self._heard = HeardJobs(here, reports, comfyui)
        self.is_open = self.is_closing = False
        self.is_opening = False
        """There is a socket soon, or none after all: see `settle`."""
        self.opened_at_s = math.inf
        self._has_ended: asyncio.Event | None = None

    def start(self, socket: WebSocket) -> None:
        """Hears this socket from now on: whoever listens is there before the first event. What ran when an earlier one ended is not known by it."""
        if self._socket is not None:
            self._rules = EventRules(self._session.names, self._session.client_id)
            self._heard = self._heard.followed()
        self._socket = socket
        self.is_open, self.is_closing = True, False
        self.opened_at_s = time.time()
        socket.start(self)

    def say(self, message: str) -> None:
        if self._socket is not None and self.is_open:
            self._socket.send(message)

    def close(self) -> None:
        self.is_closing = True
        if self._socket is not None:
            self._socket.close(GOING_AWAY)

    async def wait_until_ended(self) -> None:
        """Until its connection is gone, and none is on its way."""
        while self.is_open or self.is_opening:
            self._has_ended = self._has_ended or asyncio.Event()
            await self._has_ended.wait()

    def settle(self) -> None:
        """No connection is on its way any more: it is there, or could not be had."""
        self.is_opening = False
        self._session.end_if_over()
        if not self.is_open:
            self._wake()

    # What the WebSocket to ComfyUI calls. None of these waits: one client that does not read would stall everybody's events.

    def received(self, data: str | Payload, frame: Payload | None) -> None:
        session, reports = self._session, self._reports
        if not isinstance(data, str):
            if (named := self._rules.binary(data, session.jobs)) is not None:
                reports.listener.pictured(named, self._here)
                session.hand_on("", named, frame if named is data else None, self.comfyui)
            return
        event = self._rules.text(data, session.jobs)
        if event is None:
            return
        kind, text = event.kind, event.text
        if kind in OF_ONE_SOCKET:
            session.take_own(event, self.comfyui)
            return
        job = reports.job(event.prompt_id or "")
        if job is not None and reports.is_kept_back(job, event, self.comfyui):
            return
        if kind not in PROGRESS:  # they are most of all events, and say nothing that the others do not
            self._heard.tell(event, is_attached=session.is_attached)
            if session.send_queue is not None:
                session.send_queue.used_at_s = time.monotonic()
        reports.listener.heard(event, job, self._here)
        session.hand_on(kind, text, frame if text is data else None, self.comfyui)

    def ended(self, close: Close, *, is_said: bool) -> None:
        self.is_open = False
        self._session.lost(self, close, is_said=is_said)
        self._wake()

    def _wake(self) -> None:
        if self._has_ended is not None:
            self._has_ended.set()
            self._has_ended = None

    # What is told of jobs beside that.

    def knows(self, prompt_id: str) -> bool:
        """Whether something of this job was heard."""
        return self._heard.knows(prompt_id)

    def has_ended(self, prompt_id: str) -> bool:
        """Whether the end of this job was heard, or told."""
        return self._heard.has_ended(prompt_id)

    def ends(self) -> tuple[str, ...]:
        """The jobs whose end a client was told."""
        return self._heard.ends()

    def tell(self, prompt_id: str, events: Iterable[Event]) -> None:
        """What ComfyUI does not say of a job itself, or has said before this socket was there. A beginning that was heard is not told again."""
        is_heard = self.knows(prompt_id)
        for event in events:
            if event.kind != "execution_start" or not is_heard:
                self._heard.tell(event, is_attached=self._session.is_attached)
                self._session.hand_on(event.kind, event.text, None, self.comfyui)
