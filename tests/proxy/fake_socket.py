"""ComfyUI's end of a WebSocket, played by the test."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from proxy.http.websocket import Close, Receiver


class FakeSocket:
    """The gate's end: hands on what the test says, notes what is sent. It ends when the gate closes it and `may_close` is set."""

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.closed = asyncio.Event()
        self.may_close = asyncio.Event()
        self.may_close.set()
        self._receiver: Receiver | None = None
        self._closing: asyncio.Task[None] | None = None

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def send(self, data: str | bytes) -> None:
        self.sent.append(data)

    def close(self, close: Close) -> None:
        if self._closing is None and not self.closed.is_set():
            self._closing = asyncio.ensure_future(self._end(close))

    async def _end(self, close: Close) -> None:
        await self.may_close.wait()
        self.ends(close, is_said=True)

    def ends(self, close: Close, *, is_said: bool) -> None:
        self.closed.set()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.ended(close, is_said=is_said)

    def say(self, data: str | bytes) -> None:
        assert self._receiver is not None, "nobody listens"
        self._receiver.received(data, None)

    def event(self, kind: str, **data: Any) -> None:
        # As ComfyUI writes it, with blanks.
        self.say(f'{{"type": "{kind}", "data": {orjson.dumps(data).decode().replace(":", ": ").replace(",", ", ")}}}')
