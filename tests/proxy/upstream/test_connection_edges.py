"""Moments in which a connection to ComfyUI is between two states: closing, half written, half read."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator

import pytest
from multidict import CIMultiDict

from policy.call import Opaque, StreamedBody, UpstreamCall
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.upstream.connection import HIGH_WATER_BYTES
from tests.proxy.upstream.takers import Quick
from tests.proxy.upstream.test_connection import OK, Comfy, ask, call, door
from tests.proxy.upstreams import GUARD_S

LIMIT_S = 0.5


async def test_a_connection_that_is_being_closed_carries_no_further_call() -> None:
    """ComfyUI has closed it, and asyncio says so one step of the loop later: a call that changes something goes over a new one."""
    comfy = Comfy(OK + b"aa", OK + b"bb")
    async with door(comfy) as upstream:
        await ask(upstream, "GET", "one")
        (kept,) = upstream._idle
        assert kept._transport is not None
        kept._transport.close()  # what asyncio does when the end of the stream was read
        assert await ask(upstream, "POST", "two") == b"bb"
    assert comfy.calls == [b"GET /one", b"POST /two"]


async def test_a_connection_that_still_sends_is_not_kept() -> None:
    """ComfyUI answered without taking the body: the next call would wait behind what is left of it."""
    comfy = Comfy(OK + b"aa", OK + b"bb")
    upload = UpstreamCall("POST", (Opaque("one"),))
    taken = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        comfy.connections += 1
        comfy.writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(comfy.answers.pop(0))
        await taken.wait()

    comfy.serve = serve  # type: ignore[method-assign]
    async with door(comfy) as upstream:
        async with await upstream.open(upload, CIMultiDict(), bytes(16 * 1024**2), time_limit_s=GUARD_S) as stream:
            assert await stream.body(2) == b"aa"
        async with await upstream.open(call("GET", "two"), time_limit_s=GUARD_S) as stream:
            assert await stream.body(2) == b"bb"
        taken.set()
    assert comfy.connections == 2


async def test_nothing_is_written_to_a_connection_that_breaks(caplog: pytest.LogCaptureFixture) -> None:
    """Its client goes on sending: what asyncio would throw away, with a warning for each piece, is not given to it."""
    comfy = Comfy()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        linger = struct.pack("ii", 1, 0)  # a reset in place of an orderly end
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
        reset.set()

    async def body() -> AsyncIterator[bytes]:
        await reset.wait()
        for _ in range(20):
            yield b"x" * 1000

    comfy.serve, reset = serve, asyncio.Event()  # type: ignore[method-assign]
    upload = UpstreamCall("POST", (Opaque("one"),), body=StreamedBody())
    async with door(comfy) as upstream:
        with caplog.at_level(logging.WARNING, "asyncio"), pytest.raises(UpstreamUnavailable):
            await upstream.open(upload, CIMultiDict(), body(), time_limit_s=GUARD_S)
    assert not [line for line in caplog.messages if "socket.send()" in line]


def early_answer(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)


async def test_a_slow_reader_is_not_comfyuis_silence_when_its_body_ends_meanwhile() -> None:
    """ComfyUI answered early and at length; the client has sent its body and takes its time to read."""
    size = 4 * HIGH_WATER_BYTES
    comfy, ends = Comfy(early_answer(size)), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await ends.wait()

    upload = UpstreamCall("POST", (Opaque("one"),), body=StreamedBody())
    async with (
        door(comfy) as upstream,
        await upstream.open(upload, CIMultiDict(), body(), time_limit_s=LIMIT_S) as stream,
    ):
        while not stream.connection.is_read_paused:
            await asyncio.sleep(0)
        ends.set()
        await asyncio.sleep(2 * LIMIT_S)
        assert len(await stream.body(size)) == size


async def test_a_client_that_pauses_in_its_body_is_not_comfyuis_silence_when_the_answer_has_begun() -> None:
    """The answer filled the buffer and was read; what is still to come of it waits for the rest of the client's body."""
    size = 4 * HIGH_WATER_BYTES
    comfy, goes_on = Comfy(early_answer(size)[:-1]), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await goes_on.wait()

    upload = UpstreamCall("POST", (Opaque("one"),), body=StreamedBody())
    async with (
        door(comfy) as upstream,
        await upstream.open(upload, CIMultiDict(), body(), time_limit_s=LIMIT_S) as stream,
    ):
        while not stream.connection.is_read_paused:
            await asyncio.sleep(0)
        taker = Quick()
        pouring = asyncio.create_task(stream.pour(taker))
        await taker.until(size - 1)
        await asyncio.sleep(2 * LIMIT_S)
        goes_on.set()
        comfy.writers[0].write(b"z")
        await pouring
        assert taker.body.endswith(b"z")


async def test_an_answer_that_falls_silent_while_it_is_read_slowly_is_a_timeout_afterwards() -> None:
    comfy = Comfy(early_answer(4 * HIGH_WATER_BYTES)[:-1])
    async with door(comfy) as upstream, await upstream.open(call("GET", "one"), time_limit_s=LIMIT_S) as stream:
        while not stream.connection.is_read_paused:
            await asyncio.sleep(0)
        with pytest.raises(UpstreamTimeout):
            await stream.body(4 * HIGH_WATER_BYTES)


@pytest.mark.parametrize("endless", [b"X: y\r\n", b"X: " + b"y" * 1000])
async def test_what_follows_a_body_without_end_is_not_held(endless: bytes) -> None:
    """Trailer fields go nowhere, and a bound of the body does not see them."""
    comfy = Comfy(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\naa\r\n0\r\n"
        + endless * (2 * 1024**2 // len(endless))
    )
    async with door(comfy) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await ask(upstream, "GET", "one")
