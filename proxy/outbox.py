"""What is on its way to one WebSocket client: bounded, so that a client that does not read costs a known amount and delays nobody."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

MAX_BYTES: Final = 32 * 1024**2
"""Of all frames that wait; a whole picture (SaveImageWebsocket) must fit."""
MAX_PREVIEW_BYTES: Final = 2 * 1024**2
"""Of previews that wait: the newest ones are worth keeping."""
FRAME_OVERHEAD_BYTES: Final = 200

_PREVIEW_JPEG: Final = b"\x00\x00\x00\x01\x00\x00\x00\x01"
_PREVIEW_WITH_METADATA: Final = b"\x00\x00\x00\x04"


@dataclass(frozen=True, slots=True)
class Frame:
    data: str | bytes
    is_preview: bool = False

    @property
    def cost_bytes(self) -> int:
        return len(self.data) + FRAME_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Close:
    code: int
    reason: str


def is_preview(data: bytes) -> bool:
    """Whether a binary event may be lost: a JPEG preview is shown for a moment, a PNG may be the result of SaveImageWebsocket."""
    if data.startswith(_PREVIEW_JPEG):
        return True
    return data.startswith(_PREVIEW_WITH_METADATA) and b"image/jpeg" in data[8:1024]


class Outbox:
    """Frames in order; `put` never waits. dropped_previews and sent_frames are for the metrics."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_preview_bytes: int = MAX_PREVIEW_BYTES) -> None:
        self._frames: deque[Frame] = deque()
        self._max_bytes = max_bytes
        self._max_preview_bytes = max_preview_bytes
        self._bytes = 0
        self._preview_bytes = 0
        self._ready = asyncio.Event()
        self._close: Close | None = None
        self.dropped_previews = 0
        self.sent_frames = 0
        self.sent_bytes = 0
        self.gave_up = asyncio.Event()
        """Set when the outbox ends at once: a writer that hangs on a client's full buffers must not wait for it."""

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    @property
    def is_closed(self) -> bool:
        return self._close is not None

    def put(self, frame: Frame) -> None:
        """Adds a frame. When previews wait in excess the oldest are dropped; when all else is too much, the client is given up."""
        if self._close is not None:
            return
        self._frames.append(frame)
        self._bytes += frame.cost_bytes
        if frame.is_preview:
            self._preview_bytes += frame.cost_bytes
        if self._preview_bytes > self._max_preview_bytes or self._bytes > self._max_bytes:
            self._drop_previews()
        if self._bytes > self._max_bytes:
            self.close(Close(1008, "the client reads too slowly"), at_once=True)
        self._ready.set()

    def close(self, close: Close, *, at_once: bool = False) -> None:
        """Ends the outbox after what waits, or at once."""
        if self._close is None:
            self._close = close
        if at_once:
            self._frames.clear()
            self._bytes = self._preview_bytes = 0
            self.gave_up.set()
        self._ready.set()

    async def get(self) -> Frame | Close:
        """The next frame, or the close when there is none left."""
        while True:
            if self._frames:
                frame = self._frames.popleft()
                self._forget(frame)
                self.sent_frames += 1
                self.sent_bytes += len(frame.data)
                return frame
            if self._close is not None:
                return self._close
            self._ready.clear()
            await self._ready.wait()

    def _drop_previews(self) -> None:
        allowed = self._max_preview_bytes // 2 if self._bytes <= self._max_bytes else 0
        kept: deque[Frame] = deque()
        for frame in self._frames:
            if frame.is_preview and self._preview_bytes > allowed:
                self._forget(frame)
                self.dropped_previews += 1
            else:
                kept.append(frame)
        self._frames = kept

    def _forget(self, frame: Frame) -> None:
        self._bytes -= frame.cost_bytes
        if frame.is_preview:
            self._preview_bytes -= frame.cost_bytes
