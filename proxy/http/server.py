"""The HTTP server for clients: how many connections, and how slowly each may send and read."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import StreamReader, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage

from proxy.config.server import ServerSettings
from proxy.http.errors import Refusal
from proxy.http.responses import SERVER

AcquireConnection = Callable[[], AbstractContextManager[object] | None]
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_LINGERING_S: Final = 5.0
_READ_BUFFER_BYTES: Final = 256 * 1024
_UNPROVEN_IDLE_S: Final = 10.0
RESERVED: Final = 8
"""Connections beyond `max_connections`, for /gate/health: an edge that hears nothing takes the gate for dead."""
HEALTH_PATH: Final = "/gate/health"
_LOOKED_AT: Final = 64
_HALF_CLOSED_LOOK_S: Final = 0.25
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_log = logging.getLogger("comfygate")


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """How slowly a client may read. stall_s: how long it may take less than bytes_per_second. unproven_idle_s: without a credential."""

    stall_s: float
    bytes_per_second: int
    unproven_idle_s: float = _UNPROVEN_IDLE_S

    @property
    def look_every_s(self) -> float:
        return min(self.stall_s, self.unproven_idle_s) / 4

    @property
    def bytes_between_looks(self) -> int:
        return max(1, int(self.bytes_per_second * self.look_every_s))


class Connection(web.RequestHandler):
    """Closed when a head that was begun is not whole in time; the first one counts as begun with the connection.

    aiohttp would wait for either as long as for a connection that is idle between two requests, and for a client that does not
    read for ever. is_reserved: beyond what the gate takes, for /gate/health alone. is_proven: a good credential came.
    """

    __slots__ = (
        "_half_closed_timer",
        "_head_timer",
        "_header_timeout_s",
        "_read_at_s",
        "_waited_bytes",
        "_wire",
        "is_proven",
        "is_reserved",
        "last_body",
    )

    def __init__(self, manager: web.Server, *, header_timeout_s: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._header_timeout_s = header_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._half_closed_timer: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None
        self._waited_bytes = 0
        self._read_at_s = self._loop.time()
        self.is_reserved = False
        self.is_proven = False
        self.last_body: StreamReader | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the client has asked for nothing that is not answered."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def gives_way(self) -> bool:
        """Whether a new connection may have its place: it is idle, or it has shown no credential and holds its body back."""
        # Also when its request is answered: what was not read of a body is waited for, for a while.
        is_held_back = self.last_body is not None and not self.last_body.is_eof()
        return self.is_idle or (is_held_back and not self.is_proven)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # aiohttp forgets its transport when it closes it, which waits for the client to read.
        self._wire = cast(asyncio.Transport, transport)
        super().connection_made(transport)
        self._head_timer = self._loop.call_later(self._header_timeout_s, self._give_up)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._stop_timer()
        if self._half_closed_timer is not None:
            self._half_closed_timer.cancel()

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio's protocols say whether the connection stays open
        """The client sends no more. It may wait for its answer (RFC 9112, 9.6), or be gone: that is told apart by what is written to it."""
        request = self._current_request
        bodies = [payload for _, payload in self._messages] + ([request.content] if request is not None else [])
        if self.is_idle or not all(body.is_eof() for body in bodies) or self._payload_parser is not None:
            return False
        self._half_closed_timer = self._loop.call_soon(self._look_at_half_closed)  # type: ignore[assignment]
        return True

    @property
    def has_ended_sending(self) -> bool:
        """Whether no request can follow those that have come."""
        return self._half_closed_timer is not None and not self._messages

    def _look_at_half_closed(self) -> None:
        """An interim answer, which every client passes over (RFC 9110, 15.2): the network tells the gate when nobody is there to take it."""
        request = self._current_request
        if self._wire is None:
            return
        if self.is_idle:
            self._wire.close()
            return
        if request is not None and not request.content.is_eof():
            self.hang_up()  # its body can never be whole
            return
        if request is not None and request.version >= HttpVersion11 and not request.writer.output_size:
            self._wire.write(_CONTINUE)
        self._half_closed_timer = self._loop.call_later(_HALF_CLOSED_LOOK_S, self._look_at_half_closed)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(self._header_timeout_s, self._give_up)
        elif self._request_count:
            self._stop_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_at_s = self._loop.time()

    def look(self, now_s: float, limits: ReaderLimits) -> None:
        """Hangs up on a client that does not read, or that keeps a connection idle for which it has shown no credential.

        A WebSocket has bounds of its own (proxy/websocket/send_queue.py).
        """
        if self._wire is None or self._payload_parser is not None:
            return
        waiting = self._wire.get_write_buffer_size()
        if not waiting or self._waited_bytes - waiting >= limits.bytes_between_looks:
            self._read_at_s = now_s
        self._waited_bytes = waiting
        if waiting and now_s - self._read_at_s > limits.stall_s:
            self.hang_up()
        elif self.is_idle and not self.is_proven and self._request_count:
            idle_since_s = self._next_keepalive_close_time - self._keepalive_timeout
            if now_s - idle_since_s > limits.unproven_idle_s:
                self.hang_up()

    def hang_up(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    def _give_up(self) -> None:
        self._head_timer = None
        self.hang_up()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what is not HTTP, which never becomes a call.

        SECURITY: aiohttp would log and send back the line that it could not read, and a key may stand in it. test_malformed.py::test_keys_stay_out
        """
        _log.debug("a request from %s could not be read: %s", request.remote, type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        refusal = Refusal(status, "request-malformed", "This is not a well-formed HTTP/1.1 request.")
        request_id = secrets.token_hex(8)
        response = web.Response(
            status=status, body=refusal.body(request_id), content_type="application/json", headers={hdrs.SERVER: SERVER}
        )
        response.headers["X-Request-Id"] = request_id
        response.headers[hdrs.CACHE_CONTROL] = "private, no-store"
        response.force_close()
        return response


class ClientRequest(web.BaseRequest):
    """A request after which its connection is closed where the next one could be another than its client sent."""

    @property
    def keep_alive(self) -> bool:
        # SECURITY: where a chunked body ends is the parser's reading alone: nothing after it is read as a request (tests/wire/test_reuse.py).
        is_chunked = hdrs.TRANSFER_ENCODING in self.headers
        is_last = isinstance(self.protocol, Connection) and self.protocol.has_ended_sending
        return super().keep_alive and not is_chunked and not is_last


class BoundedServer(web.Server):
    """A server that takes so many connections, and a few more for /gate/health; idle ones give way to new ones.

    Looks at its connections from time to time and hangs up on clients that do not read.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        take: AcquireConnection,
        header_timeout_s: float,
        readers: ReaderLimits,
        **options: Any,
    ) -> None:
        super().__init__(handler, request_factory=self._request, **options)
        self._options = {name: value for name, value in options.items() if name != "handler_cancellation"}
        self._take = take
        self._header_timeout_s = header_timeout_s
        self._readers = readers
        self._held: OrderedDict[Connection, AbstractContextManager[object]] = OrderedDict()
        self._open: set[Connection] = set()
        self._reserved: dict[Connection, None] = {}
        self._next_look: asyncio.TimerHandle | None = None

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if isinstance(protocol, Connection):
            protocol.last_body = payload
        return ClientRequest(message, payload, protocol, writer, task, self._loop)

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, header_timeout_s=self._header_timeout_s, **self._options)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        assert isinstance(handler, Connection), "__call__ makes no other"
        self._open.add(handler)
        if self._next_look is None:
            self._next_look = self._loop.call_later(self._readers.look_every_s, self._look)
        place = self._take()
        if place is None and self._make_room():
            place = self._take()
        if place is not None:
            place.__enter__()
            self._held[handler] = place
        else:
            self._reserve(handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        assert isinstance(handler, Connection), "__call__ makes no other"
        self._open.discard(handler)
        self._reserved.pop(handler, None)
        self._release(handler)

    def _release(self, handler: Connection) -> None:
        place = self._held.pop(handler, None)
        if place is not None:
            place.__exit__(None, None, None)

    def _make_room(self) -> bool:
        """Hangs up on one connection that gives way, of those looked at least lately; says whether there was one.

        SECURITY: else whoever opens connections and sends nothing, or half a body, shuts out everybody (tests/security/test_connections.py).
        """
        for _ in range(min(len(self._held), _LOOKED_AT)):
            connection = next(iter(self._held))
            if connection.gives_way:
                self._release(connection)
                connection.hang_up()
                return True
            self._held.move_to_end(connection)
        return False

    def _reserve(self, handler: Connection) -> None:
        """A place for /gate/health; of those that have one, the oldest that gives way does."""
        handler.is_reserved = True
        if len(self._reserved) >= RESERVED:
            idle = next((other for other in self._reserved if other.gives_way), None)
            if idle is None:
                handler.hang_up()
                return
            del self._reserved[idle]
            idle.hang_up()
        self._reserved[handler] = None

    def _look(self) -> None:
        self._next_look = None
        now_s = self._loop.time()
        for connection in list(self._open):
            connection.look(now_s, self._readers)
        if self._open:
            self._next_look = self._loop.call_later(self._readers.look_every_s, self._look)


def is_reserved(request: web.BaseRequest) -> bool:
    """Whether the connection is one of those that are kept for /gate/health."""
    return isinstance(request.protocol, Connection) and request.protocol.is_reserved


def prove(request: web.BaseRequest) -> None:
    """The connection brought a good credential: it may stay idle as long as the configuration says."""
    if isinstance(request.protocol, Connection):
        request.protocol.is_proven = True


def public_server(handler: Handler, settings: ServerSettings, take: AcquireConnection) -> web.Server:
    """The server for clients: no body is decompressed, and a client that leaves cancels what it asked for.

    take: a place for one more connection, None when there is none left.
    """
    return BoundedServer(
        handler,
        take=take,
        header_timeout_s=settings.header_timeout,
        readers=ReaderLimits(settings.body_timeout, settings.min_body_bytes_per_second),
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=settings.keepalive_timeout,
        max_line_size=16 * 1024,
        max_field_size=settings.max_header_bytes,
        auto_decompress=False,
        lingering_time=_LINGERING_S,
        read_bufsize=_READ_BUFFER_BYTES,
        tcp_keepalive=True,
    )
