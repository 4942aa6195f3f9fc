"""A WebSocket on a connection: messages, pings, closes from both sides, peers that break off or do not read."""

from __future__ import annotations

import asyncio
import socket as sockets_of_the_system
import tracemalloc

import pytest

from proxy.http import websocket
from proxy.http.websocket import BUFFER_BYTES, MAX_LATE_FRAMES, Close, WebSocket
from proxy.http.websocket_frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameReader,
    Payload,
    close_payload,
    frame_of,
    head_of,
)
from tests.proxy.http.sockets import MAX_BYTES, Notes, raw_peer
from tests.wire.raw import GUARD_S

MASK = b"\x01\x02\x03\x04"


@pytest.fixture(autouse=True)
async def guard() -> object:
    async with asyncio.timeout(GUARD_S):
        yield


def of_client(opcode: int, payload: bytes = b"") -> bytes:
    return frame_of(opcode, payload, MASK)


async def test_messages_come_whole_and_in_order() -> None:
    async with raw_peer() as (_, notes, _, writer):
        writer.write(of_client(TEXT, "ünï".encode()) + of_client(BINARY, b"\x00\xff") + of_client(TEXT))
        assert await notes.until(3) == ["ünï", b"\x00\xff", ""]
        data = of_client(BINARY, b"x" * 300_000)
        for at in range(0, len(data), 50_000):
            writer.write(data[at : at + 50_000])
            await writer.drain()
        assert (await notes.until(4))[3] == b"x" * 300_000


@pytest.mark.parametrize("size", [0, 125, 126, 16 * 1024, 16 * 1024 + 1, 70_000])
async def test_what_is_sent_is_a_frame(size: int) -> None:
    async with raw_peer() as (socket, _, reader, _):
        socket.send(b"x" * size)
        socket.send("é")
        assert await reader.readexactly(len(head_of(BINARY, size)) + size) == frame_of(BINARY, b"x" * size)
        assert await reader.readexactly(4) == b"\x81\x02\xc3\xa9"


async def test_a_client_masks_each_frame_anew() -> None:
    async with raw_peer(is_client=True) as (socket, notes, reader, writer):
        socket.send("hello")
        socket.send("hello")
        first, second = await reader.readexactly(11), await reader.readexactly(11)
        assert first[:2] == second[:2] == b"\x81\x85"
        assert first[2:6] != second[2:6]
        assert bytes(byte ^ first[2 + at % 4] for at, byte in enumerate(first[6:])) == b"hello"
        writer.write(frame_of(TEXT, b"hi"))
        assert await notes.until(1) == ["hi"]


async def test_pings_are_answered_and_counted() -> None:
    async with raw_peer() as (_, notes, reader, writer):
        writer.write(of_client(PING, b"here?") + of_client(PONG, b"x") + b"\x01\x80" + MASK + of_client(0, b"end"))
        assert await reader.readexactly(7) == b"\x8a\x05here?"
        assert await notes.until(1) == ["end"]
        assert notes.controls == [5, 1, 0]


async def test_pings_of_a_peer_that_does_not_read_pile_up_nothing() -> None:
    async with raw_peer() as (socket, notes, _, writer):
        assert socket.transport is not None
        socket.send(b"x" * (8 * MAX_BYTES))
        assert socket.is_write_paused
        before = socket.transport.get_write_buffer_size()
        for _ in range(100):
            writer.write(of_client(PING, b"y" * 125))
        writer.write(of_client(TEXT))
        await notes.until(1)
        assert socket.transport.get_write_buffer_size() <= before


@pytest.mark.parametrize(
    ("frame", "answer", "end"),
    [
        (close_payload(1000, "bye"), b"\x88\x05\x03\xe8bye", (Close(1000, "bye"), True)),
        (close_payload(4321, ""), b"\x88\x02\x10\xe1", (Close(4321, ""), True)),
        (b"", b"\x88\x00", (Close(1000, ""), True)),
    ],
)
async def test_a_peer_that_closes_is_answered_in_kind(frame: bytes, answer: bytes, end: tuple[Close, bool]) -> None:
    async with raw_peer() as (socket, notes, reader, writer):
        writer.write(of_client(CLOSE, frame) + of_client(TEXT, b"too late"))
        assert await reader.read() == answer
        await notes.ends.wait()
        assert (notes.end, notes.messages) == (end, [])
        assert socket.transport is None
        socket.send("nothing")
        socket.close(Close(1000, ""))
        socket.ping()
        socket.abort()


async def test_a_close_comes_after_what_was_sent_and_nothing_after_it() -> None:
    async with raw_peer() as (socket, notes, reader, writer):
        socket.send("last")
        socket.close(Close(1012, "gone"))
        socket.close(Close(1000, "twice"))
        socket.send("after")
        assert await reader.readexactly(6 + 8) == b"\x81\x04last\x88\x06\x03\xf4gone"
        writer.write(of_client(TEXT, b"on its way") + of_client(CLOSE, close_payload(1012, "")))
        assert await reader.read() == b""
        await notes.ends.wait()
        assert (notes.end, notes.messages) == ((Close(1012, ""), True), [])


async def test_who_does_not_answer_a_close_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_LIMIT_S", 0.01)
    async with raw_peer() as (socket, notes, _, _):
        socket.close(Close(1000, ""))
        await notes.ends.wait()
        assert notes.end == (Close(1006, ""), False)


