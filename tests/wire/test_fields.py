"""Header fields across the gate: no credential and no forwarded address goes up, nothing hop-by-hop goes either way."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.harness import running_gate
from tests.proxy.upstreams import saying
from tests.wire.conftest import Wire
from tests.wire.raw import request, send

HOSTILE = [
    "X-Forwarded-For: 10.0.0.1",
    "X_Forwarded_For: 10.0.0.1",
    "x-forwarded_for: 10.0.0.1",
    "X-Forwarded-Host: evil",
    "X-Forwarded-Proto: https",
    "X-Real-IP: 10.0.0.1",
    "Forwarded: for=10.0.0.1",
    "Via: 1.1 evil",
    "Cf-Connecting-IP: 10.0.0.1",
    "Cf-Ray: 230b030023ae2822-SJC",
    "Cf-Access-Client-Id: x",
    "Cf-Access-Client-Secret: hidden-word",
    "Cf-Access-Authenticated-User-Email: a@b",
    "Cookie: other=hidden-word",
    "comfy-user: mallory",
    "Comfy_User: mallory",
    "Origin: https://evil.example",
    "Referer: https://evil.example/?token=hidden-word",
    "Sec-Fetch-Site: cross-site",
    "Sec-Fetch-Mode: cors",
    "Proxy-Authorization: Basic hidden-word",
    "Proxy-Connection: keep-alive",
    "Keep-Alive: timeout=5",
    "TE: trailers",
    "Trailer: X",
    "Upgrade: h2c",
    "Authentication: hidden-word",
    "X-Anything: else",
]
ALLOWED = {"host", "accept", "accept-encoding", "user-agent", "sec-fetch-dest", "range", "if-none-match"}


async def test_only_the_permitted_goes_up(wire: Wire) -> None:
    kept = [
        "Accept: image/png",
        "User-Agent: test/1",
        "Sec-Fetch-Dest: image",
        "Range: bytes=0-1",
        'If-None-Match: "a"',
    ]
    assert (await wire.ask("/features", *HOSTILE, *kept)).status == 200
    call = wire.only()
    assert {name.lower() for name in call.headers} <= ALLOWED
    assert call.headers.getall("Host") == [wire.comfy.url.removeprefix("http://")]
    for line in kept:
        name, _, value = line.partition(": ")
        assert call.headers.getall(name) == [value]


@pytest.mark.parametrize("place", ["bearer", "header", "basic", "query", "two at once"])
async def test_a_credential_stays_at_the_gate(wire: Wire, place: str) -> None:
    key = wire.key
    basic = "Authorization: Basic " + base64.b64encode(f"me:{key}".encode()).decode()
    sent = {
        "bearer": request("/view?filename=x&token_=1", key),
        "header": request("/view?filename=x&token_=1", None, f"X-API-Key: {key}"),
        "basic": request("/view?filename=x&token_=1", None, basic),
        "query": request(f"/view?filename=x&token={key}&token_=1", None),
        "two at once": request(f"/view?filename=x&%74oken={key}&token_=1", key),
    }
    answer = await wire.send(sent[place])
    assert answer.status == 404, answer.raw
    call = wire.only()
    assert call.raw_path == "/view?filename=x&token_=1"
    everything = f"{call.raw_path} {dict(call.headers)} {call.body!r}"
    assert key not in everything
    assert key.split("_", 2)[2] not in everything
    assert not {"authorization", "x-api-key", "cookie"} & {name.lower() for name in call.headers}
    assert key.encode() not in wire.gate.log.getvalue()
    assert key.encode() not in answer.raw


@pytest.mark.parametrize(
    "lines",
    [
        ["Connection: Range, X-Anything", "Range: bytes=0-1"],
        ["Connection: close", "Connection: range", "Range: bytes=0-1"],
        ["Connection: RANGE,,", "Range: bytes=0-1"],
    ],
)
async def test_a_field_that_connection_names_stays(wire: Wire, lines: list[str]) -> None:
    assert (await wire.ask("/features", *lines)).status == 200
    assert "Range" not in wire.only().headers


async def test_a_key_that_connection_names_is_still_a_key(wire: Wire) -> None:
    """Dropping what Connection names comes after authentication, and never makes a request anonymous or another one."""
    assert (await wire.ask("/features", "Connection: Authorization")).status == 200
    assert (await wire.send(request("/features", None, "Connection: X-API-Key", "X-API-Key: bad"))).status == 401


@pytest.mark.parametrize(
    "line", ["Authorization: Bearer x", "Authorization: Basic eDp5", "X-API-Key: x", "?token=x", "Cf-Access-Jwt-Assertion: a.b.c"]
)  # fmt: skip
async def test_a_second_credential_that_is_bad_spoils_the_first(wire: Wire, line: str) -> None:
    target, lines = (f"/features{line}", []) if line.startswith("?") else ("/features", [line])
    assert (await wire.ask(target, *lines)).status == 401
    assert wire.comfy.received == []


async def test_repeated_fields_go_up_once_or_not_at_all(wire: Wire) -> None:
    lines = ["Accept: a/b", "Accept: c/d", "Range: bytes=0-1", "Range: bytes=5-", "If-Range: x", "if-range: y"]
    await wire.ask("/features", *lines)
    call = wire.only()
    assert call.headers.getall("Accept") == ["a/b, c/d"]
    assert "Range" not in call.headers
    assert "If-Range" not in call.headers


ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 3\r\n"
    b"Connection: X-Internal, close\r\nX-Internal: 1\r\nKeep-Alive: timeout=9\r\nProxy-Authenticate: Basic\r\n"
    b"Trailer: X\r\nUpgrade: h2c\r\nServer: upstream/1\r\nSet-Cookie: upstream=1\r\nAlt-Svc: h3\r\n"
    b"Strict-Transport-Security: max-age=9\r\nAccess-Control-Allow-Origin: *\r\nX-Request-Id: theirs\r\n"
    b"Cache-Control: public, max-age=86400\r\nX-Kept: yes\r\nETag: \"a\"\r\nLink: a\r\nLink: b\r\n\r\nabc"
)  # fmt: skip


async def test_nothing_hop_by_hop_comes_down(tmp_path: Path) -> None:
    async with saying(ANSWER).run() as upstream, running_gate(tmp_path, upstream.url, wait=False) as gate:
        answer = await send(gate.url, request("/view?filename=x", gate.keys["admin"]))
    assert (answer.status, answer.body) == (200, b"abc")
    assert {name.lower() for name, _ in answer.headers} == {
        "content-type", "content-length", "connection", "date", "server", "x-request-id", "cache-control", "vary",
        "x-content-type-options", "x-kept", "etag", "link", "ratelimit", "ratelimit-policy", "content-security-policy",
    }  # fmt: skip
    assert answer.all("Connection") == ["close"]
    assert answer.all("Server") == ["comfygate"]
    assert answer.all("Cache-Control") == ["private, no-cache"]
    assert answer.all("Link") == ["a", "b"]
    assert answer.all("X-Request-Id") != ["theirs"]
    assert len(answer.all("Date")) == len(answer.all("X-Request-Id")) == 1


@pytest.mark.parametrize("target", ["/view?filename=x", "/ws"])
async def test_an_upstream_cannot_switch_protocols_by_itself(tmp_path: Path, target: str) -> None:
    reply = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * tunnel"
    async with saying(reply).run() as upstream, running_gate(tmp_path, upstream.url, wait=False) as gate:
        lines = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]  # fmt: skip
        for more in ([], lines):
            answer = await send(gate.url, request(target, gate.keys["admin"], *more))
            assert answer.status == (400 if target == "/ws" and not more else 502), answer.raw
            assert b"tunnel" not in answer.raw


async def test_an_upgrade_on_another_route_is_an_ordinary_request(wire: Wire) -> None:
    for upgrade in ("websocket", "h2c", "TLS/1.0"):
        answer = await wire.ask("/features", "Connection: Upgrade", f"Upgrade: {upgrade}", "Sec-WebSocket-Version: 13")
        assert answer.status == 200
        call = wire.only()
        assert not call.websocket
        assert not {"Upgrade", "Connection", "Sec-WebSocket-Version"} & set(call.headers)


async def test_what_follows_a_refused_upgrade_is_no_request_of_its_own(wire: Wire) -> None:
    """Bytes behind an upgrade belong to the protocol that was asked for, or to the next request: never to nobody."""
    head = request("/features", wire.key, "Upgrade: websocket").replace(b"Connection: close", b"Connection: Upgrade")
    answer = await wire.send(head + request("/queue", None))
    assert answer.status == 200
    assert answer.raw.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 401" in answer.raw
    assert [call.raw_path for call in wire.comfy.received] == ["/features"]
