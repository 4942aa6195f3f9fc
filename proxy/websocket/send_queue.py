"""What is on its way to one WebSocket client: bounded, so that a client that does not read costs a known amount and delays nobody."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_BYTES: Final = 32 * 1024**2
"""Of all frames that wait behind the newest: a client that reads gets every frame, however large. More waits for PATIENCE_S only."""
PATIENCE_S: Final = 60.0
"""How long the oldest frame may wait while more than MAX_BYTES do: a series of large results takes a while on a slow line."""
MOST_BYTES: Final = 2 * MAX_BYTES
"""However short they wait: a tenant has several sockets, and all that waits is in the gate's memory."""
MAX_PREVIEW_BYTES: Final = 4 * 1024**2
"""Of previews that wait behind the newest."""
LARGEST_PREVIEW_BYTES: Final = 512 * 1024
"""A larger picture is no preview (ComfyUI's are 512 pixels wide unless its operator says otherwise) but a result (ETN_SendImageWebSocket)."""
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
    if len(data) > LARGEST_PREVIEW_BYTES:
        return False
    if data.startswith(_PREVIEW_JPEG):
        return True
    return data.startswith(_PREVIEW_WITH_METADATA) and b"image/jpeg" in data[8:1024]


def _nothing() -> None:
    return


class SendQueue:
    """Frames in order; `put` never waits. dropped_previews and sent_frames are for the metrics."""

    def __init__(
        self,
        max_bytes: int = MAX_BYTES,
        max_preview_bytes: int = MAX_PREVIEW_BYTES,
        *,
        patience_s: float = PATIENCE_S,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._frames: deque[Frame] = deque()
        self._since_s = 0.0
        """When the client last took a frame, or began to owe one."""
        self._patience_s = patience_s
        self._most_bytes = most_bytes
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_preview_bytes = max_preview_bytes
        self._bytes = 0
        self._preview_bytes = 0
        self._ready = asyncio.Event()
        self.on_change: Callable[[], None] = _nothing
        """Called when a frame was added, and when it was closed."""
        self._close: Close | None = None
        self.used_at_s = clock()
        """When it was opened, or an event of its client's jobs last came."""
        self.dropped_previews = 0
        self.sent_frames = 0
        self.sent_bytes = 0
        self.overflowed = asyncio.Event()
        """Set when the send queue ends at once: a writer that hangs on a client's full buffers must not wait for it."""

    @property
    def has_frames(self) -> bool:
        return bool(self._frames)

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    @property
    def is_closed(self) -> bool:
        return self._close is not None

    def put(self, frame: Frame) -> None:
        """Adds a frame. Over max_preview_bytes the oldest previews are dropped; over max_bytes for patience_s, or over most_bytes, the
        connection is closed with 1008.

        What counts is what waits behind the frame that is added: its size is not the client's doing.
        """
        if self._close is not None:
            return
        if not self._frames:
            self._since_s = self._clock()
        elif self._preview_bytes > self._max_preview_bytes or self._bytes > self._max_bytes:
            self._drop_previews()
        waited_s = self._clock() - self._since_s
        if self._bytes > self._most_bytes or (self._bytes > self._max_bytes and waited_s >= self._patience_s):
            told = f"the client reads too slowly: {self._bytes / 1024**2:.1f} MiB wait, nothing was taken for {waited_s:.0f} s"
            self.close(Close(1008, told), at_once=True)
            return
        self._frames.append(frame)
        self._bytes += frame.cost_bytes
        if frame.is_preview:
            self._preview_bytes += frame.cost_bytes
        self._ready.set()
        self.on_change()

    def close(self, close: Close, *, at_once: bool = False) -> None:
        """Ends the send queue after what waits, or at once."""
        if self._close is None:
            self._close = close
        if at_once:
            self._frames.clear()
            self._bytes = self._preview_bytes = 0
            self.overflowed.set()
        self._ready.set()
        self.on_change()

    def take(self) -> Frame | Close | None:
        """The next frame, the close when there is none left, None when nothing waits."""
        if not self._frames:
            return self._close
        frame = self._frames.popleft()
        self._since_s = self._clock()
        self._forget(frame)
        self.sent_frames += 1
        self.sent_bytes += len(frame.data)
        return frame

    async def get(self) -> Frame | Close:
        """The next frame, or the close when there is none left."""
        while (item := self.take()) is None:
            self._ready.clear()
            await self._ready.wait()
        return item

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
