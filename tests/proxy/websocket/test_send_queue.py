"""The bounded queue to one WebSocket client: order, what is dropped, when the client is given up."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.websocket import Close
from proxy.http.websocket_frames import Payload
from proxy.websocket.send_queue import FRAME_OVERHEAD_BYTES, Message, SendQueue, cost_bytes, is_preview

BYE = Close(1001, "bye")


def preview(size: int = 1000, filler: bytes = b"p") -> bytes:
    return struct.pack(">II", 1, 1) + filler * (size - 8)


def drained(send_queue: SendQueue) -> list[Message | Close]:
    found: list[Message | Close] = []
    while not found or not isinstance(found[-1], Close):
        item = send_queue.take()
        assert item is not None
        found.append(item)
    return found


def box(frames: float, previews: float = 1000.0) -> SendQueue:
    """Bounds in frames of 1000 bytes."""
    cost = 1000 + FRAME_OVERHEAD_BYTES
    return SendQueue(max_bytes=int(frames * cost), max_preview_bytes=int(previews * cost), patience_s=0)


def test_frames_come_in_order_and_then_the_close() -> None:
    send_queue = SendQueue()
    frames: list[Message] = ["a", b"b", preview(), "c"]
    for frame in frames:
        send_queue.put(frame)
    send_queue.close(BYE)
    send_queue.put("too late")
    assert drained(send_queue) == [*frames, BYE]
    assert send_queue.waiting_bytes == 0
    assert send_queue.is_closed


class Line(list[Message | Close]):
    """A sink: takes what there is while it is ready."""

    def __init__(self, send_queue: SendQueue, *, is_ready: bool) -> None:
        self.send_queue, self.is_ready = send_queue, is_ready
        send_queue.sink = self

    def takes(self, message: str | Payload, ready: Payload | None) -> bool:
        if self.is_ready:
            self.append(message if isinstance(message, str) else bytes(message))
        return self.is_ready

    def flush(self) -> None:
        while self.is_ready and (item := self.send_queue.take()) is not None:
            self.append(item)
            if isinstance(item, Close):
                return


def test_what_can_leave_at_once_does_not_wait() -> None:
    send_queue = SendQueue()
    line = Line(send_queue, is_ready=True)
    send_queue.put("é")
    send_queue.put(b"bytes")
    assert line == ["é", b"bytes"]
    assert (send_queue.waiting_bytes, send_queue.sent_frames, send_queue.sent_bytes) == (0, 2, 6)
    send_queue.close(BYE)
    assert line[-1] == BYE


def test_nothing_overtakes_what_waits() -> None:
    send_queue = SendQueue()
    line = Line(send_queue, is_ready=False)
    for text in ("1", "2", "3"):
        send_queue.put(text)
    assert line == []
    line.is_ready = True
    send_queue.put("4")
    send_queue.put("5")
    assert line == list("12345")
    assert (send_queue.waiting_bytes, send_queue.sent_frames) == (0, 5)


def test_the_first_close_counts() -> None:
    send_queue = SendQueue()
    send_queue.put("x")
    send_queue.close(BYE)
    send_queue.close(Close(1012, "later"), at_once=True)
    assert send_queue.take() == BYE
    assert send_queue.ends_at_once


def test_previews_in_excess_are_dropped_oldest_first() -> None:
    send_queue = box(frames=100, previews=4)
    frames = [preview(1000, bytes([index])) for index in range(6)]
    send_queue.put("before")
    for frame in frames:
        send_queue.put(frame)
    send_queue.put("after")
    send_queue.close(BYE)
    # Down to half of what previews may take, so that dropping is not repeated for each one.
    assert drained(send_queue) == ["before", *frames[3:], "after", BYE]
    assert send_queue.dropped_previews == 3
    assert not send_queue.ends_at_once


def test_previews_make_room_for_all_else() -> None:
    send_queue = box(frames=4)
    for _ in range(3):
        send_queue.put(preview())
    texts = [str(index) * 1000 for index in range(3)]
    for text in texts:
        send_queue.put(text)
    send_queue.close(BYE)
    assert drained(send_queue) == [*texts, BYE]
    assert send_queue.dropped_previews == 3


def test_a_client_that_reads_nothing_is_given_up() -> None:
    send_queue = box(frames=4)
    send_queue.put(preview())
    for index in range(6):
        send_queue.put(str(index) * 1000)
    assert send_queue.ends_at_once
    assert send_queue.waiting_bytes == 0
    send_queue.put("ignored")
    told = send_queue.take()
    assert isinstance(told, Close)
    assert (told.code, told.reason) == (1008, "the client reads too slowly: 0.0 MiB wait, nothing was taken for 0 s")


@pytest.mark.parametrize("is_droppable", [True, False])
def test_a_client_that_reads_gets_every_frame_however_large(is_droppable: bool) -> None:
    send_queue = box(frames=4, previews=2)
    for size in (1000, 50_000, 1000, 50_000):
        frame = preview(size) if is_droppable else b"x" * size
        send_queue.put(frame)
        assert send_queue.take() == frame
    assert send_queue.dropped_previews == 0


def test_results_wait_while_the_client_takes_some_of_them() -> None:
    now_s = 0.0
    cost = 1000 + FRAME_OVERHEAD_BYTES
    send_queue = SendQueue(max_bytes=2 * cost, patience_s=10, most_bytes=20 * cost, clock=lambda: now_s)
    for index in range(10):
        send_queue.put(bytes([index]) * 1000)
    for index in range(5):
        now_s += 9
        assert send_queue.take() == bytes([index]) * 1000
        send_queue.put(b"more" * 250)
    now_s += 10
    send_queue.put("too much")
    assert send_queue.ends_at_once


def test_more_than_the_most_does_not_wait() -> None:
    cost = 1000 + FRAME_OVERHEAD_BYTES
    send_queue = SendQueue(max_bytes=2 * cost, most_bytes=4 * cost)
    for _ in range(5):
        send_queue.put("x" * 1000)
    assert not send_queue.ends_at_once
    send_queue.put("x")
    assert send_queue.ends_at_once


def test_many_small_frames_cost_something_too() -> None:
    send_queue = SendQueue(max_bytes=10 * FRAME_OVERHEAD_BYTES, patience_s=0)
    for _ in range(12):
        send_queue.put("")
    assert send_queue.ends_at_once


def test_dropped_previews_leave_nothing_behind() -> None:
    send_queue = box(frames=100, previews=4)
    for _ in range(1000):
        send_queue.put(preview())
    assert send_queue.dropped_previews >= 994
    assert len(send_queue._frames or ()) <= 6


@given(st.lists(st.tuples(st.integers(8, 3000), st.booleans(), st.booleans()), max_size=60))
def test_stays_in_its_bounds_and_loses_only_previews(steps: list[tuple[int, bool, bool]]) -> None:
    send_queue = box(frames=5, previews=2)
    lasting: list[Message] = []
    got: list[Message | Close] = []
    for size, is_droppable, is_read in steps:
        frame = preview(size) if is_droppable else b"x" * size
        send_queue.put(frame)
        if not send_queue.ends_at_once:
            lasting += [] if is_droppable else [frame]
        assert send_queue.waiting_bytes <= box(5)._max_bytes + cost_bytes(frame)
        if is_read and send_queue.waiting_bytes:
            got += [item for item in (send_queue.take(),) if item is not None]
    if not send_queue.ends_at_once:
        send_queue.close(BYE)
        got += drained(send_queue)
        assert [frame for frame in got[:-1] if not isinstance(frame, Close) and not is_preview(frame)] == lasting
        assert send_queue.waiting_bytes == 0


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (struct.pack(">II", 1, 1) + b"\xff\xd8jpeg", True),
        (struct.pack(">II", 1, 2) + b"\x89PNG", False),
        (struct.pack(">II", 4, 30) + b'{"image_type": "image/jpeg"}' + b"\xff\xd8", True),
        (struct.pack(">II", 4, 30) + b'{"image_type": "image/png"}' + b"image/jpeg" * 200, True),
        (struct.pack(">II", 4, 2000) + b" " * 1500 + b"image/jpeg", False),
        (struct.pack(">I", 3) + b"text image/jpeg", False),
        (struct.pack(">II", 1, 1) + b"\xff\xd8" + b"j" * 512 * 1024, False),
        (b"", False),
        (b"\x00\x00\x00\x01", False),
    ],
)
def test_only_pictures_of_a_moment_are_previews(data: bytes, expected: bool) -> None:
    assert is_preview(data) is expected
