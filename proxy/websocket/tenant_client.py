"""A tenant's client, and the session that it listens to."""

from __future__ import annotations

from collections.abc import Callable

from proxy.http.websocket import Close
from proxy.http.websocket_frames import Payload
from proxy.jobs.registry import JobRegistry
from proxy.websocket.client_socket import ClientSocket
from proxy.websocket.connections import TOO_MANY_MESSAGES
from proxy.websocket.event_session import EventSession
from proxy.websocket.message_rate import MessageRate
from proxy.websocket.send_queue import SendQueue


class TenantClient(ClientSocket):
    """stream: to which its send queue is attached. leave: told that it listens no more."""

    __slots__ = ("_jobs", "_leave", "_rate", "_stream")

    def __init__(
        self, send_queue: SendQueue, stream: EventSession, jobs: JobRegistry, leave: Callable[[EventSession], None]
    ) -> None:
        super().__init__(send_queue)
        self._stream = stream
        self._jobs = jobs
        self._leave = leave
        self._rate: MessageRate | None = None

    def received(self, data: str | Payload, frame: Payload | None) -> None:
        if self._may_send(len(data)):
            self._stream.from_client(data)

    def received_control(self, size: int) -> None:
        self._may_send(size)

    def _may_send(self, size: int) -> bool:
        """SECURITY: what a client sends, pings and fragments too, costs time that everybody waits for; above a rate its socket is closed
        (tests/security/test_client_messages.py).
        """
        self._rate = self._rate or MessageRate()
        if self._rate.takes(size):
            return True
        self.send_queue.close(TOO_MANY_MESSAGES, at_once=True)
        return False

    def ended(self, close: Close, *, is_said: bool) -> None:
        """A connection that broke may have lost events on its way: only a client that says goodbye has heard what it was sent."""
        if is_said:
            self._jobs.mark_heard(self._stream.said_goodbye())
        self._stream.detach(self.send_queue)
        self._leave(self._stream)
        super().ended(close, is_said=is_said)
