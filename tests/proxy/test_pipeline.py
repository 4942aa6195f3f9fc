"""The order of everything, seen from outside: nobody gets past authentication, and what is refused never reaches ComfyUI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import web

from policy.call import ClientReply
from policy.routes import Deny, Route, RouteTable
from policy.table import ROUTES
from proxy.http.replies import Taker
from proxy.upstream.client import UpstreamStream
from standin import StandIn
from tests.harness import Running, running_gate
from tests.policy.targets import examples
from tests.proxy.upstreams import GUARD_S, comfy_like

UNLISTED = (
    "/manager/reboot",
    "/api/manager/queue/start",
    "/customnode/install",
    "/v2/manager/queue/install",
    "/api/internal/logs",
    "/internal/logs/raw/x",
    "/prompt/",
    "/PROMPT",
    "/api",
    "/api/api/prompt",
    "/assets",
    "/ws/x",
    "/gate/",
    "/gate/me/x",
    "/gate/metrics",
    "/metrics",
    "/healthz",
    "/login.js",
    "/x.css",
    "/robots.txt",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def targets() -> Iterator[tuple[str, str]]:
    """Method and target of every row, under every prefix."""
    for route in ROUTES:
        for target in examples(route):
            yield route.method, target
            if route.method == "GET":
                yield "HEAD", target


@pytest.fixture
async def quiet(tmp_path: Path, comfy: StandIn) -> AsyncIterator[Running]:
    """A gate that asks ComfyUI nothing by itself any more, and is quick to say no."""
    more = '[limits.logins]\nfailures = "100000/minute"\ndelay = "0s"'
    async with running_gate(tmp_path, comfy.url, more=more) as running:
        await running.gate.dependencies.queue_watchers.first.stop()
        comfy.received.clear()
        running.comfy = comfy
        yield running


async def statuses(gate: Running, calls: list[tuple[str, str]], **more: object) -> dict[tuple[str, str], int]:
    async def one(method: str, target: str) -> int:
        return await gate.status(method, target, **more)  # type: ignore[arg-type]

    found = await asyncio.gather(*(one(method, target) for method, target in calls))
    return dict(zip(calls, found, strict=True))


async def test_no_route_answers_without_a_key(quiet: Running) -> None:
    calls = list(targets())
    assert len(calls) > 150
    found = await statuses(quiet, calls, who=None)
    assert {call: status for call, status in found.items() if status != 401} == {}
    assert quiet.comfy is not None
    assert quiet.comfy.received == []


async def test_no_route_upgrades_without_a_key(quiet: Running) -> None:
    calls = [(method, target) for method, target in targets() if method == "GET"]
    found = await statuses(quiet, calls, who=None, headers=UPGRADE)
    assert {call: status for call, status in found.items() if status != 401} == {}
    assert quiet.comfy is not None
    assert quiet.comfy.received == []
    assert quiet.comfy.sockets_received == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer cg_00000000_" + "a" * 43},
        {"X-API-Key": "cg_00000000_" + "a" * 43},
        {"Authorization": ""},
        {"Cookie": "comfygate_session=1.ab"},
        {"Cf-Access-Jwt-Assertion": "a.b.c"},
        {"Origin": "http://127.0.0.1"},
        {"User-Agent": "GoogleHC/1.0"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Original-URL": "/gate/health"},
    ],
)
async def test_no_route_answers_to_a_bad_key(quiet: Running, headers: dict[str, str]) -> None:
    calls = [(method, target) for method, target in targets() if method != "HEAD"][::9]
    found = await statuses(quiet, calls, who=None, headers=headers)
    assert set(found.values()) <= {401, 429}, found
    assert quiet.comfy is not None
    assert quiet.comfy.received == []


async def test_unlisted_paths_are_401_without_a_key_and_404_with_one(quiet: Running) -> None:
    calls = [(method, path) for path in UNLISTED for method in METHODS if not path.endswith("/")]
    without = await statuses(quiet, calls, who=None)
    assert {call: status for call, status in without.items() if status != 401} == {}
    for who in ("alice", "admin"):
        found = await statuses(quiet, calls, who=who)
        assert {call: status for call, status in found.items() if status != 404} == {}
    assert quiet.comfy is not None
    assert quiet.comfy.received == []


async def test_methods_that_a_row_does_not_name_are_unlisted(quiet: Running) -> None:
    table = RouteTable(ROUTES)
    wrong = {
        (method, target): 405 if table.methods(segments) else 404
        for route in ROUTES
        for target in examples(route)
        for method in METHODS
        if table.match(method, segments := tuple(part for part in target.split("/") if part)) is None
    }
    assert len(wrong) > 500
    assert {*wrong.values()} == {404, 405}
    found = await statuses(quiet, sorted(wrong)[::7], who="admin")
    assert {call: status for call, status in found.items() if status != wrong[call]} == {}
    assert quiet.comfy is not None
    assert quiet.comfy.received == []


async def test_a_preflight_is_answered_to_welcome_origins_alone(tmp_path: Path, comfy: StandIn) -> None:
    asked = {"Access-Control-Request-Method": "POST"}
    async with running_gate(tmp_path, comfy.url, server='cors_origins = ["https://app.example"]') as gate:
        await gate.gate.dependencies.queue_watchers.first.stop()
        comfy.received.clear()
        for origin, status in (("https://app.example", 204), ("https://evil.example", 401), ("null", 401)):
            async with gate.call("OPTIONS", "/prompt", None, headers={**asked, "Origin": origin}) as response:
                assert response.status == status
                assert response.headers.get("Access-Control-Allow-Origin") == (origin if status == 204 else None)
        assert await gate.status("OPTIONS", "/prompt", None, headers={"Origin": "https://app.example"}) == 401
        assert comfy.received == []


async def test_refused_rows_are_refused_to_everybody(quiet: Running) -> None:
    rows: list[Route] = [route for route in ROUTES if isinstance(route.admin, Deny) and isinstance(route.tenant, Deny)]
    assert rows
    for route in rows:
        for target in examples(route):
            for who in ("alice", "admin"):
                body = await quiet.json(route.method, target, who)
                assert body["error"]["type"] == "route_refused"
    assert quiet.comfy is not None
    assert quiet.comfy.received == []


async def test_a_head_is_answered_as_its_get_without_the_body(gate: Running) -> None:
    async with gate.call("GET", "/features") as full, gate.call("HEAD", "/features") as head:
        body = await full.read()
        assert (head.status, await head.read()) == (200, b"")
        assert head.headers["Content-Length"] == str(len(body))


async def test_the_request_id_is_the_clients_and_in_every_answer(gate: Running) -> None:
    for who, path in (("admin", "/features"), (None, "/features"), ("admin", "/nothing"), (None, "/gate/health")):
        async with gate.call("GET", path, who, headers={"X-Request-Id": "mine-7"}) as response:
            assert response.headers["X-Request-Id"] == "mine-7"
            assert response.headers["Server"] == "comfygate"
    assert gate.log.getvalue().count(b'"mine-7"') == 4


async def test_a_bug_is_a_500_that_tells_nothing(
    gate: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise LookupError("the secret detail")

    monkeypatch.setattr(gate.gate.dependencies.login_throttle, "authenticate", broken)
    async with gate.call("GET", "/features") as response:
        body = await response.text()
        assert response.status == 500
    assert orjson.loads(body)["error"]["type"] == "internal_error"
    assert "secret detail" not in body
    assert "secret detail" in caplog.text
    assert response.headers["X-Request-Id"] in caplog.text


@pytest.mark.parametrize("size", [3, 1_000_000])
async def test_a_field_that_would_end_its_line_is_a_bug(
    quiet: Running, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Nothing of that answer is on the wire, so another can be."""

    async def split(*_: object) -> ClientReply:
        return ClientReply(200, bytes(size), "text/x", (("X-Told", "a\r\nSet-Cookie: b"),))

    monkeypatch.setattr(quiet.gate.dependencies.pages, "serve", split)
    async with quiet.call("GET", "/gate/health") as response:
        assert (response.status, "Set-Cookie" in response.headers) == (500, False)
        assert orjson.loads(await response.read())["error"]["type"] == "internal_error"


