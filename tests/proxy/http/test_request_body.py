"""Request bodies: bounded, timed, counted, and never asked for before they are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from policy.violation import Reason, Violation
from proxy.http.errors import BodyTimeout, ClientGone
from proxy.http.request import HIGH_WATER_BYTES
from proxy.http.request_body import BodyLimits, BodyStream, expect_continue, read_whole
from tests.proxy.http.requests import RecordingConnection, made_body, made_post

LIMITS = BodyLimits(max_bytes=100, timeout_s=30.0, min_bytes_per_second=1024)
IMPATIENT = BodyLimits(max_bytes=100, timeout_s=0.02, min_bytes_per_second=1024)
TRICKLE = BodyLimits(max_bytes=100, timeout_s=0.02, min_bytes_per_second=10**9)


class Sender:
    """A request whose body the test feeds. written: what the gate said to the client so far."""

    def __init__(self, length: int | None = None, **headers: str) -> None:
        self.connection = RecordingConnection()
        self.body = made_body(self.connection, length)
        self.request = made_post(self.body, self.connection, **headers)

    @property
    def written(self) -> list[bytes]:
        return self.connection.written

    def feed(self, *chunks: bytes, eof: bool = True) -> Sender:
        for chunk in chunks:
            self.body.feed(chunk)
        if eof:
            self.body.feed_end()
        return self


async def collect(stream: AsyncIterator[bytes] | BodyStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def test_stream_gives_the_bytes_and_counts_them() -> None:
    stream = BodyStream(Sender().feed(b"ab", b"cd").request, LIMITS)
    assert await collect(stream) == b"abcd"
    assert stream.received_bytes == 4


async def test_declared_length_over_the_limit_is_refused_before_a_byte_is_read() -> None:
    sender = Sender(101, Expect="100-continue")
    with pytest.raises(Violation) as caught:
        BodyStream(sender.request, LIMITS)
    assert caught.value.reason is Reason.BODY_TOO_LARGE
    assert "100 bytes" in caught.value.details
    assert "max_upload_bytes" in caught.value.details
    assert sender.written == []


async def test_declared_length_at_the_limit_is_taken() -> None:
    sender = Sender(100).feed(b"x" * 100)
    assert len(await collect(BodyStream(sender.request, LIMITS))) == 100


async def test_undeclared_length_over_the_limit_breaks_off() -> None:
    sender = Sender().feed(b"x" * 60, eof=False)
    chunks = aiter(BodyStream(sender.request, LIMITS))
    assert await anext(chunks) == b"x" * 60
    sender.feed(b"x" * 41, eof=False)
    with pytest.raises(Violation) as caught:
        await anext(chunks)
    assert caught.value.reason is Reason.BODY_TOO_LARGE


async def test_silence_ends_the_body() -> None:
    stream = BodyStream(Sender().feed(b"x", eof=False).request, IMPATIENT)
    with pytest.raises(BodyTimeout):
        await collect(stream)


async def test_a_trickle_ends_the_body_though_it_never_falls_silent() -> None:
    """Each byte comes in time, but all of them together are too slow for min_bytes_per_second."""
    sender = Sender()
    stream = BodyStream(sender.request, TRICKLE)
    loop = asyncio.get_running_loop()
    fed, is_over = 0, False

    def feed() -> None:
        nonlocal fed
        if not is_over:
            sender.body.feed(b"x")
            fed += 1
            loop.call_later(0.005, feed)

    feed()
    with pytest.raises(BodyTimeout):
        await collect(stream)
    is_over = True
    assert fed > 1


async def test_time_that_the_upstream_takes_is_not_the_clients() -> None:
    sender = Sender().feed(b"x", eof=False)
    chunks = aiter(BodyStream(sender.request, IMPATIENT))
    assert await anext(chunks) == b"x"
    slow_upstream = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(3 * IMPATIENT.timeout_s, slow_upstream.set_result, None)
    await slow_upstream
    waiting = asyncio.ensure_future(anext(chunks))
    await asyncio.wait((waiting,), timeout=0)
    sender.body.feed(b"y")
    assert await waiting == b"y"


@pytest.mark.parametrize("is_waiting", [False, True])
async def test_a_broken_body_is_a_client_that_went(is_waiting: bool) -> None:
    """What came of it is read first."""
    sender = Sender().feed(b"ab", eof=False)
    chunks = aiter(BodyStream(sender.request, LIMITS))
    if not is_waiting:
        sender.body.fail(ConnectionResetError("gone"))
    assert await anext(chunks) == b"ab"
    reading = asyncio.ensure_future(anext(chunks))
    await asyncio.wait((reading,), timeout=0)
    sender.body.fail(ConnectionResetError("gone"))
    with pytest.raises(ClientGone, match="gone"):
        await reading


async def test_a_whole_body_does_not_break_afterwards() -> None:
    sender = Sender().feed(b"ab")
    sender.body.fail(ConnectionResetError("gone"))
    assert await collect(BodyStream(sender.request, LIMITS)) == b"ab"


async def test_more_is_asked_for_when_half_of_what_waits_is_read() -> None:
    sender = Sender().feed(*[bytes(HIGH_WATER_BYTES // 4)] * 5, eof=False)
    assert sender.body.is_full
    asked = []
    while sender.body.take() is not None:
        asked.append(sender.connection.times_resumed)
    assert asked == [0, 0, 1, 1, 1]


async def test_what_nobody_reads_is_not_kept() -> None:
    sender = Sender().feed(bytes(2 * HIGH_WATER_BYTES), eof=False)
    sender.body.drop()
    sender.feed(b"more", eof=False)
    assert (sender.body.waiting_bytes, sender.body.take(), sender.body.is_full) == (0, None, False)
    assert sender.connection.times_resumed == 1


def test_limits_allow_time_by_bytes() -> None:
    assert LIMITS.allowed_s(2048) == 32.0
    assert BodyLimits(1, 2.0, 0).allowed_s(0) > 1e8
    assert LIMITS.within(10) == BodyLimits(10, 30.0, 1024)
    assert LIMITS.within(1000) == LIMITS


async def test_whole_body_is_read() -> None:
    assert await read_whole(Sender().feed(b"{", b"}").request, LIMITS) == b"{}"
    assert await read_whole(Sender(Content_Encoding=" Identity ").feed(b"x").request, LIMITS) == b"x"
    assert await read_whole(Sender(Expect="100-continue").feed().request, LIMITS) == b""


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "zstd" * 100])
async def test_whole_body_must_not_be_encoded(encoding: str) -> None:
    with pytest.raises(Violation) as caught:
        await read_whole(Sender(Content_Encoding=encoding).feed(b"x").request, LIMITS)
    assert caught.value.reason is Reason.BODY_MALFORMED
    assert len(caught.value.details) <= 40


async def test_continue_is_sent_when_the_body_is_wanted() -> None:
    sender = Sender(Expect="100-Continue")
    stream = BodyStream(sender.request, LIMITS)
    assert sender.written == []
    reading = asyncio.ensure_future(collect(stream))
    await asyncio.wait((reading,), timeout=0)
    sender.feed(b"x")
    assert await reading == b"x"
    assert sender.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]


async def test_continue_is_not_sent_for_a_body_that_is_there() -> None:
    sender = Sender(Expect="100-continue").feed()
    await expect_continue(sender.request)
    await expect_continue(Sender().request)
    assert sender.written == []


async def test_other_expectations_are_refused() -> None:
    with pytest.raises(Violation) as caught:
        await collect(BodyStream(Sender(Expect="tea").request, LIMITS))
    assert caught.value.reason is Reason.HEADER_MALFORMED
