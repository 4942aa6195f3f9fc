"""The whole gate: its start without a ComfyUI, its end with work to do, and changes of its configuration while it runs."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType, web

from proxy.app import Gate
from proxy.auth import key_file
from proxy.config import ConfigError, load_config
from proxy.http import server as http_server
from proxy.http.listener import ListenError
from proxy.observability.access_log import RequestLog
from proxy.systemd import PassedSockets
from standin import StandIn
from tests.harness import Running, running_gate
from tests.ports import free_port
from tests.proxy.upstreams import GUARD_S, comfy_like, serving
from tests.wire.raw import connect, parse_answer, request, rest_of, send

NOWHERE = "http://127.0.0.1:9"
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "app"}},
}


def rewrite(gate: Running, old: str, new: str) -> None:
    text = gate.config_file.read_text(encoding="utf-8")
    assert old in text
    gate.config_file.write_text(text.replace(old, new), encoding="utf-8")


async def test_a_workflow_runs_and_its_picture_is_the_same_through_the_gate(gate: Running, comfy: StandIn) -> None:
    async with gate.session.ws_connect(gate.address("/ws?clientId=me"), headers=gate.headers("admin")) as socket:
        answer = await gate.json("POST", "/prompt", json={"prompt": GRAPH, "client_id": "me"})
        assert answer["node_errors"] == {}
        async with asyncio.timeout(GUARD_S):
            while True:
                message = await socket.receive()
                if message.type is WSMsgType.TEXT and '"execution_success"' in message.data:
                    break
    history: Any = {}
    async with asyncio.timeout(GUARD_S):
        while (
            not history
        ):  # ComfyUI says that it has ended just before it writes that down, and an admin reads ComfyUI's own
            history = await gate.json("GET", f"/history/{answer['prompt_id']}")
    image = history[answer["prompt_id"]]["outputs"]["2"]["images"][0]
    query = f"/view?filename={image['filename']}&subfolder={image['subfolder']}&type={image['type']}"
    async with gate.call("GET", query) as response, gate.session.get(comfy.url + query) as direct:
        body = await response.read()
        assert body == await direct.read()
        assert body.startswith(b"\x89PNG")


async def test_starts_without_a_comfyui(tmp_path: Path) -> None:
    async with running_gate(tmp_path, NOWHERE, wait=False) as gate:
        assert await gate.status("GET", "/gate/health", None) == 200
        assert await gate.status("GET", "/queue", None) == 401
        assert await gate.status("GET", "/features") == 502


async def test_takes_connections_from_the_sockets_that_it_is_passed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as public, socket.create_server(("127.0.0.1", 0)) as ops:
        file = tmp_path / "config.toml"
        file.write_text(f'[upstream]\nurl = "{NOWHERE}"\n[server]\nport = 0\n[ops]\nport = 0\n', encoding="utf-8")
        passed = PassedSockets((public.dup(),), (ops.dup(),))
        gate = Gate(load_config(file, {}), RequestLog(io.BytesIO(), "json"), passed)
        await gate.start()
        try:
            assert gate.public.port == public.getsockname()[1]
            assert gate.ops.port == ops.getsockname()[1]
            assert (await send(gate.public.url, request("/gate/health", None))).status == 200
            assert (await send(gate.ops.url, request("/healthz", None))).status == 200
        finally:
            await gate.stop()
        for each in (public, ops):
            socket.create_connection(each.getsockname()).close()


@pytest.mark.parametrize("setting", ["server", "ops"])
async def test_a_port_in_use_leaves_nothing_behind(tmp_path: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken, free = other.getsockname()[1], free_port()
        ports = {"server": free, "ops": free, setting: taken}
        file = tmp_path / "config.toml"
        file.write_text(f"[server]\nport = {ports['server']}\n[ops]\nport = {ports['ops']}\n", encoding="utf-8")
        gate = Gate(load_config(file, {}), RequestLog(io.BytesIO(), "json"))
        with pytest.raises(ListenError, match=rf"{taken} is already in use: .*{setting}.port"):
            await gate.start()
        socket.create_server(("127.0.0.1", free)).close()


async def test_a_gate_that_stops_ends_what_runs(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "200000"})
        await response.prepare(request)
        await response.write(b"x" * 100_000)
        begun.set()
        await go_on.wait()
        await response.write(b"x" * 100_000)
        return response

    async with comfy_like(slow) as url, running_gate(tmp_path, url, server="") as gate, asyncio.timeout(GUARD_S):
        async with gate.call("GET", "/models") as response:
            await begun.wait()
            stopping = asyncio.ensure_future(gate.gate.stop())
            await asyncio.wait((stopping,), timeout=0)
            go_on.set()
            assert len(await response.read()) == 200_000
        await stopping


async def test_what_comes_while_something_runs_is_answered_for_the_last_time(tmp_path: Path) -> None:
    """A program that waits for its job gives up at a 503; the next request may find the gate that is started meanwhile."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        await go_on.wait()
        return web.Response(text="done")

    async with comfy_like(slow) as url, running_gate(tmp_path, url) as gate, asyncio.timeout(GUARD_S):
        reader, writer = await connect(gate.url)
        asking = asyncio.ensure_future(gate.status("GET", "/models"))
        await begun.wait()
        stopping = asyncio.ensure_future(gate.gate.stop())
        await gate.gate.pipeline.running.stopping.wait()
        writer.write(request("/history", gate.keys["alice"]).replace(b"Connection: close\r\n", b""))
        answer = parse_answer(await rest_of(reader))
        assert (answer.status, answer.all("Connection")) == (200, ["close"])
        assert not stopping.done()
        go_on.set()
        assert await asking == 200
        await stopping
        writer.close()


