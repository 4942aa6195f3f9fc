"""Frames leave at once where nothing waits, in order, and at the client's pace else; an idle socket has no task of its own."""

from __future__ import annotations

import asyncio
import logging

import pytest

from proxy.http import websocket
from proxy.http.websocket import Close
from proxy.websocket.client_socket import ClientSocket
from proxy.websocket.send_queue import Message, SendQueue
from tests.proxy.upstreams import GUARD_S


class Wire(asyncio.Transport):
    """What was written; takes more while `is_full` is not set."""

    def __init__(self, client: ClientSocket) -> None:
        super().__init__()
        self._client = client
        self.written = b""
        self.is_aborted = False
        client.socket.connection_made(self)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The test says when it is full."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.is_aborted

    def is_reading(self) -> bool:
        return True

    def abort(self) -> None:
        self.is_aborted = True
        asyncio.get_running_loop().call_soon(self._client.socket.connection_lost, None)

    def fill(self) -> None:
        self._client.socket.pause_writing()

    def drain(self) -> None:
        self._client.socket.resume_writing()


def opened(*before: Message) -> tuple[ClientSocket, Wire, SendQueue]:
    queue = SendQueue()
    for frame in before:
        queue.put(frame)
    client = ClientSocket(queue)
    wire = Wire(client)
    client.open()
    return client, wire, queue


async def test_what_comes_leaves_at_once_and_without_a_task() -> None:
    before = asyncio.all_tasks()
    _, wire, queue = opened("before")
    queue.put("é")
    queue.put(b"x" * 20_000)
    assert wire.written == b"\x81\x06before" + b"\x81\x02\xc3\xa9" + b"\x82\x7e\x4e\x20" + b"x" * 20_000
    assert asyncio.all_tasks() == before
    assert (queue.sent_frames, queue.waiting_bytes) == (3, 0)


async def test_behind_a_full_connection_frames_wait_in_order() -> None:
    _, wire, queue = opened()
    wire.fill()
    for text in ("1", "2", "3"):
        queue.put(text)
    assert (wire.written, queue.sent_frames) == (b"", 0)
    wire.drain()
    queue.put("4")
    assert wire.written == b"\x81\x011\x81\x012\x81\x013\x81\x014"
    assert (queue.sent_frames, queue.waiting_bytes) == (4, 0)


async def test_a_close_comes_after_what_waits() -> None:
    _, wire, queue = opened()
    wire.fill()
    queue.put("last")
    queue.close(Close(1012, "gone"))
    assert wire.written == b""
    wire.drain()
    assert wire.written == b"\x81\x04last" + b"\x88\x06\x03\xf4gone"


async def test_a_close_that_cannot_wait_breaks_off_a_client_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_LIMIT_S", 0.01)
    client, wire, queue = opened()
    ended = asyncio.Event()
    client.at_end(ended.set)
    wire.fill()
    queue.put("stuck")
    queue.close(Close(1008, "too slow"), at_once=True)
    assert wire.written == b"\x88\x0a\x03\xf0too slow"
    async with asyncio.timeout(GUARD_S):
        await ended.wait()
    assert wire.is_aborted


async def test_one_that_is_closed_before_it_is_open_hears_that() -> None:
    queue = SendQueue()
    queue.close(Close(1001, "stops"), at_once=True)
    client = ClientSocket(queue)
    wire = Wire(client)
    client.open()
    assert wire.written == b"\x88\x07\x03\xe9stops"


async def test_its_end_is_told_to_all_also_where_one_of_them_fails(caplog: pytest.LogCaptureFixture) -> None:
    client, wire, queue = opened()
    told: list[str] = []

    def fail() -> None:
        raise ValueError("broken")

    client.at_end(fail)
    client.at_end(lambda: told.append("first"))
    client.at_end(lambda: told.append("second"))
    with caplog.at_level(logging.ERROR, "comfygate"):
        wire.abort()
        await asyncio.sleep(0)
    assert told == ["first", "second"]
    assert "ended badly" in caplog.text
    client.at_end(lambda: told.append("late"))
    assert told[-1] == "late"
    queue.put("nobody")
    assert wire.written == b""


async def test_bytes_that_are_a_frame_already_are_written_as_they_are() -> None:
    _, wire, queue = opened()
    queue.put("text", b"\x81\x7e\x00\x04text")
    assert wire.written == b"\x81\x7e\x00\x04text"
    wire.fill()
    queue.put("next", b"\x81\x7e\x00\x04next")
    wire.drain()
    assert wire.written == b"\x81\x7e\x00\x04text" + b"\x81\x04next"
    assert (queue.sent_frames, queue.sent_bytes) == (2, 8)
