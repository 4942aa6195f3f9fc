"""Connections to ComfyUI that carry one call after another: no answer is taken for another call's, and what is kept may be closed any time."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from multidict import CIMultiDict

from policy.call import Opaque, StreamedBody, UpstreamCall
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.upstream import client as module
from proxy.upstream.addresses import HostAddresses
from proxy.upstream.client import Upstream
from proxy.upstream.connection import Connection
from tests.proxy.upstream.takers import Quick
from tests.proxy.upstreams import GUARD_S

NewLoop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]
Found: TypeAlias = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]
# The gate runs on uvloop where there is one.
LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio")]
if importlib.util.find_spec("uvloop") is not None:
    LOOPS.append(pytest.param(importlib.import_module("uvloop").new_event_loop, id="uvloop"))
NAME = "comfyui.test"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


def call(method: str, name: str) -> UpstreamCall:
    return UpstreamCall(method, (Opaque(name),))


class Comfy:
    """Answers each call with what stands in its turn in `answers`; b"" closes. connections: how many came."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.calls: list[bytes] = []
        self.heads: list[bytes] = []
        self.url = ""
        self.writers: list[asyncio.StreamWriter] = []
        self.closed = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.calls.append(head.split(b" HTTP")[0])
                self.heads.append(head)
                answer = self.answers.pop(0)
                if not answer:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
        writer.close()


@asynccontextmanager
async def door(comfy: Comfy) -> AsyncIterator[Upstream]:
    server = await asyncio.start_server(comfy.serve, "127.0.0.1", 0)
    comfy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    upstream = Upstream(comfy.url, GUARD_S)
    try:
        async with asyncio.timeout(GUARD_S):
            yield upstream
    finally:
        await upstream.stop()
        server.close()
        for task in comfy.tasks:
            task.cancel()
        await asyncio.gather(*comfy.tasks, return_exceptions=True)
        for writer in comfy.writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def ask(upstream: Upstream, method: str, name: str) -> bytes:
    return (await upstream.ask(call(method, name), time_limit_s=GUARD_S)).body


async def test_a_connection_is_used_again() -> None:
    comfy = Comfy(OK + b"aa", OK + b"bb", OK + b"cc")
    async with door(comfy) as upstream:
        answers = [await ask(upstream, method, method) for method in ("GET", "POST", "GET")]
    assert answers == [b"aa", b"bb", b"cc"]
    assert comfy.connections == 1


@pytest.mark.parametrize(("more", "connections"), [(OK + b"no", 3), (b"x", 3), (b"\r\n\r\n", 2)])
async def test_what_nobody_asked_for_is_taken_for_no_answer(more: bytes, connections: int) -> None:
    """In one packet with the answer, and later, while the connection waits for its next call."""
    comfy = Comfy(OK + b"aa" + more, OK + b"bb", OK + b"cc")
    async with door(comfy) as upstream:
        assert await ask(upstream, "GET", "one") == b"aa"
        assert await ask(upstream, "GET", "two") == b"bb"
        comfy.closed.clear()
        comfy.writers[-1].write(more)
        await comfy.writers[-1].drain()
        await comfy.closed.wait()
        assert await ask(upstream, "GET", "three") == b"cc"
    assert comfy.connections == connections


async def test_a_head_answer_has_no_body_whatever_its_length_says() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
    comfy = Comfy(head, OK + b"aa")
    async with door(comfy) as upstream:
        async with await upstream.open(call("HEAD", "one"), time_limit_s=GUARD_S) as stream:
            assert (stream.headers["Content-Length"], stream.is_small) == ("7", False)
            taker = Quick()
            await stream.pour(taker)
            assert taker.pieces == []
        assert await ask(upstream, "GET", "two") == b"aa"
    assert comfy.connections == 1