async def test_what_outlasts_the_grace_is_cut_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError("not reached")

    async with comfy_like(endless) as url, running_gate(tmp_path, url) as gate, asyncio.timeout(GUARD_S):
        rewrite(gate, 'shutdown_grace = "2s"', 'shutdown_grace = "50ms"')
        assert await gate.gate.reload(gate.config_file)
        asking = asyncio.ensure_future(gate.status("GET", "/models"))
        await begun.wait()
        await gate.gate.stop()
        with pytest.raises(aiohttp.ClientError):
            await asking
    assert "they are cut off" in caplog.text


async def test_a_stranger_that_does_not_read_holds_no_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "DRAIN_IDLE_S", 0.01)
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        async with running_gate(
            tmp_path, NOWHERE, wait=False, shutdown_grace="20s", server='body_timeout = "10m"'
        ) as running:
            await loop.sock_connect(client, ("127.0.0.1", int(running.url.rpartition(":")[2])))
            running_requests = vars(running.gate.pipeline.running)["_requests"]
            connections = vars(running.gate.public)["_server"]._open
            while not (running_requests and any(each.has_unsent for each in connections)):
                with suppress(BlockingIOError):
                    client.send(b"GET /gate/login HTTP/1.1\r\nHost: gate.example\r\n\r\n" * 50)
                await asyncio.sleep(0)
    assert "they are cut off" not in caplog.text


async def test_a_new_key_works_and_a_revoked_one_does_not(gate: Running) -> None:
    key = key_file.create_key(gate.config_file, tenant="alice").text
    headers = {"X-API-Key": key}
    assert await gate.status("GET", "/features", None, headers=headers) == 401
    assert await gate.gate.reload(gate.config_file)
    assert await gate.status("GET", "/features", None, headers=headers) == 200
    key_file.revoke_key(gate.config_file, key.split("_")[1])
    assert await gate.gate.reload(gate.config_file)
    assert await gate.status("GET", "/features", None, headers=headers) == 401
    assert await gate.status("GET", "/features", "alice") == 200


