"""A stream of requests is the same requests, and gets the same answers, into whichever pieces the network cuts it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.request import Request
from tests.proxy.http.wires import connected

_WORD = st.text("abcXYZ019-_.~%", min_size=1, max_size=12)
_VALUE = st.text('abc XYZ:,;="/\u00e9', max_size=20).map(str.strip)


@dataclass(frozen=True)
class Sent:
    """chunks: of the body, None where it is framed by its length."""

    method: str
    path: str
    fields: tuple[tuple[str, str], ...]
    body: bytes
    chunks: tuple[bytes, ...] | None = None

    @property
    def as_bytes(self) -> bytes:
        fields = [("Host", "x"), *self.fields]
        if self.chunks is not None:
            fields.append(("Transfer-Encoding", "chunked"))
            body = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(each), each) for each in self.chunks) + b"0\r\nX-T: t\r\n\r\n"
        else:
            body = self.body
            if body or self.method == "POST":
                fields.append(("Content-Length", str(len(body))))
        head = f"{self.method} {self.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
        return head.encode() + b"\r\n" + body


_FIELDS = st.lists(st.tuples(_WORD.map(lambda word: f"X-{word.replace('%', '')}"), _VALUE), max_size=4).map(tuple)
_BY_LENGTH = st.builds(
    Sent, st.sampled_from(["GET", "POST", "PUT"]), _WORD.map(lambda word: f"/{word}"), _FIELDS, st.binary(max_size=60)
)
_CHUNKED = st.lists(st.binary(min_size=1, max_size=20), max_size=4).map(
    lambda chunks: Sent("POST", "/chunked", (), b"".join(chunks), tuple(chunks))
)
_STREAMS = st.tuples(st.lists(_BY_LENGTH, min_size=1, max_size=5), st.lists(_CHUNKED, max_size=1)).map(
    lambda found: [*found[0], *found[1]]
)


class Noting:
    """A handler that notes what it was asked. Half of the requests it answers before it has read their bodies."""

    def __init__(self, reads: list[bool]) -> None:
        self.seen: list[tuple[str, str, tuple[tuple[str, str], ...], bytes | None]] = []
        self._reads = reads

    async def __call__(self, request: Request) -> None:
        number = len(self.seen)
        fields = tuple((name, value) for name, value in request.headers.items() if name.startswith("X-"))
        self.seen.append((request.method, request.raw_path, fields, None))
        if self._reads[number % len(self._reads)]:
            body = b""
            while piece := await request.body.read():
                body += piece
            self.seen[number] = (*self.seen[number][:3], body)
        await request.send(200, (), f"[{number}]".encode())


async def talk(pieces: list[bytes], reads: list[bool]) -> tuple[Noting, bytes]:
    """Feeds the pieces as a socket does: not while reading is paused."""
    handler = Noting(reads)
    async with connected(handler) as (connection, wire):
        for piece in pieces:
            for _ in range(100):
                if not wire.is_paused:
                    break
                await asyncio.sleep(0)
            assert not wire.is_paused, "read on in the end"
            connection.data_received(piece)
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not wire.is_aborted
        return handler, wire.written


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % len(data) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(at)]


@given(_STREAMS, st.lists(st.integers(0, 2000), max_size=25), st.lists(st.booleans(), min_size=1, max_size=4))
@settings(deadline=None)
def test_a_stream_is_the_same_however_it_is_cut(sent: list[Sent], places: list[int], reads: list[bool]) -> None:
    stream = b"\r\n".join(each.as_bytes for each in sent)
    handler, written = asyncio.run(talk(cut(stream, places), reads))
    expected = [
        (each.method, each.path, each.fields, each.body if reads[number % len(reads)] else None)
        for number, each in enumerate(sent)
    ]
    assert handler.seen == expected
    assert [part[-3:] for part in written.split(b"HTTP/1.1 200 OK\r\n")[1:]] == [
        f"[{number}]".encode() for number in range(len(sent))
    ]


def test_byte_by_byte() -> None:
    sent = [
        Sent("POST", "/a", (("X-A", "b"),), b"first"),
        Sent("GET", "/b", (), b""),
        Sent("POST", "/c", (), b"abcdef", (b"abc", b"def")),
    ]
    stream = b"".join(each.as_bytes for each in sent)
    handler, _ = asyncio.run(talk([stream[at : at + 1] for at in range(len(stream))], [True]))
    assert handler.seen == [(each.method, each.path, each.fields, each.body) for each in sent]