async def test_a_bug_after_the_head_breaks_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def chunked(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"[")
        return response

    async def broken(self: UpstreamStream, taker: Taker) -> None:
        taker.take(b"[")
        raise LookupError("a bug")

    async with comfy_like(chunked) as url, running_gate(tmp_path, url) as gate:
        monkeypatch.setattr(UpstreamStream, "pour", broken)
        async with gate.call("GET", "/models") as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        assert await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
        assert b'"reason":"internal-error"' in gate.log.getvalue()


async def test_documents_are_bounded_by_max_prompt_bytes_for_admins_too(tmp_path: Path, comfy: StandIn) -> None:

    async with running_gate(tmp_path, comfy.url, server='max_prompt_bytes = "1KiB"') as gate:
        await gate.gate.dependencies.queue_watchers.first.stop()
        comfy.received.clear()
        assert await gate.status("POST", "/prompt", data=b"[" + b" " * 1024) == 413
        assert await gate.status("POST", "/queue", data=b'{"a": "' + b"x" * 1024) == 413
        assert comfy.received == []
        assert await gate.status("POST", "/userdata/big.txt", data=b"x" * 4096) == 200


async def test_an_upgrade_needs_all_of_its_fields(quiet: Running, caplog: pytest.LogCaptureFixture) -> None:
    for missing in UPGRADE:
        fields = {name: value for name, value in UPGRADE.items() if name != missing}
        assert await quiet.status("GET", "/ws", headers=fields) == 400, missing
    assert await quiet.status("GET", "/ws", headers={**UPGRADE, "Sec-WebSocket-Version": "12"}) == 400
    assert await quiet.status("GET", "/ws", headers={**UPGRADE, "Sec-WebSocket-Key": "short"}) == 400
    assert await quiet.status("HEAD", "/ws", headers=UPGRADE) == 400
    assert quiet.comfy is not None
    assert quiet.comfy.received == []
    assert "failed" not in caplog.text


async def test_what_comes_after_the_last_request_is_refused(gate: Running) -> None:
    gate.gate.pipeline.is_closed = True
    async with gate.call("GET", "/features") as response:
        body = await response.json()
        assert (response.status, response.headers["Connection"]) == (503, "close")
    assert response.headers["Retry-After"]
    assert body["error"]["type"] == "gate_stopping"


async def test_an_idle_gate_is_idle_at_once(gate: Running) -> None:
    assert await gate.gate.pipeline.running.wait_until_idle(30.0)


async def test_a_gate_at_work_is_not_idle(tmp_path: Path) -> None:

    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        await go_on.wait()
        return web.Response(text="done")

    async with comfy_like(answer) as url, running_gate(tmp_path, url) as gate:
        asking = asyncio.ensure_future(gate.status("GET", "/models"))
        await begun.wait()
        assert not await gate.gate.pipeline.running.wait_until_idle(0.01)
        go_on.set()
        assert await asking == 200
        assert await gate.gate.pipeline.running.wait_until_idle(30.0)
