from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from proxy.commands import connect
from proxy.commands.command_line import app
from proxy.commands.connect_access import LocalAccess
from proxy.commands.connect_proxy import HOST, ConnectProxy, UnsafeGate
from proxy.commands.exits import Exit
from proxy.http.listener import Listener, ListenError
from tests.harness import Running

WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


@asynccontextmanager
async def forwarding(url: str, key: str, access: LocalAccess | None = None) -> AsyncIterator[str]:
    """Where a forwarder listens."""
    forwarder = ConnectProxy(url, key, access)
    await forwarder.start()
    listener = Listener(forwarder.server(), HOST, 0, "--port")
    await listener.start()
    try:
        yield listener.url
    finally:
        await listener.stop()
        await forwarder.stop()


@pytest.fixture
async def here(gate: Running) -> AsyncIterator[str]:
    """The gate as alice's machine sees it."""
    async with forwarding(gate.url, gate.keys["alice"]) as url:
        yield url


async def test_a_client_without_any_credential_is_alice(gate: Running, here: str) -> None:
    async with gate.session.get(f"{here}/gate/me") as answer:
        assert (await answer.json())["tenant"] == "alice"
    async with gate.session.ws_connect(f"{here}/ws?clientId=me") as socket:
        assert json.loads(await socket.receive_str())["data"]["sid"] == "me"
        async with gate.session.post(f"{here}/api/prompt", json={"prompt": WORKFLOW, "client_id": "me"}) as answer:
            prompt_id = (await answer.json())["prompt_id"]
        async with asyncio.timeout(240):
            while (event := json.loads(await socket.receive_str()))["type"] != "execution_success":
                pass
    assert event["data"]["prompt_id"] == prompt_id
    async with gate.session.get(f"{here}/view?filename=x_00001_.png") as picture:
        assert picture.headers["Content-Type"] == "image/png"
        assert (await picture.read()).startswith(b"\x89PNG")


async def test_answers_come_as_they_are(gate: Running, here: str) -> None:
    async with gate.session.get(f"{here}/object_info", headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        tag = {"If-None-Match": answer.headers["ETag"]}
    async with gate.session.get(f"{here}/object_info", headers=tag) as answer:
        assert answer.status == 304
    async with gate.session.get(f"{here}/userdata/a%2Fb.json", allow_redirects=False) as answer:
        assert answer.status == 404
    async with gate.session.post(f"{here}/prompt", data=b"{}") as answer:
        assert answer.status == 400


async def test_what_a_client_sends_for_a_credential_is_left_out(gate: Running, here: str) -> None:
    sent = {
        "Authorization": "Bearer bad",
        "X-API-Key": gate.keys["mallory"],
        "Cookie": "comfygate_session=bad",
        "Cf-Access-Jwt-Assertion": "bad",
    }
    async with gate.session.get(f"{here}/gate/me?token=bad&%74oken=bad", headers=sent) as answer:
        assert (answer.status, (await answer.json())["tenant"]) == (200, "alice")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/queue", "/ws"])
async def test_pages_of_other_sites_cannot_use_the_key(
    path: str, headers: dict[str, str], gate: Running, here: str
) -> None:
    if path == "/ws":
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await gate.session.ws_connect(here + path, headers=headers)
        assert caught.value.status == 403
    else:
        async with gate.session.get(here + path, headers=headers) as answer:
            assert answer.status == 403
            assert (await answer.json())["error"]["type"] == "origin_foreign"
    assert b'"tenant":"alice"' not in gate.log.getvalue()


async def test_a_page_of_its_own_works(gate: Running, here: str) -> None:
    headers = {"Origin": here, "Sec-Fetch-Site": "same-origin"}
    async with gate.session.post(f"{here}/interrupt", headers=headers) as answer:
        assert answer.status == 200


async def test_a_gate_that_is_down_is_told(gate: Running) -> None:
    async with forwarding("http://127.0.0.1:1", "cg_x") as here, gate.session.get(f"{here}/queue") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (502, "5")
        assert (await answer.json())["error"]["type"] == "gate_unreachable"


async def test_a_key_that_is_not_good_is_told(gate: Running) -> None:
    async with forwarding(gate.url, gate.keys["alice"] + "x") as here:
        async with gate.session.get(f"{here}/queue") as answer:
            assert answer.status == 401
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await gate.session.ws_connect(f"{here}/ws")
        assert caught.value.status == 401


@pytest.mark.parametrize("url", ["http://comfy.example.com", "ftp://x", "ftp://localhost", "comfy.example.com"])
def test_the_key_never_travels_in_the_clear(url: str) -> None:
    with pytest.raises(UnsafeGate, match="https"):
        ConnectProxy(url, "cg_x")
    ConnectProxy("https://comfy.example.com/", "cg_x")


@pytest.mark.parametrize("url", ["https://key:x@comfy.example.com", "https://comfy.example.com?a=b"])
def test_the_address_is_a_gates_alone(url: str) -> None:
    with pytest.raises(UnsafeGate, match="address alone"):
        ConnectProxy(url, "cg_x")


@pytest.mark.parametrize(
    "url", ["", "https://", "localhost", "127.0.0.1:8190", "https://[::1", "http://127.0.0.1:99999"]
)
def test_what_is_no_address_is_told_how_one_is_written(url: str) -> None:
    with pytest.raises(UnsafeGate, match=r"as in https://comfy\.example\.com"):
        ConnectProxy(url, "cg_x")


def test_the_command_wants_a_key_and_a_safe_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMFYGATE_KEY", raising=False)
    run = CliRunner().invoke
    asked = run(app, ["connect", "https://gate.example"])
    assert (asked.exit_code, "COMFYGATE_KEY" in asked.output) == (Exit.MISTAKE, True)
    absent = run(app, ["connect", "https://gate.example", "--key-file", str(tmp_path / "none")])
    assert (absent.exit_code, "cannot be read" in absent.output) == (Exit.MISTAKE, True)
    (tmp_path / "key").write_text("cg_x\n", encoding="ascii")
    clear = run(app, ["connect", "http://gate.example", "--key-file", str(tmp_path / "key")])
    assert (clear.exit_code, "is not https" in clear.output) == (Exit.MISTAKE, True)


async def test_the_command_listens_until_it_is_stopped(gate: Running, capsys: pytest.CaptureFixture[str]) -> None:
    stop = asyncio.Event()
    forwarder = ConnectProxy(gate.url, gate.keys["alice"])
    running = asyncio.get_running_loop().create_task(connect.serve_until(forwarder, gate.url, 0, stop))
    async with asyncio.timeout(240):
        while "for programs on this machine" not in (said := capsys.readouterr().out):
            await asyncio.sleep(0)
    async with gate.session.get(f"{said.split()[0]}/queue") as answer:
        assert answer.status == 200
    port = int(said.split()[0].rpartition(":")[2])
    with pytest.raises(ListenError):
        await connect.serve_until(ConnectProxy(gate.url, "cg_x"), gate.url, port, stop)
    stop.set()
    await running