async def test_early_hints_are_passed_over() -> None:
    comfy = Comfy(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + b"aa")
    async with door(comfy) as upstream, await upstream.open(call("GET", "one"), time_limit_s=GUARD_S) as stream:
        assert (stream.status, list(stream.headers), await stream.body(2)) == (200, ["Content-Length"], b"aa")


async def test_a_read_is_made_again_when_a_kept_connection_was_closed() -> None:
    comfy = Comfy(OK + b"aa", b"", OK + b"cc")
    async with door(comfy) as upstream:
        await ask(upstream, "GET", "one")
        assert await ask(upstream, "GET", "two") == b"cc"
    assert comfy.calls == [b"GET /one", b"GET /two", b"GET /two"]


async def test_a_call_that_changes_something_is_made_once() -> None:
    comfy = Comfy(OK + b"aa", b"", OK + b"cc")
    async with door(comfy) as upstream:
        await ask(upstream, "GET", "one")
        with pytest.raises(UpstreamUnavailable):
            await ask(upstream, "POST", "two")
    assert comfy.calls == [b"GET /one", b"POST /two"]


async def test_a_new_connection_that_is_closed_unanswered_is_not_tried_again() -> None:
    comfy = Comfy(b"", OK + b"bb")
    async with door(comfy) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await ask(upstream, "GET", "one")
    assert comfy.calls == [b"GET /one"]


async def test_an_answer_before_the_end_of_the_body_is_read_and_its_connection_is_not_kept() -> None:
    comfy, ended = Comfy(OK + b"aa", OK + b"bb"), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            ended.set()

    upload = UpstreamCall("POST", (Opaque("one"),), body=StreamedBody())
    async with door(comfy) as upstream:
        async with await upstream.open(upload, CIMultiDict(), body(), time_limit_s=GUARD_S) as stream:
            assert await stream.body(2) == b"aa"
        await ended.wait()
        assert await ask(upstream, "GET", "two") == b"bb"
    assert comfy.connections == 2


