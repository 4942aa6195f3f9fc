"""A client that follows a job: what it is sent is written as it comes. It has no task, so that an idle one costs little memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import ClassVar, Final, Protocol

from policy.v2.events import COMMENT
from policy.v2.links import Links
from proxy.http.handed_over import HandedOver
from proxy.http.websocket import CLOSE_LIMIT_S, Close

MAX_UNREAD_BYTES: Final = 64 * 1024
"""Of what a client sends behind its request: nobody reads that."""
MAX_UNSENT_BYTES: Final = 4 * 1024**2
"""Of what must not be lost: states and results. A client that takes none of it is given up."""
COMMENT_EACH_S: Final = 14.0
"""A little more often than clients are promised (15 s): they give up after three times that."""
_STEPS: Final = 14
"""The streams are looked at in so many groups, one after the other: thousands at once would hold the event loop."""
MAX_STALLED_LOOKS: Final = 5
"""A client that has taken nothing of what waits for it in so many looks is given up."""
_LAST_CHUNK: Final = b"0\r\n\r\n"

_log = logging.getLogger("comfygate")


class Piece:
    """What is sent to many: its bytes are made once, in either framing (RFC 9112, 7.1)."""

    __slots__ = ("_chunk", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._chunk: bytes | None = None

    def framed(self, *, is_chunked: bool) -> bytes:
        if not is_chunked:
            return self.data
        if self._chunk is None:
            self._chunk = b"%x\r\n%b\r\n" % (len(self.data), self.data)
        return self._chunk


_COMMENT: Final = Piece(COMMENT)


class Viewer(Protocol):
    """Who is told what happens to a job. links: as it sees the gate. hears_progress: also how far it is."""

    hears_progress: ClassVar[bool]
    links: Links

    @property
    def is_open(self) -> bool: ...

    def at_end(self, callback: Callable[[], None]) -> None: ...

    def send(self, piece: Piece) -> None: ...

    def offer(self, kind: str, piece: Piece) -> None:
        """The newest of what tells a whole state of this kind."""
        ...

    def finish(self, last: Piece | None = None) -> None: ...


class EventStream(HandedOver, asyncio.Protocol):
    """links: as this client sees the gate. dropped_previews, sent_frames, sent_bytes: for the metrics."""

    hears_progress: ClassVar[bool] = True
    __slots__ = (
        "_at_end",
        "_has_ended",
        "_is_chunked",
        "_later",
        "_stalled_looks",
        "_unread_bytes",
        "_unsent_bytes",
        "dropped_previews",
        "links",
        "sent_bytes",
        "sent_frames",
    )

    def __init__(self, links: Links, *, is_chunked: bool) -> None:
        super().__init__()
        self.links = links
        self._is_chunked = is_chunked
        self._later: dict[str, Piece] | None = None
        """Of what tells a whole state, the newest of each kind, for when the client takes more."""
        self._at_end: list[Callable[[], None]] = []
        self._has_ended = False
        self._unread_bytes = self._unsent_bytes = self._stalled_looks = 0
        self.sent_frames = self.sent_bytes = self.dropped_previews = 0

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def at_end(self, callback: Callable[[], None]) -> None:
        """Called when the connection is gone, after those that were given before."""
        if self._has_ended:
            callback()
        else:
            self._at_end.append(callback)

    def send(self, piece: Piece) -> None:
        """What must not be lost."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.abort()
            return
        self._write(piece)

    def offer(self, kind: str, piece: Piece) -> None:
        """What tells a whole state: for a client that does not take it now the newest of a kind waits, and those before it are never sent."""
        if self.is_write_paused:
            self._later = self._later or {}
            self.dropped_previews += kind in self._later
            self._later[kind] = piece
        elif self.transport is not None and not self.transport.is_closing():
            self._write(piece)

    def finish(self, last: Piece | None = None) -> None:
        """After what waits, and this."""
        if self.transport is None or self.transport.is_closing():
            return
        self._write_later()
        if last is not None:
            self._write(last)
        if self._is_chunked:
            self.transport.write(_LAST_CHUNK)
        self.transport.close()

    def close(self, close: Close, *, at_once: bool = False) -> None:
        """The gate ends it before the end of its job, in order: clients of the API look at the job then, and come again. close: as of a WebSocket."""
        if self.is_open:
            self.finish()
            asyncio.get_running_loop().call_later(CLOSE_LIMIT_S, self.abort)

    def look(self) -> None:
        """Says something, so that the client knows that the gate is there; or gives up one that takes nothing."""
        transport = self.transport
        if transport is None:
            return
        unsent = transport.get_write_buffer_size()
        if not unsent:
            self._stalled_looks = 0
            if not transport.is_closing():
                self._write(_COMMENT)
        elif unsent >= self._unsent_bytes > 0:
            self._stalled_looks += 1
        self._unsent_bytes = unsent
        if self._stalled_looks >= MAX_STALLED_LOOKS:
            self.abort()

    def _write(self, piece: Piece) -> None:
        assert self.transport is not None, "asked before"
        self.sent_frames += 1
        self.sent_bytes += len(piece.data)
        self.transport.write(piece.framed(is_chunked=self._is_chunked))

    def _write_later(self) -> None:
        later, self._later = self._later, None
        for piece in (later or {}).values():
            self._write(piece)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.transport is not None:
            # SECURITY: what a client does not take waits in the gate's memory: states and results, and one preview (tests/proxy/v2/test_event_stream.py).
            self.transport.set_write_buffer_limits(0)

    def data_received(self, data: bytes | memoryview) -> None:
        self._unread_bytes += len(data)
        if self._unread_bytes > MAX_UNREAD_BYTES:
            self.abort()

    def eof_received(self) -> bool:
        """Whoever says no more is taken for gone: else it would hold its place until something could not be written."""
        return False

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.is_open:
            self._write_later()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._has_ended = True
        self._later = None
        callbacks, self._at_end = self._at_end, []
        for callback in callbacks:
            try:
                callback()
            except Exception:  # what else was held is given back all the same
                _log.exception("an event stream has ended badly")


class KeepAlive:
    """Looks at each stream once in COMMENT_EACH_S, all by one timer."""

    def __init__(self) -> None:
        self._groups: list[set[EventStream]] = [set() for _ in range(_STEPS)]
        self._at = 0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, stream: EventStream) -> None:
        """From now on, as long as it has a connection."""
        group = self._groups[self._at - 1]  # the last to be looked at
        group.add(stream)
        stream.at_end(lambda: group.discard(stream))
        if self._timer is None:
            self._wait()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(COMMENT_EACH_S / _STEPS, self._step)

    def _step(self) -> None:
        group, self._at = self._groups[self._at], (self._at + 1) % _STEPS
        self._timer = None
        if any(self._groups):
            self._wait()
        # At last: who ends all of them while one is looked at stays heard.
        for stream in tuple(group):
            try:
                stream.look()
            except Exception as error:  # whatever happens at one, the others are looked at
                told = {"message": "a stream of events could not be looked at", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)