@pytest.mark.parametrize(
    "mistake", ['[server]\nport = "x"', "[unknown]\n", "not toml", '[policies.default]\nallow = ["@no-such-preset"]']
)
async def test_a_bad_file_changes_nothing(gate: Running, caplog: pytest.LogCaptureFixture, mistake: str) -> None:
    caplog.set_level(logging.ERROR)
    before = gate.gate.dependencies.compiled
    gate.config_file.write_text(mistake, encoding="utf-8")
    assert not await gate.gate.reload(gate.config_file)
    assert gate.gate.dependencies.compiled is before
    assert await gate.status("GET", "/features", "alice") == 200
    assert "the old one stays in force" in caplog.text
    assert b'comfygate_config_reloads_total{result="bad"} 1.0' in gate.gate.metrics.render()


async def test_a_file_that_is_gone_changes_nothing(gate: Running) -> None:
    gate.config_file.unlink()
    assert not await gate.gate.reload(gate.config_file)
    assert await gate.status("GET", "/features", "alice") == 200


async def test_a_key_that_expires_closes_its_sockets(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with gate.session.ws_connect(gate.address("/ws"), headers=gate.headers("admin")) as socket:
        authenticator = type(gate.gate.dependencies.compiled.authenticator)
        monkeypatch.setattr(authenticator, "is_alive", lambda self, principal, now: False)
        async with asyncio.timeout(GUARD_S):
            while (message := await socket.receive()).type is WSMsgType.TEXT:
                pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, 4401)


async def test_a_tenant_that_nobody_knows_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[[keys]]\nid = "7f3a9c21"\nhash = "sha256:{"0" * 64}"\ntenant = "ghost"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"line 4: keys\[0\].tenant: there is no \[tenants.ghost\]"):
        load_config(file, {})


def presentations(key: str) -> list[dict[str, str]]:
    """Header fields in which a key may stand, where it belongs and where it does not."""
    return [
        {"Authorization": f"Bearer {key}"},
        {"X-API-Key": key},
        {"Cookie": f"comfygate_session={key}"},
        {"Cf-Access-Jwt-Assertion": key},
        {"Referer": f"https://x/?token={key}", "X-Request-Id": key},
        {"X-API-Key": key, "Authorization": f"Basic {key}"},
    ]


async def test_no_credential_is_in_any_log_line(
    tmp_path: Path, comfy: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the request log and of every logger of the process, at every level."""
    caplog.set_level(logging.DEBUG)
    bad = "cg_00000000_" + "b" * 43
    more = '[limits.logins]\nfailures = "100000/minute"\ndelay = "0s"'
    async with running_gate(tmp_path, comfy.url, more=more) as gate:
        for key in (gate.keys["alice"], bad):
            for headers in presentations(key):
                for path in ("/features", f"/features?token={key}", f"/{key}", f"/gate/login?next=/{key}", "/x?a=%zz"):
                    await gate.status("GET", path, None, headers=headers)
            await gate.status("POST", "/gate/login", None, data={"key": key})
        written = gate.log.getvalue().decode() + caplog.text
    for key in (*gate.keys.values(), bad):
        assert key not in written
        assert key.split("_", 2)[2] not in written
    assert len(written.splitlines()) > 50


async def test_log_lines_are_json_of_known_fields(gate: Running) -> None:
    await gate.status("GET", "/features?x=private-words")
    await gate.status("GET", "/private-words")
    lines = [orjson.loads(line) for line in gate.log.getvalue().splitlines()]
    assert [line["route"] for line in lines] == ["GET /features", "unlisted"]
    assert "private-words" not in gate.log.getvalue().decode()
    assert {re.sub(r"_bytes|_ms", "", name) for line in lines for name in line} <= {
        "time", "event", "request_id", "client", "method", "route", "status", "tenant", "subject", "received", "sent", "gate", "upstream",
        "reason", "cf_ray",
    }  # fmt: skip


async def test_a_request_of_the_gate_to_a_slow_comfyui_does_not_hold_its_end(tmp_path: Path) -> None:
    async def hang(request: web.BaseRequest) -> web.StreamResponse:
        reached.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError("not reached")

    reached = asyncio.Event()
    async with serving(hang) as url, asyncio.timeout(GUARD_S), running_gate(tmp_path, url, wait=False):
        await reached.wait()
