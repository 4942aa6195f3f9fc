"""A large body goes from ComfyUI's connection to whoever takes it, piece by piece and uncopied; all connections read into one buffer."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.upstream.answer import AnswerReader
from proxy.upstream.client import UpstreamStream
from proxy.upstream.connection import MORE_BYTES, READ_BYTES
from tests.proxy.upstream.takers import Quick, Slow
from tests.proxy.upstream.test_connection import Comfy, ask, call, door
from tests.proxy.upstreams import GUARD_S

SIZE = 4 * MORE_BYTES
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE


def body_of(seed: str) -> bytes:
    """No two pieces of it are alike, nor of two bodies."""
    return hashlib.shake_128(seed.encode()).digest(SIZE)


async def pour(stream: UpstreamStream, taker: Slow | Quick) -> None:
    async with stream:
        await stream.pour(taker)


async def test_pieces_go_on_uncopied_and_whole() -> None:
    body, taker = body_of("one"), Quick()
    comfy = Comfy(HEAD + body, HEAD + body)
    async with door(comfy) as upstream:
        await pour(await upstream.open(call("GET", "one"), time_limit_s=GUARD_S), taker)
        assert taker.body == body
        assert taker.views
        assert await ask(upstream, "GET", "two") == body
    assert comfy.connections == 1


def test_a_head_may_end_in_a_piece_that_is_as_large_as_any() -> None:
    reader = AnswerReader()
    reader.begin("GET")
    reader.feed(HEAD[:20])
    reader.feed((HEAD[20:] + bytes(SIZE))[:READ_BYTES])
    assert reader.waiting_bytes == READ_BYTES - len(HEAD) + 20


async def test_what_a_slow_taker_keeps_is_its_own() -> None:
    """SECURITY: what another connection reads meanwhile, a neighbour's perhaps, is never found in it."""
    bodies, turn = [body_of("one"), body_of("two")], asyncio.Event()
    comfy = Comfy(*(HEAD + body for body in bodies))
    async with door(comfy) as upstream:
        slow = Slow(turn)
        streams = [await upstream.open(call("GET", "one"), time_limit_s=GUARD_S) for _ in bodies]
        waiting = asyncio.create_task(pour(streams[0], slow))
        await slow.began.wait()
        quick = Quick()
        await pour(streams[1], quick)
        turn.set()
        await waiting
        assert slow.taken == bodies[0]
        assert quick.body == bodies[1]


async def test_no_more_is_read_than_a_slow_taker_keeps() -> None:
    comfy, slow = Comfy(HEAD + body_of("one")), Slow(asyncio.Event())
    async with door(comfy) as upstream:
        stream = await upstream.open(call("GET", "one"), time_limit_s=GUARD_S)
        waiting = asyncio.create_task(pour(stream, slow))
        await slow.began.wait()
        assert stream.connection.is_read_paused
        waiting.cancel()
        await comfy.closed.wait()


async def test_who_takes_all_is_given_more_at_once_and_who_is_slow_keeps_little() -> None:
    comfy = Comfy(*(HEAD + body_of("one") for _ in range(2)))
    async with door(comfy) as upstream:
        quick = Quick()
        await pour(await upstream.open(call("GET", "one"), time_limit_s=GUARD_S), quick)
        sizes = [len(piece) for piece in quick.pieces]
        assert max(sizes[:1]) <= READ_BYTES < max(sizes) <= MORE_BYTES
        slow = Slow()
        keep, kept = slow.take, list[int]()

        def take(piece: bytes | memoryview) -> bool:
            kept.append(len(piece))
            return keep(piece)

        slow.take = take  # type: ignore[method-assign]
        await pour(await upstream.open(call("GET", "one"), time_limit_s=GUARD_S), slow)
        assert slow.taken == body_of("one")
        assert max(kept) <= READ_BYTES, "on a connection on which the last one was quick"
    assert comfy.connections == 1


async def test_a_takers_error_ends_the_call() -> None:
    comfy = Comfy(HEAD + body_of("one"))
    async with door(comfy) as upstream:
        stream = await upstream.open(call("GET", "one"), time_limit_s=GUARD_S)
        with pytest.raises(LookupError):
            await pour(stream, Quick(LookupError("a bug")))
        await comfy.closed.wait()


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_body_that_does_not_end_raises(is_silent: bool) -> None:
    answers = (HEAD + b"some",) if is_silent else (HEAD + b"some", b"")
    comfy, taker = Comfy(*answers), Quick()
    async with door(comfy) as upstream:
        stream = await upstream.open(call("GET", "one"), time_limit_s=1.0 if is_silent else GUARD_S)
        if not is_silent:
            comfy.writers[0].close()
        with pytest.raises(UpstreamTimeout if is_silent else UpstreamUnavailable):
            await pour(stream, taker)
    assert taker.body == b"some"


async def test_a_slow_taker_is_not_comfyuis_silence() -> None:
    turn = asyncio.Event()
    comfy, slow = Comfy(HEAD + body_of("one")), Slow(turn)
    async with door(comfy) as upstream:
        stream = await upstream.open(call("GET", "one"), time_limit_s=0.2)
        waiting = asyncio.create_task(pour(stream, slow))
        await slow.began.wait()
        await asyncio.sleep(0.5)
        turn.set()
        await waiting
    assert slow.taken == body_of("one")
