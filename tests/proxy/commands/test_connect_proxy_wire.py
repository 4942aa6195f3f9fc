"""`comfygate connect`, byte for byte: where the key goes, and that what a client asked for arrives as it was."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from yarl import URL

from proxy.commands.connect import warnings_of
from proxy.commands.connect_access import LocalAccess
from tests.proxy.commands.test_connect_proxy import forwarding
from tests.wire.raw import GUARD_S, connect, parse_answer, request, send

KEY = "cg_7f3a9c21_of-a-test"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


@dataclass
class Spy:
    """A host on loopback that keeps every byte that it is sent. answer: what it says to each request."""

    answer: bytes = ANSWER
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        length = next(
            (
                int(line.partition(b":")[2])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ),
            0,
        )
        self.bodies.append(await reader.readexactly(length))
        writer.write(self.answer)
        await writer.drain()
        writer.close()

    def only(self) -> list[str]:
        assert len(self.heads) == 1, self.heads
        return self.heads[0].decode("latin-1").split("\r\n")


async def listening(spy: Spy) -> asyncio.Server:
    server = await asyncio.start_server(spy.serve, "127.0.0.1", 0)
    spy.port = server.sockets[0].getsockname()[1]
    return server


@pytest.fixture
async def gate() -> AsyncIterator[Spy]:
    spy = Spy()
    async with await listening(spy):
        yield spy


@pytest.fixture
async def other() -> AsyncIterator[Spy]:
    spy = Spy()
    async with await listening(spy):
        yield spy


UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def local(here: str, target: str, *lines: str, method: str = "GET", body: bytes = b"", end: bool = True) -> bytes:
    """A request to the forwarder under its own name."""
    head = [f"{method} {target} HTTP/1.1", f"Host: {URL(here).authority}"]
    head += ["Connection: close"] if end else []
    return "\r\n".join([*head, *lines, "", ""]).encode() + body


@pytest.mark.parametrize("lines", [(), UPGRADE], ids=["http", "websocket"])
@pytest.mark.parametrize(
    "target",
    ["@{other}/queue", "{other}/queue", "*", "queue", ".example.com/queue", "0/queue", "http://@{other}/queue", "https://{other}/queue",
     "http:///queue", "/queue#x"],
)  # fmt: skip
async def test_the_key_goes_to_the_gate_alone(gate: Spy, other: Spy, target: str, lines: tuple[str, ...]) -> None:
    async with forwarding(gate.url, KEY) as here:
        answer = await send(here, local(here, target.format(other=f"127.0.0.1:{other.port}"), *lines, end=not lines))
    assert answer.status == 400, answer.raw
    assert (gate.heads, other.heads) == ([], [])


@pytest.mark.parametrize("missing", [1, 2, 3])
async def test_half_an_upgrade_is_answered_and_asks_the_gate_nothing(gate: Spy, missing: int) -> None:
    lines = UPGRADE[:missing] + UPGRADE[missing + 1 :]
    async with asyncio.timeout(GUARD_S), forwarding(gate.url, KEY) as here:
        answer = await send(here, local(here, "/ws", *lines, end=False))
        posted = await send(here, local(here, "/ws", *UPGRADE, method="POST", end=False))
    assert (answer.status, posted.status) == (400, 400)
    assert gate.heads == []


async def test_connect_opens_no_tunnel(gate: Spy, other: Spy) -> None:
    async with forwarding(gate.url, KEY) as here:
        for target in (f"127.0.0.1:{other.port}", "/queue"):
            answer = await send(here, local(here, target, method="CONNECT"))
            assert answer.status == 400, answer.raw
    assert (gate.heads, other.heads) == ([], [])


@pytest.mark.parametrize("target", ["//{other}/queue", "/@{other}/queue", "/queue?http://{other}/", "/\\{other}/queue"])
async def test_a_path_stays_a_path(gate: Spy, other: Spy, target: str) -> None:
    path = target.format(other=f"127.0.0.1:{other.port}")
    async with forwarding(gate.url, KEY) as here:
        assert (await send(here, local(here, path))).status == 200
    assert gate.only()[0] == f"GET {path} HTTP/1.1"
    assert other.heads == []


async def test_the_absolute_form_is_read(gate: Spy) -> None:
    async with forwarding(gate.url, KEY) as here:
        own = URL(here).authority
        assert (await send(here, request(f"http://{own}/queue?a=%2f", None))).status == 200
        assert (await send(here, request("http://gate.example/queue", None, f"X-Own: {own}"))).status == 403
        assert (await send(here, request(f"http://{own}", None))).status == 200
    assert [head.split(b"\r\n")[0] for head in gate.heads] == [b"GET /queue?a=%2f HTTP/1.1", b"GET / HTTP/1.1"]


async def test_a_redirected_socket_does_not_take_the_key_along(gate: Spy, other: Spy) -> None:
    gate.answer = (
        f"HTTP/1.1 302 Found\r\nLocation: {other.url}/ws\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    )
    async with forwarding(gate.url, KEY) as here:
        answer = await send(here, local(here, "/ws", *UPGRADE, end=False))
    assert answer.status == 502
    assert len(gate.heads) == 1
    assert other.heads == []


async def test_nothing_is_added_to_what_a_client_asks_for(gate: Spy) -> None:
    async with forwarding(gate.url, KEY) as here:
        await send(here, local(here, "/queue?token=mine&a=1&Token=x", "X-Mine: 1", "Authorization: Bearer mine"))
    first, *fields = [line for line in gate.only() if line]
    assert first == "GET /queue?a=1 HTTP/1.1"
    names = sorted(line.partition(":")[0].lower() for line in fields)
    assert names == ["authorization", "host", "x-mine"]
    assert f"Authorization: Bearer {KEY}" in fields


async def test_what_a_client_asks_for_goes_on(gate: Spy) -> None:
    sent = ("Accept: image/webp", "Accept-Encoding: br", "User-Agent: mine/1", "Range: bytes=0-9")
    async with forwarding(gate.url, KEY) as here:
        await send(here, local(here, "/view", *sent))
    assert set(sent) <= set(gate.only())


async def test_a_compressed_body_stays_as_it_is(gate: Spy) -> None:
    body = gzip.compress(b'{"a": 1}' * 100, mtime=0)
    async with forwarding(gate.url, KEY) as here:
        answer = await send(
            here,
            local(
                here, "/settings", "Content-Encoding: gzip", f"Content-Length: {len(body)}", method="POST", body=body
            ),
        )
    assert answer.status == 200
    assert (gate.bodies, "Content-Encoding: gzip" in gate.only()) == ([body], True)


async def test_a_client_that_waits_for_100_gets_it_at_once(gate: Spy) -> None:
    async with forwarding(gate.url, KEY) as here, asyncio.timeout(GUARD_S):
        reader, writer = await connect(here)
        writer.write(local(here, "/upload", "Expect: 100-continue", "Content-Length: 3", method="POST"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert parse_answer(await reader.read()).status == 200
        writer.close()
        assert (
            await send(here, local(here, "/upload", "Expect: tea", "Content-Length: 0", method="POST"))
        ).status == 417
    assert gate.bodies == [b"abc"]
    assert not any(line.lower().startswith("expect") for line in gate.only())


async def test_a_named_host_may_call(gate: Spy) -> None:
    async with forwarding(gate.url, KEY, LocalAccess(["host.docker.internal"])) as here:
        for name, status in (
            ("host.docker.internal:8188", 200),
            ("Host.Docker.Internal", 200),
            ("x.docker.internal", 403),
        ):
            data = f"GET /queue HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
            assert (await send(here, data)).status == status, name


PAGE = "http://localhost:8000"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((f"Origin: {PAGE}", "Sec-Fetch-Site: cross-site"), 200),
        ((f"Referer: {PAGE}/chat?x", "Sec-Fetch-Site: same-site"), 200),
        (("Sec-Fetch-Site: same-site",), 403),
        (("Origin: http://localhost:8001",), 403),
        (("Referer: http://localhost:8001/",), 403),
        (("Origin: null", f"Referer: {PAGE}/"), 403),
        (("Referer: about:blank",), 403),
    ],
)
async def test_a_page_of_a_named_origin_may_call(gate: Spy, lines: tuple[str, ...], status: int) -> None:
    async with forwarding(gate.url, KEY, LocalAccess((), [PAGE])) as here:
        answer = await send(here, local(here, "/queue", *lines))
    assert answer.status == status
    readable = [PAGE] if lines[0].startswith("Origin: http://localhost:8000") else []
    assert answer.all("Access-Control-Allow-Origin") == readable
    assert status == 403 or "Origin" in answer.all("Vary")[0]


async def test_preflights_of_a_named_origin_are_answered_here(gate: Spy) -> None:
    asked = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type, x-mine")
    async with forwarding(gate.url, KEY, LocalAccess((), [PAGE])) as here:
        answer = await send(here, local(here, "/prompt", f"Origin: {PAGE}", *asked, method="OPTIONS"))
        foreign = await send(here, local(here, "/prompt", "Origin: http://localhost:1", *asked, method="OPTIONS"))
    assert (answer.status, answer.all("Access-Control-Allow-Origin")) == (204, [PAGE])
    assert answer.all("Access-Control-Allow-Headers") == ["content-type, x-mine"]
    assert "POST" in answer.all("Access-Control-Allow-Methods")[0]
    assert (foreign.status, foreign.all("Access-Control-Allow-Origin")) == (403, [])
    assert gate.heads == []


def test_what_is_opened_is_said() -> None:
    assert warnings_of("127.0.0.1", [], []) == []
    listens, unnamed = warnings_of("0.0.0.0", [], [])
    assert "everybody who reaches 0.0.0.0 acts with your key" in listens
    assert "--allow-host" in unnamed
    (named,) = warnings_of("127.0.0.1", ["host.docker.internal"], [])
    assert "host.docker.internal" in named
    (page,) = warnings_of("127.0.0.1", [], [PAGE])
    assert f"every script on {PAGE}" in page
