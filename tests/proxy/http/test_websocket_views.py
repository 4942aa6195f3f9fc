"""A large message goes on uncopied, out of the buffer that all WebSockets read into: what is kept of it is never what another one read."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from proxy.http.websocket import Close, Hearer, WebSocket
from proxy.http.websocket_frames import BINARY, Payload, frame_of
from proxy.websocket.send_queue import SendQueue
from tests.proxy.http.sockets import MAX_BYTES, Notes, raw_peer
from tests.proxy.upstream.test_connection import LOOPS, NewLoop
from tests.wire.raw import GUARD_S

PICTURE_BYTES = 50_000
PassOn = Callable[[str | Payload, Payload | None], None]
Work = Callable[[], Coroutine[None, None, None]]


def pictures(seed: str, count: int) -> list[bytes]:
    """No two are alike."""
    return [hashlib.shake_128(f"{seed}{index}".encode()).digest(PICTURE_BYTES) for index in range(count)]


class Passing(Hearer):
    """Sends on what comes, as it came. kinds: of what came."""

    def __init__(self, pass_on: PassOn, notes: Notes) -> None:
        self._pass_on = pass_on
        self._notes = notes
        self.kinds: set[type] = set()
        self.came = 0
        self.changed = asyncio.Event()

    def received(self, data: str | Payload, frame: Payload | None) -> None:
        self.kinds.add(type(data))
        self._pass_on(data, frame)
        self.came += 1
        self.changed.set()

    def ended(self, close: Close, *, is_said: bool) -> None:
        self._notes.ended(close, is_said=is_said)

    async def until(self, count: int) -> None:
        while self.came < count:
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def passed_on(pass_on: PassOn) -> AsyncIterator[tuple[Passing, asyncio.StreamWriter]]:
    """What ComfyUI sends, by the writer."""
    async with raw_peer(is_client=True) as (socket, notes, _, writer):
        passing = Passing(pass_on, notes)
        socket.start(passing)
        yield passing, writer


def run(new_loop: NewLoop, work: Work) -> None:
    async def guarded() -> None:
        async with asyncio.timeout(GUARD_S):
            await work()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(guarded())


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("is_ready", [True, False], ids=["as it came", "as a frame of its own"])
def test_what_a_connection_keeps_is_not_overwritten(new_loop: NewLoop, is_ready: bool) -> None:
    """SECURITY: of a picture of which some has left, the rest waits in the connection, while a neighbour's are read."""

    async def work() -> None:
        own, others = pictures("own", 200), pictures("other", 200)
        async with AsyncExitStack() as stack:
            slow, _, reader, _ = await stack.enter_async_context(raw_peer())

            def send(data: str | Payload, frame: Payload | None) -> None:
                if is_ready and frame is not None:
                    slow.write_ready(frame)
                else:
                    slow.send(data)

            passing, writer = await stack.enter_async_context(passed_on(send))
            neighbour, other_writer = await stack.enter_async_context(passed_on(lambda data, frame: None))
            for index, (picture, other) in enumerate(zip(own, others, strict=True)):
                writer.write(frame_of(BINARY, picture))
                await passing.until(index + 1)
                other_writer.write(frame_of(BINARY, other))
                await neighbour.until(index + 1)
            assert slow.is_write_paused, "else nothing was kept"
            assert memoryview in passing.kinds, "else all was copied"
            for picture in own:
                frame = frame_of(BINARY, picture)
                assert await reader.readexactly(len(frame)) == frame

    run(new_loop, work)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_what_waits_for_a_client_is_not_overwritten(new_loop: NewLoop) -> None:
    """SECURITY: in its queue."""

    async def work() -> None:
        own, queue = pictures("own", 60), SendQueue()
        async with passed_on(queue.put) as (passing, writer):
            for index, picture in enumerate(own):
                writer.write(frame_of(BINARY, picture))
                await passing.until(index + 1)
            assert memoryview in passing.kinds
            assert queue.waiting_bytes > len(own) * PICTURE_BYTES
            assert [queue.take() for _ in own] == own

    run(new_loop, work)


async def test_a_message_that_comes_in_pieces_is_whole_among_others() -> None:
    """What has come of it waits while another socket reads."""
    large, piece_bytes = pictures("large", 12), 40_000
    frame = frame_of(BINARY, b"".join(large))
    async with (
        asyncio.timeout(GUARD_S),
        raw_peer(is_client=True) as (_, notes, _, writer),
        raw_peer(is_client=True) as (_, other, _, other_writer),
    ):
        for index, at in enumerate(range(0, len(frame), piece_bytes)):
            writer.write(frame[at : at + piece_bytes])
            await writer.drain()
            other_writer.write(frame_of(BINARY, large[0]))
            await other.until(index + 1)
        assert await notes.until(1) == [b"".join(large)]


async def test_each_thread_reads_into_a_buffer_of_its_own() -> None:
    """SECURITY: with loops of their own, they read at the same time."""

    def buffer() -> object:
        return WebSocket(is_client=True, max_bytes=MAX_BYTES).get_buffer(-1).obj

    assert buffer() is buffer()
    assert await asyncio.to_thread(buffer) is not buffer()
