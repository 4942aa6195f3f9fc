"""The load: raw connections that send requests which were made before, one after the other, and count what comes back."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, cast

import httptools

from bench.whole.programs import Subject

CODINGS: Final = "Accept-Encoding: gzip, deflate, br, zstd\r\n"
BROWSER: Final = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36\r\n"
    "Accept: */*\r\nAccept-Language: en\r\n"
)


def request(
    subject: Subject,
    method: str,
    path: str,
    body: bytes = b"",
    fields: str = "",
    *,
    size: int | None = None,
    coding: bool = True,
) -> bytes:
    """One request as bytes. size: of a body that is sent afterwards. coding: it takes every coding, as browsers do."""
    length = len(body) if size is None else size
    has_body = length > 0 or method == "POST"
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {subject.host}:{subject.port}\r\n{BROWSER}{CODINGS if coding else ''}"
        f"Authorization: Bearer {subject.key}\r\n{fields}"
        + (f"Content-Length: {length}\r\n" if has_body else "")
        + ("Content-Type: application/json\r\n" if has_body and "Content-Type" not in fields else "")
        + "\r\n"
    ).encode() + body


@dataclass
class Tally:
    """What a load brought. times_s: of each request, where they are wanted. kept: (head fields, body) of each answer, where they are wanted."""

    statuses: Counter[int] = field(default_factory=Counter)
    received_bytes: int = 0
    times_s: list[float] = field(default_factory=list)
    kept: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.statuses.values())


class Connection(asyncio.Protocol):
    """requests: shared by the connections of a load, which take turns."""

    def __init__(self, requests: Iterator[bytes], tally: Tally, *, keeps: bool = False) -> None:
        self._requests = requests
        self._tally = tally
        self._keeps = keeps
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._is_complete = False
        self._began_s = 0.0
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by descent
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the connection ended before the load"))

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    async def send(self, chunks: Iterable[bytes]) -> None:
        """The rest of a request whose head has gone."""
        for chunk in chunks:
            self._transport.write(chunk)
            await self._may_write.wait()

    def data_received(self, data: bytes) -> None:
        self._tally.received_bytes += len(data)
        self._parser.feed_data(data)
        if self._is_complete:
            self._next()

    def on_message_begin(self) -> None:
        self._fields: dict[str, str] = {}
        self._body: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._keeps:
            self._fields[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        if self._keeps:
            self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._tally.statuses[status] += 1
        self._tally.times_s.append(time.perf_counter() - self._began_s)
        if self._keeps:
            self._tally.kept.append((self._fields, b"".join(self._body)))
        self._is_complete = True

    def _next(self) -> None:
        self._is_complete = False
        following = next(self._requests, None)
        if following is None:
            if not self.done.done():
                self.done.set_result(None)
            self._transport.close()
            return
        self._parser = httptools.HttpResponseParser(self)
        self._began_s = time.perf_counter()
        self._transport.write(following)


async def load(subject: Subject, requests: Iterable[bytes], connections: int = 16, *, keeps: bool = False) -> Tally:
    """Sends all requests over so many connections; raises when an answer is a failure."""
    tally, waiting = Tally(), iter(requests)
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: Connection(waiting, tally, keeps=keeps), subject.host, subject.port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for connection in opened))
    failed = {status: count for status, count in tally.statuses.items() if status >= 400}
    if failed:
        raise RuntimeError(f"{subject.name} answered {failed}")
    return tally


async def ask(
    subject: Subject, method: str, path: str, body: bytes = b"", fields: str = ""
) -> tuple[dict[str, str], bytes]:
    """Head fields and body of one answer."""
    return (await load(subject, [request(subject, method, path, body, fields)], 1, keeps=True)).kept[0]


async def upload(subject: Subject, path: str, fields: str, chunks: list[bytes]) -> None:
    """One request with a large body."""
    tally, size = Tally(), sum(map(len, chunks))
    head = request(subject, "POST", path, fields=fields, size=size)
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(iter([head]), tally), subject.host, subject.port
    )
    await connection.send(chunks)
    await connection.done
    if set(tally.statuses) != {200}:
        raise RuntimeError(f"{subject.name} answered {dict(tally.statuses)} to an upload")


class Listener(asyncio.Protocol):
    """A WebSocket that counts frames."""

    def __init__(self, subject: Subject, client_id: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self._head = request(
            subject,
            "GET",
            f"/ws?clientId={client_id}",
            fields=f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        )
        self._unread = b""
        self._skip = 0
        self._is_open = False
        self.frames = 0
        self.received_bytes = 0
        self.extensions = b""
        self._wanted = 1
        self._reached = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by descent
        self.transport.write(self._head)

    def connection_lost(self, error: Exception | None) -> None:
        self._reached.set()

    async def until(self, frames: int) -> None:
        """Until so many frames have come in all; raises when the connection ended before."""
        self._wanted = frames
        if self.frames < frames:
            self._reached.clear()
            await self._reached.wait()
        if self.frames < frames:
            raise ConnectionError(f"the socket ended after {self.frames} frames of {frames}")

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if not self._is_open:
            data = self._unread = self._unread + data
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head:
                raise RuntimeError(f"no WebSocket: {head[:200]!r}")
            self._is_open, self._unread = True, b""
            self.extensions = b"permessage-deflate" if b"permessage-deflate" in head.lower() else b""
        self._count(data)
        if self.frames >= self._wanted:
            self._reached.set()

    def _count(self, data: bytes) -> None:
        """Payloads are passed over, not copied."""
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        data, self._skip = self._unread + data[self._skip :], 0
        at = 0
        while len(data) - at >= 2:
            size, offset = data[at + 1] & 0x7F, 2
            if size >= 126:
                offset = 4 if size == 126 else 10
                if len(data) - at < offset:
                    break
                size = int.from_bytes(data[at + 2 : at + offset], "big")
            self.frames += data[at] & 0x0F in (1, 2)
            at += offset + size
        self._unread = data[at:] if at < len(data) else b""
        self._skip = max(0, at - len(data))


async def listen(subject: Subject, client_id: str) -> Listener:
    """A socket that has got its first frame."""
    _, listener = await asyncio.get_running_loop().create_connection(
        lambda: Listener(subject, client_id), subject.host, subject.port
    )
    await listener.until(1)
    return listener
