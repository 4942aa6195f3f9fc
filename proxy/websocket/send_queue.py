"""What is on its way to one WebSocket client: bounded, so that a client that does not read costs a known amount and delays nobody."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from proxy.http.websocket import Close
from proxy.http.websocket_frames import Payload

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


Message = str | bytes
"""Of the client's, a text or a binary one."""


def cost_bytes(message: str | Payload) -> int:
    """What it takes while it waits."""
    return len(message) + FRAME_OVERHEAD_BYTES


def is_preview(data: str | Payload) -> bool:
    """Whether an event may be lost: a JPEG preview is shown for a moment, a PNG may be the result of SaveImageWebsocket."""
    if isinstance(data, str) or len(data) > LARGEST_PREVIEW_BYTES:
        return False
    head = bytes(data[:1024])
    if head.startswith(_PREVIEW_JPEG):
        return True
    return head.startswith(_PREVIEW_WITH_METADATA) and b"image/jpeg" in head[8:]


class Sink(Protocol):
    """What writes to the client."""

    def takes(self, message: str | Payload, ready: Payload | None) -> bool:
        """Writes it, where the connection takes it now; says whether it did. ready: the whole frame that it came in, where it came in one."""
        ...

    def flush(self) -> None:
        """Takes of the queue what the connection takes now, its close too."""


class SendQueue:
    """Messages in order; `put` never waits, and where the sink takes a frame at once it does not wait either.

    dropped_previews and sent_frames are for the metrics.
    """

    __slots__ = (
        "_bytes",
        "_clock",
        "_close",
        "_frames",
        "_max_bytes",
        "_max_preview_bytes",
        "_most_bytes",
        "_patience_s",
        "_preview_bytes",
        "_since_s",
        "dropped_previews",
        "ends_at_once",
        "sent_bytes",
        "sent_frames",
        "sink",
        "used_at_s",
    )

    def __init__(
        self,
        max_bytes: int = MAX_BYTES,
        max_preview_bytes: int = MAX_PREVIEW_BYTES,
        *,
        patience_s: float = PATIENCE_S,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._frames: deque[Message] | None = None
        """None while nothing waits, as on almost all sockets almost always."""
        self._since_s = 0.0
        """When the client last took a frame, or began to owe one."""
        self._patience_s = patience_s
        self._most_bytes = most_bytes
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_preview_bytes = max_preview_bytes
        self._bytes = 0
        self._preview_bytes = 0
        self._close: Close | None = None
        self.sink: Sink | None = None
        self.used_at_s = clock()
        """When it was opened, or an event of its client's jobs last came."""
        self.dropped_previews = 0
        self.sent_frames = 0
        self.sent_bytes = 0
        self.ends_at_once = False
        """Its close does not wait for what is on its way, nor for a client whose buffers are full."""

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    @property
    def is_closed(self) -> bool:
        return self._close is not None

    def put(self, message: str | Payload, ready: Payload | None = None) -> None:
        """Adds a message; a view is copied where it has to wait.

        Over max_preview_bytes the oldest previews are dropped; over max_bytes for patience_s, or over most_bytes, the connection is closed with 1008.

        ready: see `Sink.takes`. What counts is what waits behind the message that is added: its size is not the client's doing.
        """
        if self._close is not None:
            return
        if self._frames is None:
            sink = self.sink
            if sink is not None and sink.takes(message, ready):
                self.sent_frames += 1
                self.sent_bytes += len(message)
                return
            self._frames = deque()
            self._since_s = self._clock()
        elif self._preview_bytes > self._max_preview_bytes or self._bytes > self._max_bytes:
            self._drop_previews()
        waited_s = self._clock() - self._since_s
        if self._bytes > self._most_bytes or (self._bytes > self._max_bytes and waited_s >= self._patience_s):
            told = f"the client reads too slowly: {self._bytes / 1024**2:.1f} MiB wait, nothing was taken for {waited_s:.0f} s"
            self.close(Close(1008, told), at_once=True)
            return
        self._frames.append(message if isinstance(message, str) else bytes(message))
        self._bytes += cost_bytes(message)
        if is_preview(message):
            self._preview_bytes += cost_bytes(message)
        if self.sink is not None:
            self.sink.flush()

    def close(self, close: Close, *, at_once: bool = False) -> None:
        """Ends the send queue after what waits, or at once."""
        if self._close is None:
            self._close = close
        if at_once:
            self._frames = None
            self._bytes = self._preview_bytes = 0
            self.ends_at_once = True
        if self.sink is not None:
            self.sink.flush()

    def take(self) -> Message | Close | None:
        """The next message, the close when there is none left, None when nothing waits."""
        if self._frames is None:
            return self._close
        message = self._frames.popleft()
        self._since_s = self._clock()
        self._forget(message)
        self.sent_frames += 1
        self.sent_bytes += len(message)
        if not self._frames:
            self._frames = None
        return message

    def _drop_previews(self) -> None:
        allowed = self._max_preview_bytes // 2 if self._bytes <= self._max_bytes else 0
        kept: deque[Message] = deque()
        for message in self._frames or ():
            if self._preview_bytes > allowed and is_preview(message):
                self._forget(message)
                self.dropped_previews += 1
            else:
                kept.append(message)
        self._frames = kept

    def _forget(self, message: Message) -> None:
        self._bytes -= cost_bytes(message)
        if is_preview(message):
            self._preview_bytes -= cost_bytes(message)
