"""One client's connection: requests are read from it one after the other, and each is answered before the next is read."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from proxy.http.client_limits import ClientLimits
from proxy.http.errors import Refusal
from proxy.http.request import CLIENT_GONE, Request
from proxy.http.request_reader import MalformedRequest
from proxy.http.request_wire import RequestWire
from proxy.http.response_head import head_bytes, length_line

if TYPE_CHECKING:
    from proxy.http.handed_over import HandedOver
    from proxy.http.server import Server

_HALF_CLOSED_LOOK_S: Final = 0.25
_QUICK_S: Final = 1.0
_MALFORMED: Final = Refusal(400, "request-malformed", "This is not a well-formed HTTP/1.1 request.")
_log = logging.getLogger("comfygate")


class Connection(RequestWire):
    """is_reserved: beyond what the gate takes, for /gate/health alone. party: whose good credential came last, "" for a stranger. peer: the address of
    whoever connected.

    Answers are written by `Request`.
    """

    __slots__ = (
        "_half_closed_timer",
        "_is_answering",
        "_is_ending",
        "_looked_at",
        "_server",
        "_task",
        "_turn",
        "_unread",
        "_unsent_bytes",
        "_waiting_since_s",
        "_was_asked",
        "_written_at_s",
        "is_reserved",
        "party",
        "peer",
    )

    def __init__(self, server: Server) -> None:
        super().__init__(server.max_head_bytes)
        self._server = server
        self._task: asyncio.Task[None] | None = None
        self._turn: asyncio.Future[None] | None = None
        """While the task waits for the next request."""
        self._is_answering = False
        self._unread = b""
        self._looked_at = 0
        self._was_asked = False
        self._half_closed_timer: asyncio.Handle | None = None
        self._unsent_bytes = 0
        self._written_at_s = self._loop.time()
        self._waiting_since_s = self._written_at_s
        """Since when a head, the rest of an unread body or the next request is waited for; what for, `look` knows."""
        self._is_ending = False
        """Answered for the last time: what still comes is thrown away."""
        self.is_reserved = False
        self.party = self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        # SECURITY: a stranger's next request is not begun before the answer to its last has left (tests/security/test_unread.py).
        self.limit_unsent(0)
        self._server.connected(self)

    def lost(self, error: Exception | None) -> None:
        self._server.disconnected(self)
        if self._half_closed_timer is not None:
            self._half_closed_timer.cancel()
        if self._request is not None:
            self._request.body.fail(ConnectionResetError(CLIENT_GONE))
        if self._task is not None and (self._request is None or not self._request.goes_on):
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Reads what there is of the request that runs, or begins the next; what is for later is kept, and no more is read meanwhile."""
        had_unread = bool(self._unread)
        if had_unread:
            data, self._unread = self._unread + data, b""
        while data and not self._is_ending:
            request = self._request
            if request is None:
                rest = self._begin(data)
                if rest is data:
                    self._unread = data
                    break
                data = rest
            elif request.body.is_complete:
                self.pause_reading()
                self._unread = data
                break
            else:
                data = self._reader.read_body(data)
                if request.body.is_full:
                    self.pause_reading()
                if request.body.has_failed:
                    self._is_ending = True
                if not self._is_answering and request.body.is_read:
                    self._next()
        if had_unread or self._unread:
            self._server.keeps(self, len(self._unread))

    def eof_received(self) -> bool:
        """The client sends no more. It may wait for its answer (RFC 9112, 9.6), or be gone: that is told apart by what is written to it."""
        request = self._request
        if request is None or self._is_ending or not request.body.is_complete:
            return False
        self._half_closed_timer = self._loop.call_soon(self._look_at_half_closed)
        return True

    def resume_writing(self) -> None:
        self._written_at_s = self._loop.time()
        super().resume_writing()

    def _begin(self, data: bytes) -> bytes:
        """What is behind the head of the request that data begins with, which runs from now on; data itself where that is not whole."""
        if not self._looked_at:
            data = data.lstrip(b"\r\n")  # RFC 9112, 2.2
            if not data:
                return b""
        try:
            found = self._reader.read_head(data, self._looked_at, self)
        except MalformedRequest as error:
            _log.debug("a request from %s could not be read: %s", self.peer, error)
            self.write(_refusal(str(error)))
            self._end(is_quiet=False)
            return b""
        if found is None:
            if not self._looked_at and self._was_asked:
                self._waiting_since_s = self._loop.time()
            self._looked_at = len(data)
            return data
        request, end = found
        self._looked_at = 0
        self._was_asked = True
        self._request = request
        self._is_answering = True
        if self._task is None:
            self._task = self._loop.create_task(self._serve())
        elif self._turn is not None and not self._turn.done():
            self._turn.set_result(None)
        return data[end:]

    # One request after the other.

    async def _serve(self) -> None:
        """One task for all of them, as long as they come from somebody who is known: to make another for each is a good part of what a small one costs."""
        try:
            while self._is_answering:
                if await _answer(self):
                    # SECURITY: who sends thousands at once has them answered one at a time between those of others (tests/proxy/http/test_turns.py).
                    await asyncio.sleep(0)
                elif self.party and not self._is_ending and not self.is_closed:
                    self._turn = self._loop.create_future()
                    await self._turn
        except asyncio.CancelledError:
            return  # the client has left
        finally:
            self._task = self._turn = None

    def _ended(self, request: Request) -> None:
        """The handler is done with the request."""
        if self.is_closed:
            return
        if not request.has_ended:
            request.hang_up()
            return
        request.body.drop()
        if not request.keep_alive:
            self._end()
        elif request.body.is_complete:
            self._next()
        else:  # the rest of its body is read and thrown away, for a while: see `look`
            self._waiting_since_s = self._loop.time()
            self.resume_reading()

    def _next(self) -> None:
        """The next request may come, or is there already."""
        self._request = None
        if not self.party:
            # SECURITY: a stranger's head would take ten times the memory that its connection does (tests/security/test_kept_connections.py).
            self._reader.forget()
        self._waiting_since_s = self._loop.time()
        if self._half_closed_timer is not None and not self._unread:
            self._end()
            return
        self.resume_reading()
        if self._unread:
            self.data_received(b"")

    def _end(self, *, is_quiet: bool = True) -> None:
        """After what is on its way out. A client that still sends, or sent more than was read, would lose the answer with a connection that is closed
        under it (RFC 9112, 9.6).
        """
        self._is_ending = True
        if self._unread:
            self._unread = b""
            self._server.keeps(self, 0)
        self._waiting_since_s = self._loop.time()
        if self._transport is None or not self.is_usable:
            return
        is_quiet = is_quiet and not self.is_read_paused and (self._request is None or self._request.body.is_complete)
        if is_quiet or self._half_closed_timer is not None or not self._transport.can_write_eof():
            self._transport.close()
        else:
            self._transport.write_eof()
            self.resume_reading()

    # What a request asks.

    @property
    def may_go_on(self) -> bool:
        """Whether another request may follow the one that runs."""
        is_last = self.is_reserved or (self._server.is_draining and not self._unread)
        return not is_last and (self._half_closed_timer is None or bool(self._unread))

    def upgrade(self, protocol: HandedOver) -> None:
        """Hands the wire over, with what came behind the request; nothing of it is the connection's any more."""
        transport, self._transport = self._transport, None
        assert transport is not None, "written to just now"
        self.is_closed = True
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self._server.upgraded(self, protocol)
        unread, self._unread = self._unread, b""
        if unread:
            protocol.data_received(unread)
        if self.is_read_paused:
            protocol.resume_reading()

    # What the server asks, by the clock.

    @property
    def gives_way(self) -> bool:
        """Whether a new connection may have its place: nothing is asked of it or left to send, but for a body that nobody reads or a refusal that is held
        back, or its request shows no credential and holds its body back or leaves its answer unread.
        """
        request = self._request
        # SECURITY: else refused requests, and those whose bodies never come, hold all places for one tenant (tests/security/test_connections.py).
        if request is None or request.is_refused or ((self._is_ending or request.has_ended) and not self.has_unsent):
            return True
        return not request.is_proven and (not request.body.is_complete or self.has_unsent)

    def look(self, now_s: float, limits: ClientLimits) -> None:
        """Hangs up on a client that takes its time: to send a head, to send what nobody reads, to read, or to ask again."""
        if self._transport is None or self.is_closed:
            return
        unsent = self._transport.get_write_buffer_size()
        if not unsent or self._unsent_bytes - unsent >= limits.bytes_between_looks:
            self._written_at_s = now_s
        self._unsent_bytes = unsent
        if unsent:
            if now_s - self._written_at_s > limits.stall_s:
                self.close()
            return
        if self._is_ending or (self._request is not None and self._request.has_ended):
            patience_s = limits.lingering_s
        elif self._request is not None:
            return
        elif self._unread or not self._was_asked:
            patience_s = limits.header_s
        else:
            patience_s = limits.keepalive_s if self.party else min(limits.keepalive_s, limits.unproven_idle_s)
        if now_s - self._waiting_since_s <= patience_s:
            return
        is_idle = self._request is None and not self._unread and not self._is_ending
        # To close an idle connection under a request that has just come would break it.
        if not (is_idle and self.has_input):
            self.close()

    def _look_at_half_closed(self) -> None:
        """An interim answer, which every client passes over (RFC 9110, 15.2): the network tells the gate when nobody is there to take it."""
        if not self.is_usable:
            return
        if self._request is None:
            self._end()
            return
        self._request.write_interim()
        self._half_closed_timer = self._loop.call_later(_HALF_CLOSED_LOOK_S, self._look_at_half_closed)


