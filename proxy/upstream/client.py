"""The only door to ComfyUI: sends nothing but an UpstreamCall, and has three errors for whatever goes wrong behind it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import SplitResult, urlsplit

from multidict import CIMultiDict

from policy.call import UpstreamCall, UpstreamReply
from policy.document import read_upstream_json
from proxy.http import hdrs
from proxy.http.errors import ReplyTooLarge, UpstreamTimeout, UpstreamUnreachable
from proxy.http.headers import RawFields, content_type_of
from proxy.http.heartbeat import Heartbeat
from proxy.http.replies import Taker
from proxy.http.responses import SMALL_BYTES
from proxy.http.websocket import WebSocket
from proxy.tasks import Tasks
from proxy.upstream.addresses import HostAddresses
from proxy.upstream.answer import KnownHeads
from proxy.upstream.connection import Connection, ConnectionClosed, idle_s
from proxy.upstream.websocket_handshake import Handshake

MAX_REPLY_BYTES: Final = 256 * 1024**2
"""Bound of an answer that a rule reads; a long history with large graphs is the largest."""

MAX_EVENT_BYTES: Final = 64 * 1024**2
"""Bound of one event: a picture of 16 megapixels without compression. Nodes double texts without end."""

LARGE_BYTES: Final = 256 * 1024
"""JSON of more than that is read in a thread."""
SILENCE_S: Final = 60.0
"""A ComfyUI that answers no ping for so long is given up: its clients are told, and it is asked again."""
HANDSHAKE_LIMIT_S: Final = 30.0
"""How long ComfyUI may take to accept a WebSocket, also while it blocks on /object_info."""
IDLE_CONNECTION_S: Final = 15.0
"""Shorter than ComfyUI's own keep-alive, so that a POST never meets a socket it just closed."""
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Calls that change nothing: made again when a kept connection turns out to be closed (RFC 9110, 9.2.2)."""


class FieldLines:
    """The header fields of a call without a body, as they go on the wire, to be sent more than once. Raises ValueError for a field that would end its line."""

    __slots__ = ("sent", "text")

    def __init__(self, fields: CIMultiDict[str]) -> None:
        fields.popall(hdrs.CONTENT_LENGTH, None)
        self.sent: tuple[UpstreamCall, str, Upstream, bytes] | None = None
        """The call that they were sent with last, its target, whereto, and its head."""
        self.text = _joined([f"{name}: {value}\r\n" for name, value in fields.items()])


def _joined(lines: list[str]) -> str:
    text = "".join(lines)
    # SECURITY: one line per field, whatever a value holds (RFC 9112, 2.2). test_client.py
    if text.count("\n") != len(lines) or text.count("\r") != len(lines):
        raise ValueError("a header field holds the end of a line")
    return text


@dataclass(slots=True)
class UpstreamStream:
    """An answer whose body is still to come. Reading it raises UpstreamUnavailable when ComfyUI breaks off, UpstreamTimeout when it falls silent."""

    status: int
    connection: Connection
    close: Callable[[], None]
    """Gives the connection back, or closes it when the answer was not read to its end."""
    comfyui: str = ""
    """Which of several has answered, "" for the first."""

    async def __aenter__(self) -> UpstreamStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def fields(self) -> RawFields:
        """The head, as it came; of this answer until `close`."""
        return self.connection.answer.fields

    @property
    def headers(self) -> CIMultiDict[str]:
        """Made anew each time."""
        return self.connection.answer.headers

    @property
    def is_small(self) -> bool:
        """Whether the whole body is known to be of a size that is better sent at once than streamed."""
        answer = self.connection.answer
        return answer.content_length is not None and answer.content_length <= SMALL_BYTES and answer.has_body

    async def pour(self, taker: Taker) -> None:
        """The body into the taker, as it comes. Raises UpstreamTimeout, UpstreamUnavailable, and what the taker does."""
        await self.connection.pour(taker)

    def body_at_once(self, max_bytes: int) -> bytes | None:
        """The bounded body, where nothing has to be waited for and it came in one piece."""
        return self.connection.answer.take_whole(max_bytes)

    async def body(self, max_bytes: int) -> bytes:
        """The bounded body. Raises ReplyTooLarge when it is larger, UpstreamTimeout, UpstreamUnavailable."""
        body = await self.connection.read(max_bytes)
        if body is None:
            raise ReplyTooLarge("ComfyUI's answer is too large to be filtered.")
        return body

    async def whole(self, max_bytes: int = MAX_REPLY_BYTES) -> UpstreamReply:
        """The bounded answer, its JSON parsed when it is JSON. Raises ReplyTooLarge, UpstreamTimeout, UpstreamUnavailable."""
        body = self.body_at_once(max_bytes)
        if body is None:
            body = await self.body(max_bytes)
        is_large = len(body) > LARGE_BYTES
        value = await asyncio.to_thread(read_upstream_json, body) if is_large else read_upstream_json(body)
        return UpstreamReply(self.status, value, body, content_type_of(self.fields))


class Upstream:
    """One ComfyUI. Connections that have answered are kept for the next call, the one that was used last first."""

    def __init__(self, url: str, connect_timeout_s: float) -> None:
        self.url = url
        self._connect_timeout_s = connect_timeout_s
        parts = urlsplit(url)
        self._addresses = HostAddresses(parts.hostname or "", parts.port or 80)
        self._prefix = parts.path.rstrip("/")
        self._host_line = f"Host: {_host_of(parts)}\r\n"
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._bodies = Tasks(is_watched=True)
        self._heartbeat = Heartbeat(SILENCE_S)
        self._known_heads = KnownHeads()
        self.is_awaited: Callable[[UpstreamCall], bool] = lambda call: True
        """Whether a client's call is worth to be sent: else nobody answers, as far as is known, and the client is not told so."""

    def of(self, comfyui: str) -> Upstream:
        """That of the ComfyUI of this name."""
        return self

    @property
    def is_busy(self) -> bool:
        """Whether an answer is on its way, WebSockets aside."""
        return len(self._open) > len(self._idle)

    async def stop(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in tuple(self._open):
            connection.close()
        self._open.clear()
        self._idle.clear()
        await self._bodies.stop()
        self._heartbeat.stop()
        await asyncio.sleep(0)  # the loop tells the connections that they are closed

    async def open(
        self,
        call: UpstreamCall,
        headers: CIMultiDict[str] | FieldLines | None = None,
        body: AsyncIterable[bytes] | bytes | None = None,
        *,
        time_limit_s: float,
        is_for_all: bool = False,
    ) -> UpstreamStream:
        """Sends the call and waits for the head of its answer, which is to be closed. time_limit_s: how long ComfyUI may be silent once it has the whole
        call; is_for_all: or take for all of its answer.

        Raises UpstreamUnavailable, UpstreamTimeout, or what the client's body broke with.
        """
        is_streamed, length = False, None
        if isinstance(headers, FieldLines):
            head = self._head_with(call, headers)
        else:
            fields = CIMultiDict() if headers is None else headers
            is_streamed = body is not None and not isinstance(body, bytes)
            length = int(fields[hdrs.CONTENT_LENGTH]) if is_streamed and hdrs.CONTENT_LENGTH in fields else None
            head = self._head_of(call, fields, body)
        while True:
            connection = self._idle_connection() or await self._connect_new()
            sending: asyncio.Task[None] | None = None
            try:
                connection.begin(call.method, head, body, time_limit_s, is_for_all=is_for_all)
                if body is not None and not isinstance(body, bytes):
                    sending = self._bodies.start(_send(connection, body, length), "upstream body")
                await connection.head()
            except ConnectionClosed:
                self._let_go(connection, sending)
                if call.method in _REPEATABLE and not is_streamed:
                    continue
                raise
            except BaseException:
                self._let_go(connection, sending)
                raise
            return UpstreamStream(connection.answer.status, connection, partial(self._let_go, connection, sending))

    async def open_instead(
        self, call: UpstreamCall, headers: CIMultiDict[str] | FieldLines, *, time_limit_s: float
    ) -> UpstreamStream | None:
        """For a client, when nobody answered: of several ComfyUIs the first one's answer, which has not what another one has, where the client is
        not told that the other does not answer. Raises as `open`."""
        return None

    def _head_with(self, call: UpstreamCall, lines: FieldLines) -> bytes:
        sent = lines.sent
        if sent is not None and sent[0] is call and sent[2] is self:
            return sent[3]
        target = call.target
        if sent is not None and sent[1] == target and sent[2] is self and sent[0].method == call.method:
            return sent[3]  # another call, which asks the same
        assert call.content_type is None, "a call without a body"
        more = "" if call.method in _WITHOUT_BODY else "Content-Length: 0\r\n"
        head = f"{call.method} {self._prefix}{target} HTTP/1.1\r\n{self._host_line}{lines.text}{more}\r\n".encode(
            "utf-8", "surrogateescape"
        )
        lines.sent = (call, target, self, head)
        return head

    def _head_of(
        self, call: UpstreamCall, fields: CIMultiDict[str], body: AsyncIterable[bytes] | bytes | None
    ) -> bytes:
        """Raises ValueError for a field that would end its line."""
        if call.content_type is not None:
            fields[hdrs.CONTENT_TYPE] = call.content_type
        # What frames the body is decided here alone (RFC 9112, 6.3): a body that streams has the length that its client declared.
        declared = fields.pop(hdrs.CONTENT_LENGTH, None)
        lines = [f"{name}: {value}\r\n" for name, value in fields.items()]
        if isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}\r\n")
        elif body is None:
            lines += [] if call.method in _WITHOUT_BODY else ["Content-Length: 0\r\n"]
        else:
            framing = "Transfer-Encoding: chunked" if declared is None else f"Content-Length: {declared}"
            lines.append(f"{framing}\r\n")
        text = _joined(lines)
        target = f"{call.method} {self._prefix}{call.target} HTTP/1.1\r\n"
        return f"{target}{self._host_line}{text}\r\n".encode("utf-8", "surrogateescape")

    def _idle_connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and idle_s(connection) < IDLE_CONNECTION_S:
                return connection
            self._discard(connection)
        return None

    async def _connect_new(self) -> Connection:
        connection = Connection(self._known_heads)
        await self._dial(connection)
        self._open.add(connection)
        return connection

    async def _dial(self, protocol: asyncio.BaseProtocol) -> None:
        """Gives the protocol a connection to ComfyUI. Raises UpstreamUnreachable."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                found = await self._addresses.connect()
                if found is None:
                    await loop.create_connection(lambda: protocol, self._addresses.host, self._addresses.port)
                else:
                    await loop.create_connection(lambda: protocol, sock=found)
        except (TimeoutError, OSError) as error:
            raise UpstreamUnreachable from error

    def _let_go(self, connection: Connection, sending: asyncio.Task[None] | None) -> None:
        """Kept for another call when this one has ended whole on both sides, else closed."""
        is_sent = sending is None or (sending.done() and not sending.cancelled())
        if sending is not None and not sending.done():
            sending.cancel()
        if not is_sent:
            connection.close()
        if not connection.finish():
            self._discard(connection)
            return
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_CONNECTION_S, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        while self._idle and (not self._idle[0].is_usable or idle_s(self._idle[0]) >= IDLE_CONNECTION_S):
            self._discard(self._idle.popleft())
        if self._idle:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_CONNECTION_S, self._close_idle)

    def _discard(self, connection: Connection) -> None:
        connection.close()
        self._open.discard(connection)

    async def ask(self, call: UpstreamCall, *, time_limit_s: float, max_bytes: int = MAX_REPLY_BYTES) -> UpstreamReply:
        """A call with a small body and a bounded answer, as multi-call rules make it. Raises ReplyTooLarge, UpstreamTimeout, UpstreamUnavailable."""
        headers = CIMultiDict({hdrs.ACCEPT_ENCODING: "identity"})
        body = call.body if isinstance(call.body, bytes) else None
        async with await self.open(call, headers, body, time_limit_s=time_limit_s, is_for_all=True) as stream:
            return await stream.whole(max_bytes)

    async def connect(self, call: UpstreamCall) -> WebSocket:
        """Opens a WebSocket, whose `start` comes next. Raises UpstreamTimeout, UpstreamUnavailable.

        ComfyUI sends whole pictures, so messages may be large.
        """
        handshake = Handshake(MAX_EVENT_BYTES)
        head = self._head_of(call, CIMultiDict(handshake.fields), None)
        try:
            async with asyncio.timeout(HANDSHAKE_LIMIT_S):
                await self._dial(handshake)
                socket = await handshake.ask(head)
        except TimeoutError as error:
            handshake.abort()
            raise UpstreamTimeout from error
        except BaseException:
            handshake.abort()
            raise
        self._heartbeat.watch(socket)
        return socket


def _host_of(parts: SplitResult) -> str:
    """As it stands in a Host field (RFC 9112, 3.2)."""
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    elif not host.isascii():
        host = host.encode("idna").decode("ascii")
    return host if parts.port in (None, 80) else f"{host}:{parts.port}"


async def _send(connection: Connection, body: AsyncIterable[bytes], length: int | None) -> None:
    try:
        await connection.send_body(body, length=length)
    except Exception as error:
        connection.fail(error)
