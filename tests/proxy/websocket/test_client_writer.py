"""Frames leave at once where nothing waits, in order, and at the client's pace else; an idle socket has no task of its own."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from proxy.websocket.accepted import AcceptedSocket
from proxy.websocket.client_writer import BUFFER_BYTES, ClientWriter, frame_head
from proxy.websocket.send_queue import Close, Frame, SendQueue


class Wire:
    """A transport: what was written, and how much of it the client has not taken."""

    def __init__(self) -> None:
        self.written = b""
        self.waiting = 0
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class Socket:
    """As aiohttp's: sends when it may go on."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.may_send = asyncio.Event()

    async def send_str(self, text: str) -> None:
        await self.may_send.wait()
        self.sent.append(text)

    async def send_bytes(self, data: bytes) -> None:
        await self.may_send.wait()
        self.sent.append(data)

    async def close(self, *, code: int, message: bytes) -> None:
        self.sent.append((code, message))


def writing() -> tuple[ClientWriter, Wire, Socket, SendQueue]:
    wire, socket, queue = Wire(), Socket(), SendQueue()
    writer = ClientWriter(cast(AcceptedSocket, socket), cast(asyncio.WriteTransport, wire), queue)
    return writer, wire, socket, queue


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f" + (65536).to_bytes(8, "big")),
    ],
)
def test_the_head_of_a_frame(size: int, head: bytes) -> None:
    """RFC 6455, 5.2."""
    assert frame_head(0x81, size) == head


async def test_what_comes_leaves_at_once_and_without_a_task() -> None:
    writer, wire, _, queue = writing()
    queue.put(Frame("before"))
    writer.start()
    before = asyncio.all_tasks()
    queue.put(Frame("é"))
    queue.put(Frame(b"x" * 20_000, is_preview=True))
    assert wire.written == b"\x81\x06before" + b"\x81\x02\xc3\xa9" + b"\x82\x7e\x4e\x20" + b"x" * 20_000
    assert asyncio.all_tasks() == before
    assert (queue.sent_frames, queue.waiting_bytes) == (3, 0)
    await writer.stop()


async def test_behind_a_full_buffer_frames_wait_in_order() -> None:
    writer, wire, socket, queue = writing()
    writer.start()
    wire.waiting = BUFFER_BYTES + 1
    for text in ("1", "2", "3"):
        queue.put(Frame(text))
    await asyncio.sleep(0)
    wire.waiting = 0
    queue.put(Frame("4"))
    assert wire.written == b"", "nothing overtakes what waits"
    socket.may_send.set()
    await writer.finish()
    assert socket.sent == ["1", "2", "3", "4"]
    queue.put(Frame("5"))
    assert wire.written == b"\x81\x015"
    await writer.stop()


async def test_a_close_comes_after_what_waits() -> None:
    writer, wire, socket, queue = writing()
    writer.start()
    queue.put(Frame("last"))
    queue.close(Close(1012, "gone"))
    await writer.finish()
    assert (wire.written, socket.sent) == (b"\x81\x04last", [(1012, b"gone")])
    await writer.stop()


async def test_a_close_that_cannot_wait_breaks_off_a_client_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.websocket.client_writer.CLOSE_LIMIT_S", 0.01)
    writer, wire, socket, queue = writing()
    writer.start()
    wire.waiting = BUFFER_BYTES + 1
    queue.put(Frame("stuck"))
    await asyncio.sleep(0)
    queue.close(Close(1008, "too slow"), at_once=True)
    while not wire.is_aborted:
        await asyncio.sleep(0.001)
    await writer.stop()
    assert socket.sent == []


async def test_a_ping_goes_where_nothing_waits() -> None:
    writer, wire, _, _ = writing()
    wire.waiting = 1
    writer.ping()
    assert wire.written == b""
    wire.waiting = 0
    writer.ping()
    assert wire.written == b"\x89\x00"
