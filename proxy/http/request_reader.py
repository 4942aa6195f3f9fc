"""Requests from bytes: HTTP/1.1 on httptools (llhttp, strict). Sans-I/O: it knows no socket and no clock.

A head is given to the parser whole, and alone: where it ends is found first (RFC 9112, 2.1), so one head is one request and nothing is read
ahead. What frames the body is then told by the head alone (RFC 9112, 6.3).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httptools
from multidict import CIMultiDict, istr

from proxy.http.head_gaps import LENGTH, Gaps, gaps_of
from proxy.http.request import NO_BODY, Request, RequestBody

if TYPE_CHECKING:
    from proxy.http.connection import Connection

MAX_FIELDS: Final = 128
"""Header fields of one request."""
MAX_TARGET_BYTES: Final = 64 * 1024
"""Of a request line. What a target may be long is said by policy/call.py, with a sentence of its own."""
MAX_KEPT_BYTES: Final = 4 * 1024
"""Of a head whose fields are kept for the next request of its connection."""
MAX_KEPT_FIELDS: Final = 64
"""Of such a head: each takes many times its bytes. A browser behind an edge sends about forty."""
_HOST: Final = istr("Host")
_CODING: Final = istr("Transfer-Encoding")
_END: Final = b"\r\n\r\n"
_MAX_LENGTH_DIGITS: Final = 18
_VERSIONS: Final[dict[bytes, tuple[int, int]]] = {b" HTTP/1.0": (1, 0), b" HTTP/1.1": (1, 1)}
"""By the end of a request line. The parser knows protocols besides that are none of these."""
_OWS: Final = b" \t"
_CHUNKED_HEAD: Final = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
_KNOWN: Final = {
    name.lower().encode(): istr(name)
    for name in (
        "Accept",
        "Accept-Encoding",
        "Accept-Language",
        "Authorization",
        "Cache-Control",
        "Cf-Connecting-Ip",
        "Cf-Ray",
        "Connection",
        "Content-Length",
        "Content-Type",
        "Cookie",
        "Host",
        "Idempotency-Key",
        "If-None-Match",
        "Origin",
        "Range",
        "Referer",
        "Sec-Fetch-Dest",
        "Sec-Fetch-Mode",
        "Sec-Fetch-Site",
        "User-Agent",
        "X-Api-Key",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Request-Id",
    )
}
"""Names that are written as they are looked up, so that they need not be folded again."""


_ABSOLUTE: Final = re.compile(r"https?://([^/?#]+)", re.IGNORECASE)


class MalformedRequest(Exception):
    """What came is not one well-formed request. The text holds nothing of it."""


def _origin_form(target: str, headers: CIMultiDict[str]) -> str:
    """Of a target in the absolute form, which a server takes too (RFC 9112, 3.2.2), what stands behind the host; any other as it came.

    SECURITY: only where both name one host, else two programs could read two (tests/wire/test_targets.py).
    """
    if target.startswith("/"):
        return target
    named = _ABSOLUTE.match(target)
    if named is None or named[1].lower() != headers.get(_HOST, "").lower():
        return target
    rest = target[named.end() :]
    return rest if rest.startswith("/") else f"/{rest}"


@dataclass(slots=True)
class _Fields:
    """The fields of a head. raw: as the parser gave them. length: 0 where there is none, or the body is chunked. derived: `of_fields` of Request."""

    raw: list[tuple[bytes, bytes]]
    headers: CIMultiDict[str]
    length: int
    is_chunked: bool
    derived: dict[str, Any]


@dataclass(slots=True)
class _Head:
    """A head that was read, of a request whose end the head tells alone. raw: all its bytes. gaps: None where it has no field that may differ.
    derived: `of_head` of Request, so that nothing of it may come from such a field."""

    raw: bytes
    gaps: Gaps | None
    method: str
    target: str
    version: tuple[int, int]
    fields: _Fields
    head_bytes: int
    may_follow: bool
    derived: dict[str, Any]


def _read_fields(raw: list[tuple[bytes, bytes]]) -> _Fields:
    """Raises MalformedRequest."""
    if len(raw) > MAX_FIELDS:
        raise MalformedRequest("too many header fields")
    headers = CIMultiDict(
        [
            (_KNOWN.get(name.lower()) or name.decode("ascii"), value.rstrip(_OWS).decode("utf-8", "surrogateescape"))
            for name, value in raw
        ]
    )
    if len(headers.getall(_HOST, ())) > 1:
        raise MalformedRequest("more than one Host")
    lengths: Sequence[str] = headers.getall(LENGTH, ())
    codings: Sequence[str] = headers.getall(_CODING, ())
    # SECURITY: stricter than RFC 9112, 6.3 allows: one way to frame a body, said once (tests/wire/test_malformed.py).
    if len(lengths) + len(codings) > 1:
        raise MalformedRequest("a body is framed once")
    if codings and codings[0].lower() != "chunked":
        raise MalformedRequest("the only coding of a transfer is chunked")
    digits = lengths[0] if lengths else "0"
    if not digits.isascii() or not digits.isdigit() or len(digits) > _MAX_LENGTH_DIGITS:
        raise MalformedRequest("a length is a number")
    return _Fields(raw, headers, int(digits), bool(codings), {})


class RequestReader:
    """max_head_bytes: of all header fields. overhead_bytes: received since the last of a chunked body."""

    __slots__ = (
        "_body",
        "_fields",
        "_is_whole",
        "_last_fields",
        "_last_head",
        "_max_head_bytes",
        "_may_follow",
        "_parser",
        "_pieces",
        "_target",
        "left_bytes",
        "overhead_bytes",
    )

    def __init__(self, max_head_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._last_head: _Head | None = None
        self._last_fields: _Fields | None = None
        """Of the request before: one that has the same head or the same fields, byte for byte, shares what was worked out of them. Who asks for one
        thing again and again sends one head, and who asks for several mostly the same fields.
        """
        self._body: RequestBody | None = None
        self._is_whole = self._may_follow = False
        self._pieces: list[bytes] = []
        """Of a chunked body: what came since it was fed last."""
        self.overhead_bytes = 0
        self.left_bytes = 0
        """Of the body: so many come before anything else does. Of a chunked one all that comes is."""

    def read_head(self, data: bytes, looked_at: int, connection: Connection) -> tuple[Request, int] | None:
        """The request at the beginning of data and where its head ends; None when the end has not come. Raises MalformedRequest.

        looked_at: so many bytes of data were here when the end was looked for last.
        """
        end = data.find(_END, max(0, looked_at - 3))
        if end < 0:
            if len(data) > self._max_head_bytes + MAX_TARGET_BYTES:
                raise MalformedRequest("the head is too large")
            if not _may_begin(data):
                raise MalformedRequest("the head does not begin with a method")
            return None
        end += len(_END)
        # SECURITY: a stranger's head that comes whole in one read is no larger than one that comes in two: the parser tells of each field of it
        # (tests/proxy/http/test_request_reader.py).
        if end > self._max_head_bytes + MAX_TARGET_BYTES:
            raise MalformedRequest("the head is too large")
        head = data[:end] if end < len(data) else data
        last = self._last_head
        if last is not None:
            if last.raw == head:
                return self._again(last, last.fields.headers, last.fields.length, connection), end
            # What may be too large for its reader is looked at as a whole.
            if last.gaps is not None and end <= self._max_head_bytes and (values := last.gaps.read(head)) is not None:
                return self._again_with(last, values, end, connection), end
        request = self._parse(head, connection)
        # A connection may be idle for long: a large head does not stay with it. What its next request may share is kept besides.
        self._target, self._fields = b"", []
        return request, end

    def forget(self) -> None:
        """The next request shares nothing with those that came before."""
        self._last_head = self._last_fields = None

    def read_body(self, data: bytes) -> bytes:
        """More of the body of the request that was read last; what is behind it. A body that is none fails."""
        body = self._body
        assert body is not None, "read_head() comes first"
        if body.length is None:
            self._read_chunked(body, data)
            return b""
        rest = b""
        if len(data) > self.left_bytes:
            data, rest = data[: self.left_bytes], data[self.left_bytes :]
        self.left_bytes -= len(data)
        body.feed(data)
        if not self.left_bytes:
            body.feed_end()
        return rest

    def _read_chunked(self, body: RequestBody, data: bytes) -> None:
        """What follows the body is never read (tests/wire/test_reuse.py)."""
        self.overhead_bytes += len(data)
        failure = ""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            failure = type(error).__name__
        if self._pieces:
            # SECURITY: chunks of a byte or two would cost their reader many times their size. test_request_reader_chunks.py
            pieces, self._pieces = self._pieces, []
            body.feed(b"".join(pieces))
        if self._is_whole:
            body.feed_end()
        elif failure:
            body.fail(ConnectionResetError(f"a body that is none: {failure}"))
        if self.overhead_bytes > self._max_head_bytes + MAX_TARGET_BYTES:
            body.fail(ConnectionResetError("a body without an end of extensions or trailers"))

    def _fields_of(self, head: bytes) -> _Fields:
        """Raises MalformedRequest."""
        fields = self._last_fields
        if fields is None or fields.raw != self._fields:
            fields = _read_fields(self._fields)
            self._last_fields = fields if _may_be_kept(head, fields) else None
        return fields

    def _keep(self, head: bytes, request: Request, fields: _Fields) -> None:
        """For the next request: see `_again`."""
        if not _may_be_kept(head, fields):
            return
        self._last_head = _Head(
            head,
            gaps_of(head, fields.headers),
            request.method,
            request.raw_path,
            request.version,
            fields,
            request.head_bytes,
            request.keep_alive,
            request.of_head,
        )

    def _again_with(self, head: _Head, values: list[tuple[istr, str]], size: int, connection: Connection) -> Request:
        """Who submits texts says another length each time, or a key that is new, and nothing else. size: of the whole head, in bytes."""
        headers, length = head.fields.headers.copy(), head.fields.length
        for name, value in values:
            headers[name] = value
            if name is LENGTH:
                length = int(value)
        request = self._again(head, headers, length, connection)
        request.head_bytes += size - len(head.raw)
        return request

    def _again(self, head: _Head, headers: CIMultiDict[str], length: int, connection: Connection) -> Request:
        """One more request with this head: the parser stands where it stood before the first."""
        body = RequestBody(connection, length) if length else NO_BODY
        self._body, self._is_whole, self.overhead_bytes, self.left_bytes = body, False, 0, length
        return Request(
            head.method,
            head.target,
            headers,
            connection,
            head.version,
            body,
            head.head_bytes,
            head.may_follow,
            False,
            head.fields.derived,
            head.derived,
        )

    def _parse(self, head: bytes, connection: Connection) -> Request:
        self._last_head = None
        is_upgrade = self._is_upgrade(head)
        line_end = head.index(b"\r\n")
        version = _VERSIONS.get(head[line_end - 9 : line_end])
        if version is None or not self._target:
            raise MalformedRequest("no request of HTTP/1")
        fields = self._fields_of(head)
        if version == (1, 1) and _HOST not in fields.headers:
            raise MalformedRequest("a request of HTTP/1.1 names its host")  # RFC 9112, 3.2
        length, is_chunked = fields.length, fields.is_chunked
        if is_chunked and version != (1, 1):
            raise MalformedRequest("HTTP/1.0 has no chunks")
        has_body = is_chunked or length > 0
        if self._is_whole is has_body and not is_upgrade:
            raise MalformedRequest("the head and its reader do not agree where the request ends")
        request = Request(
            self._parser.get_method().decode("ascii"),
            _origin_form(self._target.decode("utf-8", "surrogateescape"), fields.headers),
            fields.headers,
            connection=connection,
            version=version,
            body=RequestBody(connection, None if is_chunked else length) if has_body else NO_BODY,
            head_bytes=len(head) - len(self._target),
            # SECURITY: where a chunked body ends is the parser's reading alone: nothing after it is read as a request (tests/wire/test_reuse.py).
            keep_alive=self._may_follow and not is_chunked,
            is_upgrade=is_upgrade and not has_body,
            of_fields=fields.derived,
        )
        if not is_chunked and not is_upgrade:
            self._keep(head, request, fields)
        self._body, self._is_whole, self.overhead_bytes = request.body, False, 0
        self.left_bytes = sys.maxsize if is_chunked else length
        if is_upgrade or (has_body and not is_chunked):
            # The body goes past the parser, which would wait for it; and it reads nothing behind an upgrade.
            self._parser = httptools.HttpRequestParser(self)
        if is_upgrade and is_chunked:
            self._parser.feed_data(_CHUNKED_HEAD)
        return request

    def _is_upgrade(self, head: bytes) -> bool:
        """Has the parser read the head; says whether it expects another protocol behind it. Raises MalformedRequest."""
        self._target, self._fields, self._body, self._is_whole = b"", [], None, False
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            return True
        except httptools.HttpParserError:
            raise MalformedRequest("a line of the head cannot be read") from None
        return False

    # What the parser calls.

    def on_url(self, url: bytes) -> None:
        # SECURITY: one head is one request: whatever a parser may call the end of it, a second one within it is none.
        self._target = b"" if self._is_whole else self._target + url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._body is None:  # trailers go nowhere
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        self._may_follow = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if self._body is not None and not self._is_whole:
            self.overhead_bytes = 0
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._is_whole = True


def _may_be_kept(head: bytes, fields: _Fields) -> bool:
    """SECURITY: thousands of connections may be idle (tests/security/test_kept_connections.py)."""
    return len(head) <= MAX_KEPT_BYTES and len(fields.raw) <= MAX_KEPT_FIELDS


def _may_begin(data: bytes) -> bool:
    """Whether data may be the beginning of a request: a method is letters."""
    return not data or data[:1].isalpha()
