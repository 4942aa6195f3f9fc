"""ComfyUI's end of a WebSocket, played by the test."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import WSMessage, WSMsgType


class FakeSocket:
    """ComfyUI's end: gives what the test puts in, notes what it is sent. refuses: sending fails, as to a peer that has gone."""

    close_code: int | None = None

    def __init__(self) -> None:
        self.frames: asyncio.Queue[WSMessage] = asyncio.Queue()
        self.sent: list[str] = []
        self.closed = asyncio.Event()
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.refuses: Exception | None = None

    async def receive(self) -> WSMessage:
        return await self.frames.get()

    async def send_str(self, text: str) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.sent.append(text)

    async def close(self, **_: Any) -> None:
        await self.may_close.wait()
        self.closed.set()
        self.frames.put_nowait(WSMessage(WSMsgType.CLOSED, None, None))

    def say(self, data: str | bytes) -> None:
        kind = WSMsgType.TEXT if isinstance(data, str) else WSMsgType.BINARY
        self.frames.put_nowait(WSMessage(kind, data, None))

    def event(self, kind: str, **data: Any) -> None:
        # As ComfyUI writes it, with blanks.
        self.say(f'{{"type": "{kind}", "data": {orjson.dumps(data).decode().replace(":", ": ").replace(",", ", ")}}}')
