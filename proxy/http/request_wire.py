"""How much is read of a client at once."""

from __future__ import annotations

from typing import ClassVar, Final

from proxy.http.request import Request
from proxy.http.request_reader import RequestReader
from proxy.http.wire import BufferedWire, ReadBuffers

READ_BYTES: Final = 64 * 1024
"""SECURITY: as much as one connection keeps of what comes before its turn, so that no tenant has enough of them to use up the room for all
(tests/security/test_unread.py)."""
MORE_BYTES: Final = 512 * 1024
"""Of a body whose reader takes all that comes. It is more than waits for a reader (request.py), so a large body comes in turns of one read and one write:
each call of the system, and each pause between two, costs more than a copy that leaves a processor's cache."""


class RequestWire(BufferedWire):
    """A wire on which requests come. Whoever speaks on it says which one is read, as `_request`."""

    buffers = ReadBuffers(READ_BYTES)
    larger: ClassVar[ReadBuffers] = ReadBuffers(MORE_BYTES)

    __slots__ = ("_reader", "_request", "_view")

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__()
        self._reader = RequestReader(max_head_bytes)
        self._request: Request | None = None
        self._view = self._buffer.view

    def get_buffer(self, sizehint: int) -> memoryview:
        request, more_bytes = self._request, self._reader.left_bytes
        if more_bytes > READ_BYTES and request is not None and request.body.is_followed:
            self._view = self.larger.own.view[:more_bytes]  # nothing behind it
        else:
            self._view = self._buffer.view
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._view[:nbytes]))