async def test_a_peer_that_vanishes_has_not_said_so() -> None:
    async with raw_peer() as (_, notes, _, writer):
        writer.transport.abort()
        await notes.ends.wait()
        assert notes.end == (Close(1006, ""), False)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xc1\x80" + MASK, 1002),
        (b"\x81\x01x", 1002),
        (of_client(TEXT, b"\xff"), 1007),
        (b"\x01\x81" + MASK + b"\xfe" + of_client(0), 1007),
        (b"\x82\xff" + (MAX_BYTES + 1).to_bytes(8, "big") + MASK, 1009),
        (of_client(CLOSE, b"\x03\xed"), 1002),
        (of_client(CLOSE, b"\x03"), 1002),
        (of_client(CLOSE, b"\x03\xe8\xff"), 1007),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_told_and_heard_no_more(frame: bytes, code: int) -> None:
    async with raw_peer() as (_, notes, reader, writer):
        writer.write(of_client(TEXT, b"before") + frame + of_client(TEXT, b"after"))
        answer = await reader.read()
        assert answer[0] == 0x88
        assert int.from_bytes(answer[2:4], "big") == code
        for _ in range(10):
            writer.write(of_client(TEXT, b"still there"))
        await writer.drain()
        assert len(answer[4:].decode()) > 10, "a sentence"
        writer.close()
        await notes.ends.wait()
        assert notes.messages == ["before"]
        assert notes.end == (Close(code, answer[4:].decode()), False)


async def test_a_peer_that_breaks_the_protocol_and_stays_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_LIMIT_S", 0.01)
    async with raw_peer() as (_, notes, _, writer):
        writer.write(b"\x81\x00")
        await notes.ends.wait()


async def test_what_waits_is_told_and_when_it_has_left() -> None:
    async with raw_peer() as (socket, notes, reader, _):
        size = 8 * 1024**2
        socket.send(b"x" * size)
        assert (socket.is_write_paused, notes.times_writable) == (True, 0)
        await reader.readexactly(size + 10)
        while not notes.times_writable:
            notes.something.clear()
            await notes.something.wait()
        assert (socket.is_write_paused, notes.times_writable) == (False, 1)
        assert socket.transport is not None
        assert socket.transport.get_write_buffer_size() <= BUFFER_BYTES


async def test_nothing_is_read_while_it_is_paused() -> None:
    async with raw_peer() as (socket, notes, _, writer):
        socket.pause_reading()
        writer.write(of_client(TEXT, b"waits"))
        await writer.drain()
        socket.ping()
        await asyncio.sleep(0.01)  # waiting itself is what is tested
        assert notes.messages == []
        socket.resume_reading()
        assert await notes.until(1) == ["waits"]


async def test_what_comes_before_the_start_waits_for_it() -> None:
    loop = asyncio.get_running_loop()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame_of(TEXT, b"one") + frame_of(CLOSE, close_payload(1001, "two")))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        socket, notes = WebSocket(is_client=True, max_bytes=100), Notes()
        _, _ = await loop.create_connection(lambda: socket, *server.sockets[0].getsockname())
        while not socket._unread:
            await asyncio.sleep(0)
        socket.start(notes)
        await notes.ends.wait()
        assert (notes.messages, notes.end) == (["one"], (Close(1001, "two"), True))


async def test_one_that_ended_before_its_start_says_so() -> None:
    socket, notes = WebSocket(is_client=True, max_bytes=100), Notes()
    socket.connection_lost(None)
    socket.start(notes)
    assert notes.end is None, "not before start() has returned"
    await notes.ends.wait()
    assert notes.end == (Close(1006, ""), False)


async def test_small_frames_leave_at_once() -> None:
    async with raw_peer() as (socket, _, _, _):
        assert socket.transport is not None
        wire = socket.transport.get_extra_info("socket")
        assert wire.getsockopt(sockets_of_the_system.IPPROTO_TCP, sockets_of_the_system.TCP_NODELAY)


async def test_an_idle_one_has_no_task_and_no_buffer() -> None:
    before = asyncio.all_tasks()
    async with raw_peer() as (socket, notes, _, writer):
        writer.write(of_client(TEXT, b"x"))
        await notes.until(1)
        assert socket._reader.is_idle
        assert not any("websocket" in repr(task.get_coro()) for task in asyncio.all_tasks() - before)
        assert socket._limit is None


@pytest.mark.parametrize("frame", [of_client(PING), of_client(TEXT, b"{}")])
async def test_what_comes_behind_a_close_is_soon_read_no_more(frame: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_peer() as (socket, notes, reader, writer):
        read = 0
        read_head = FrameReader._read_head

        def count(of: FrameReader, data: Payload, at: int, first: int, size: int) -> tuple[int, int]:
            nonlocal read
            read += 1
            return read_head(of, data, at, first, size)

        monkeypatch.setattr(FrameReader, "_read_head", count)
        socket.close(Close(1008, "enough"))
        writer.write(frame * 2000)
        assert (await reader.read())[4:] == b"enough"
        assert read <= MAX_LATE_FRAMES + 1
        assert not notes.messages
        assert not notes.controls


async def test_what_comes_behind_its_own_close_does_not_change_what_a_peer_said() -> None:
    async with raw_peer() as (_, notes, _, writer):
        writer.write(of_client(CLOSE, close_payload(1001, "bye")) + b"\xf0" * 8)
        await notes.ends.wait()
        assert notes.end == (Close(1001, "bye"), True)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_half_a_message_ends_with_its_connection(opcode: int) -> None:
    kept = []
    tracemalloc.start()
    try:
        for _ in range(4):
            async with raw_peer() as (socket, notes, _, writer):
                kept.append(socket)
                writer.write(of_client(opcode, b"x" * MAX_BYTES)[:-1])
                writer.write_eof()
                await notes.ends.wait()
                assert socket.transport is None
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < MAX_BYTES
