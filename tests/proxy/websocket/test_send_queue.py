"""The bounded queue to one WebSocket client: order, what is dropped, when the client is given up."""

from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.websocket.send_queue import FRAME_OVERHEAD_BYTES, Close, Frame, Outbox, is_preview

BYE = Close(1001, "bye")


def preview(size: int = 1000) -> Frame:
    return Frame(b"p" * size, is_preview=True)


async def drained(outbox: Outbox) -> list[Frame | Close]:
    found: list[Frame | Close] = []
    while not found or not isinstance(found[-1], Close):
        found.append(await outbox.get())
    return found


def box(frames: float, previews: float = 1000.0) -> Outbox:
    """Bounds in frames of 1000 bytes."""
    cost = 1000 + FRAME_OVERHEAD_BYTES
    return Outbox(max_bytes=int(frames * cost), max_preview_bytes=int(previews * cost), patience_s=0)


async def test_frames_come_in_order_and_then_the_close() -> None:
    outbox = Outbox()
    frames = [Frame("a"), Frame(b"b"), preview(), Frame("c")]
    for frame in frames:
        outbox.put(frame)
    outbox.close(BYE)
    outbox.put(Frame("too late"))
    assert await drained(outbox) == [*frames, BYE]
    assert outbox.waiting_bytes == 0
    assert outbox.is_closed


async def test_get_waits_for_a_frame() -> None:
    outbox = Outbox()
    waiting = asyncio.ensure_future(outbox.get())
    await asyncio.wait((waiting,), timeout=0)
    assert not waiting.done()
    outbox.put(Frame("x"))
    assert await waiting == Frame("x")


async def test_get_waits_for_the_close() -> None:
    outbox = Outbox()
    waiting = asyncio.ensure_future(outbox.get())
    await asyncio.wait((waiting,), timeout=0)
    outbox.close(BYE)
    assert await waiting == BYE
    assert not outbox.gave_up.is_set()


async def test_the_first_close_counts() -> None:
    outbox = Outbox()
    outbox.put(Frame("x"))
    outbox.close(BYE)
    outbox.close(Close(1012, "later"), at_once=True)
    assert await outbox.get() == BYE
    assert outbox.gave_up.is_set()


async def test_previews_in_excess_are_dropped_oldest_first() -> None:
    outbox = box(frames=100, previews=4)
    frames = [Frame(bytes([index]) * 1000, is_preview=True) for index in range(6)]
    outbox.put(Frame("before"))
    for frame in frames:
        outbox.put(frame)
    outbox.put(Frame("after"))
    outbox.close(BYE)
    # Down to half of what previews may take, so that dropping is not repeated for each one.
    assert await drained(outbox) == [Frame("before"), *frames[3:], Frame("after"), BYE]
    assert outbox.dropped_previews == 3
    assert not outbox.gave_up.is_set()


async def test_previews_make_room_for_all_else() -> None:
    outbox = box(frames=4)
    for _ in range(3):
        outbox.put(preview())
    texts = [Frame(str(index) * 1000) for index in range(3)]
    for text in texts:
        outbox.put(text)
    outbox.close(BYE)
    assert await drained(outbox) == [*texts, BYE]
    assert outbox.dropped_previews == 3


async def test_a_client_that_reads_nothing_is_given_up() -> None:
    outbox = box(frames=4)
    outbox.put(preview())
    for index in range(6):
        outbox.put(Frame(str(index) * 1000))
    assert outbox.gave_up.is_set()
    assert outbox.waiting_bytes == 0
    outbox.put(Frame("ignored"))
    told = await outbox.get()
    assert isinstance(told, Close)
    assert (told.code, told.reason) == (1008, "the client reads too slowly: 0.0 MiB wait, nothing was taken for 0 s")


@pytest.mark.parametrize("is_droppable", [True, False])
async def test_a_client_that_reads_gets_every_frame_however_large(is_droppable: bool) -> None:
    outbox = box(frames=4, previews=2)
    for size in (1000, 50_000, 1000, 50_000):
        frame = Frame(b"x" * size, is_preview=is_droppable)
        outbox.put(frame)
        assert await outbox.get() == frame
    assert outbox.dropped_previews == 0


async def test_results_wait_while_the_client_takes_some_of_them() -> None:
    now_s = 0.0
    cost = 1000 + FRAME_OVERHEAD_BYTES
    outbox = Outbox(max_bytes=2 * cost, patience_s=10, most_bytes=20 * cost, clock=lambda: now_s)
    for index in range(10):
        outbox.put(Frame(bytes([index]) * 1000))
    for index in range(5):
        now_s += 9
        assert await outbox.get() == Frame(bytes([index]) * 1000)
        outbox.put(Frame(b"more" * 250))
    now_s += 10
    outbox.put(Frame("too much"))
    assert outbox.gave_up.is_set()


async def test_more_than_the_most_does_not_wait() -> None:
    cost = 1000 + FRAME_OVERHEAD_BYTES
    outbox = Outbox(max_bytes=2 * cost, most_bytes=4 * cost)
    for _ in range(5):
        outbox.put(Frame("x" * 1000))
    assert not outbox.gave_up.is_set()
    outbox.put(Frame("x"))
    assert outbox.gave_up.is_set()


async def test_many_small_frames_cost_something_too() -> None:
    outbox = Outbox(max_bytes=10 * FRAME_OVERHEAD_BYTES, patience_s=0)
    for _ in range(12):
        outbox.put(Frame(""))
    assert outbox.gave_up.is_set()


async def test_dropped_previews_leave_nothing_behind() -> None:
    outbox = box(frames=100, previews=4)
    for _ in range(1000):
        outbox.put(preview())
    assert outbox.dropped_previews >= 994
    assert len(outbox._frames) <= 6


@given(st.lists(st.tuples(st.integers(0, 3000), st.booleans(), st.booleans()), max_size=60))
async def test_stays_in_its_bounds_and_loses_only_previews(steps: list[tuple[int, bool, bool]]) -> None:
    outbox = box(frames=5, previews=2)
    lasting: list[Frame] = []
    got: list[Frame | Close] = []
    for size, is_droppable, is_read in steps:
        frame = Frame(b"x" * size, is_preview=is_droppable)
        outbox.put(frame)
        if not outbox.gave_up.is_set():
            lasting += [] if is_droppable else [frame]
        assert outbox.waiting_bytes <= box(5)._max_bytes + frame.cost_bytes
        if is_read and outbox.waiting_bytes:
            got.append(await outbox.get())
    if not outbox.gave_up.is_set():
        outbox.close(BYE)
        got += await drained(outbox)
        assert [frame for frame in got[:-1] if isinstance(frame, Frame) and not frame.is_preview] == lasting
        assert outbox.waiting_bytes == 0


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