async def test_an_answer_that_nobody_reads_to_its_end_closes_its_connection() -> None:
    comfy = Comfy(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\naa", OK + b"bb")
    async with door(comfy) as upstream:
        async with await upstream.open(call("GET", "one"), time_limit_s=GUARD_S):
            pass
        await comfy.closed.wait()
        assert await ask(upstream, "GET", "two") == b"bb"


async def test_silence_within_an_answer_ends_it() -> None:
    comfy = Comfy(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\naa")
    async with door(comfy) as upstream, await upstream.open(call("GET", "one"), time_limit_s=1.0) as stream:
        taker = Quick()
        with pytest.raises(UpstreamTimeout):
            await stream.pour(taker)
        assert taker.body == b"aa"


async def test_a_head_without_end_is_not_held() -> None:
    comfy = Comfy(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000)
    async with door(comfy) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await ask(upstream, "GET", "one")


async def test_a_field_is_one_line() -> None:
    comfy = Comfy()
    async with door(comfy) as upstream:
        for value in ("a\r\nB: c", "a\nb", "a\rb"):
            with pytest.raises(ValueError, match="end of a line"):
                async with await upstream.open(
                    call("GET", "one"), CIMultiDict({"Accept": value}), time_limit_s=GUARD_S
                ):
                    pass
    assert comfy.connections == 0


async def test_an_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_CONNECTION_S", 0.05)
    comfy = Comfy(OK + b"aa", OK + b"bb")
    async with door(comfy) as upstream:
        await ask(upstream, "GET", "one")
        await comfy.closed.wait()
        assert await ask(upstream, "GET", "two") == b"bb"
    assert comfy.connections == 2


@pytest.mark.parametrize(
    ("method", "body", "declared", "framing"),
    [
        ("POST", None, "0", [b"Content-Length: 0"]),
        ("POST", None, None, [b"Content-Length: 0"]),
        ("POST", b"abc", "9", [b"Content-Length: 3"]),
        ("GET", None, "0", []),
    ],
)
async def test_a_call_says_its_length_once(
    method: str, body: bytes | None, declared: str | None, framing: list[bytes]
) -> None:
    comfy = Comfy(OK + b"aa")
    fields = CIMultiDict({"Content-Length": declared} if declared is not None else {})
    async with (
        door(comfy) as upstream,
        await upstream.open(call(method, "one"), fields, body, time_limit_s=GUARD_S) as stream,
    ):
        assert stream.status == 200
    assert [line for line in comfy.heads[0].split(b"\r\n") if b"ength" in line or b"ncoding" in line] == framing


@pytest.mark.parametrize(("declared", "expected"), [("4", b"abcd"), (None, b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n")])
async def test_a_body_that_streams_has_its_clients_length_or_comes_in_chunks(
    declared: str | None, expected: bytes
) -> None:
    received = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        comfy.writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        received.set_result(await reader.readexactly(len(expected)))
        writer.write(OK + b"aa")

    async def body() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b""
        yield b"cd"

    comfy = Comfy()
    comfy.serve = serve  # type: ignore[method-assign]
    fields = CIMultiDict({"Content-Length": declared} if declared is not None else {})
    upload = UpstreamCall("POST", (Opaque("one"),), body=StreamedBody())
    async with door(comfy) as upstream, await upstream.open(upload, fields, body(), time_limit_s=GUARD_S) as stream:
        assert await stream.body(2) == b"aa"
    assert await received == expected


@pytest.mark.parametrize("body", [b"abc", b"abcde"])
async def test_a_body_of_another_length_than_it_says_breaks_the_call_off(body: bytes) -> None:
    """A byte more would be read as the next call, a byte less would make one of the next one's."""
    comfy = Comfy(b"")

    async def sent() -> AsyncIterator[bytes]:
        yield body

    upload = UpstreamCall("POST", (Opaque("one"),), body=StreamedBody())
    async with door(comfy) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await upstream.open(upload, CIMultiDict({"Content-Length": "4"}), sent(), time_limit_s=GUARD_S)
        assert not upstream._idle


@pytest.mark.parametrize("new_loop", LOOPS)
def test_an_address_that_does_not_answer_delays_the_next_one_by_little(new_loop: NewLoop) -> None:
    """A name may stand for several addresses, and what asks the first one for a connection be lost on its way."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_ask_a_name_of_which_one_address_does_not_answer())


async def _ask_a_name_of_which_one_address_does_not_answer() -> None:
    with socket.socket() as full, socket.socket() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting.connect(full.getsockname())  # its queue is full: who asks for a connection now is not answered
        comfy, asked = Comfy(OK + b"aa", b"", OK + b"cc"), list[str]()
        async with door(comfy) as upstream:
            places = [("127.0.0.1", port) for port in (full.getsockname()[1], upstream._addresses.port)]
            loop = asyncio.get_running_loop()
            look_up = loop.getaddrinfo

            async def resolve(host: str, port: int, **more: int) -> Sequence[Found]:
                if host != NAME:
                    return await look_up(host, port, **more)  # uvloop looks up the address too that it connects to
                asked.append(host)
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loop, "getaddrinfo", resolve)
                upstream._addresses = HostAddresses(NAME, upstream._addresses.port)
                assert await ask(upstream, "GET", "one") == b"aa"
                assert await ask(upstream, "GET", "two") == b"cc"
    assert (asked, comfy.connections) == ([NAME], 2)


async def test_a_connection_that_ended_before_its_first_call_is_not_waited_for() -> None:
    """It was told of its end when nobody waited for anything, and is told once."""
    connection = Connection()
    connection.connection_lost(None)
    async with asyncio.timeout(GUARD_S):
        connection.begin("GET", b"GET /queue HTTP/1.1\r\n\r\n", None, time_limit_s=3600.0)
        with pytest.raises(UpstreamUnavailable):
            await connection.head()
    assert not connection.finish()
