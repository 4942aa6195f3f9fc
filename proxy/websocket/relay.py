"""A WebSocket of an admin's, relayed as it is: both directions, closes and their reasons. Decides nothing."""

from __future__ import annotations

from proxy.http.websocket import Close, Hearer, WebSocket
from proxy.http.websocket_frames import TOO_BIG, Payload, may_be_sent
from proxy.websocket.client_socket import ClientSocket
from proxy.websocket.connections import EVENT_TOO_BIG, UPSTREAM_GONE
from proxy.websocket.send_queue import SendQueue


class RelayedClient(ClientSocket):
    """upstream: its WebSocket to ComfyUI, which nobody else listens to."""

    __slots__ = ("upstream",)

    def __init__(self, send_queue: SendQueue, upstream: WebSocket) -> None:
        super().__init__(send_queue)
        self.upstream = upstream

    def open(self) -> None:
        super().open()
        self.upstream.start(FromComfyUI(self))

    def received(self, data: str | Payload, frame: Payload | None) -> None:
        self.upstream.send(data)
        if self.upstream.is_write_paused:
            self.socket.pause_reading()

    def ended(self, close: Close, *, is_said: bool) -> None:
        # SECURITY: a socket that nobody drains would stall everybody's events. test_slow_readers.py
        self.upstream.close(Close(sendable(close.code), close.reason if is_said else ""))
        super().ended(close, is_said=is_said)


class FromComfyUI(Hearer):
    """Never waits for its client: one that does not read would stall everybody's events."""

    __slots__ = ("_client",)

    def __init__(self, client: RelayedClient) -> None:
        self._client = client

    def received(self, data: str | Payload, frame: Payload | None) -> None:
        self._client.send_queue.put(data, frame)

    def writable(self) -> None:
        self._client.socket.resume_reading()

    def ended(self, close: Close, *, is_said: bool) -> None:
        self._client.send_queue.close(end_ofupstream(close, is_said=is_said))


def end_ofupstream(close: Close, *, is_said: bool) -> Close:
    """What a client is told when ComfyUI's WebSocket has ended."""
    if is_said:
        return Close(sendable(close.code), close.reason)
    return EVENT_TOO_BIG if close.code == TOO_BIG else UPSTREAM_GONE


def sendable(code: int) -> int:
    """RFC 6455, 7.4.1: some codes only describe what happened and are never sent."""
    return code if may_be_sent(code) else 1000