async def _answer(connection: Connection) -> bool:
    """Answers what is asked on it. Says whether the next request is there already."""
    request = connection._request  # not in `_serve`, which would keep it while nothing is asked
    assert request is not None, "it is answered"
    try:
        await connection._server.handler(request)
    except asyncio.CancelledError:
        request.hang_up()
    except Exception:
        _log.exception("a request failed without an answer")
    finally:
        connection._is_answering = False
        connection._ended(request)
    return connection._is_answering


def is_slow(connection: Connection, age_s: float) -> bool:
    """Whether what it asked takes time, as far as can be told: more of its body is to come, more of its answer to leave, or it is older than others get.

    SECURITY: not of who has shown no credential and holds it up (tests/proxy/http/test_winding_down.py).
    """
    request = connection._request
    if request is None or connection.gives_way:
        return False
    return not request.body.is_complete or connection.has_unsent or age_s > _QUICK_S


def cut_off(connection: Connection) -> None:
    """At once, in a way that no answer looks whole that is not."""
    if connection._request is not None:
        connection._request.hang_up()
    else:
        connection.close()


def _refusal(rule: str) -> bytes:
    """Answers what is not HTTP, which never becomes a call. rule: which one it breaks.

    SECURITY: nothing of what could not be read is in it: a key may stand there. test_malformed.py::test_keys_stay_out
    """
    request_id = secrets.token_hex(8)
    body = replace(_MALFORMED, details=rule).body(request_id)
    fields = (
        ("Server", "comfygate"),
        ("Content-Type", "application/json"),
        ("X-Request-Id", request_id),
        ("Cache-Control", "private, no-store"),
        ("Connection", "close"),
    )
    return head_bytes(_MALFORMED.status, "", fields, length_line(len(body))) + body
