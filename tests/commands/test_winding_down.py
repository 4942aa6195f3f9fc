"""A gate on a socket of its service manager's that is told to stop while a transfer runs: it goes on answering whoever connects until that has ended."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType

from proxy.auth import key_file
from standin import StandIn
from tests.commands.restarts import Manager, Outage, all_ask, bound, configured, job_of, managed, polling
from tests.commands.test_serve import close_code
from tests.contract.driver import saving
from tests.wire.raw import connect, parse_answer, request, rest_of, send

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sockets that are passed")
BIG_BYTES = 100 * 1024 * 1024
"""More than what the kernel and the gate hold: the gate is not done with it before its client has read it."""


@dataclass
class Stopping:
    """A gate that was told to stop while an admin, `session`, downloads. restarting: until the next one runs. events: a WebSocket from before."""

    manager: Manager
    keys: dict[str, str]
    url: str
    session: aiohttp.ClientSession
    download: aiohttp.ClientResponse
    events: aiohttp.ClientWebSocketResponse
    restarting: asyncio.Future[Outage]

    def is_first(self) -> bool:
        """Whether the gate that was told to stop runs: the next one is started when it is gone."""
        return not self.manager.lines and self.manager.life.process.returncode is None

    async def downloaded(self) -> None:
        assert len(await self.download.read()) == BIG_BYTES

    async def begun(self, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A submission whose body has not come whole; what is read of it is told by the gate's interim answer."""
        reader, writer = await connect(self.url)
        lines = ("Content-Type: application/json", f"Content-Length: {len(body)}", "Expect: 100-continue")
        writer.write(request("/prompt", self.keys["alice"], *lines, method="POST"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body[:1])
        return reader, writer


@asynccontextmanager
async def stopping(folder: Path, comfy: StandIn, grace: str = "50s") -> AsyncIterator[Stopping]:
    with (Path(comfy.folders.base) / "output" / "big.bin").open("wb") as file:
        file.truncate(BIG_BYTES)
    with bound() as listening:
        config, keys = configured(folder, comfy.url, listening, shutdown_grace=grace)
        headers = {"Authorization": f"Bearer {keys['admin']}"}
        async with managed(config, listening) as manager, aiohttp.ClientSession(headers=headers) as session:
            url = f"http://127.0.0.1:{manager.port}"
            async with (
                session.get(f"{url}/view?filename=big.bin&type=output", headers={"Connection": "close"}) as download,
                session.ws_connect(f"{url}/ws") as events,
            ):
                restarting = asyncio.ensure_future(manager.restart(signal.SIGTERM))
                yield Stopping(manager, keys, url, session, download, events, restarting)


async def test_who_asks_is_answered_while_a_download_runs(tmp_path: Path, comfy: StandIn) -> None:
    """By the gate that was told to stop, for the last time on each connection; afterwards by the next one, and nothing between is broken."""
    async with stopping(tmp_path, comfy) as found:
        path = await job_of(found.manager, found.keys["alice"])
        with polling(found.manager.port, path, found.keys["alice"]) as pollers:
            assert await close_code(found.events) == 1001
            await all_ask(pollers)
            answer = await send(
                found.url, request("/features", found.keys["alice"]).replace(b"Connection: close\r\n", b"")
            )
            assert (answer.status, answer.all("Connection")) == (200, ["close"])
            assert found.is_first()
            await found.downloaded()
            await found.restarting
            await all_ask(pollers)
    assert [each.broken for each in pollers] == [[]] * len(pollers)
    assert {status for each in pollers for status in each.statuses} == {200}
    assert not [line for line in found.manager.lines if "they are cut off" in line]


async def test_a_websocket_that_comes_meanwhile_is_served_until_the_gate_takes_no_more(
    tmp_path: Path, comfy: StandIn
) -> None:
    """Its client would come again and again, if it were hung up on at once."""
    async with stopping(tmp_path, comfy) as found:
        assert await close_code(found.events) == 1001
        async with found.session.ws_connect(f"{found.url}/ws") as again:
            assert (await again.receive()).type is WSMsgType.TEXT
            assert found.is_first()
            await found.downloaded()
            assert await close_code(again) == 1001
        await found.restarting


async def test_an_upload_that_comes_meanwhile_ends_and_nobody_waits_for_it(tmp_path: Path, comfy: StandIn) -> None:
    body = orjson.dumps({"prompt": saving("late")})
    async with stopping(tmp_path, comfy) as found:
        assert await close_code(found.events) == 1001
        reader, writer = await found.begun(body)
        await found.downloaded()
        for _ in range(10):
            assert (await send(found.url, request("/features", found.keys["alice"]))).status == 200
        assert found.is_first()
        writer.write(body[1:])
        assert parse_answer(await rest_of(reader)).status == 200
        writer.close()
        await found.restarting


async def test_an_upload_that_never_ends_keeps_no_gate_from_stopping(tmp_path: Path, comfy: StandIn) -> None:
    async with stopping(tmp_path, comfy, grace="3s") as found:
        assert await close_code(found.events) == 1001
        reader, writer = await found.begun(b"{}")
        assert found.is_first()
        await found.restarting
        assert await rest_of(reader) == b""
        writer.close()
        assert (await send(found.url, request("/features", found.keys["alice"]))).status == 200
        with pytest.raises(aiohttp.ClientError):
            await found.download.read()
    assert [line for line in found.manager.lines if "they are cut off" in line]


async def test_a_key_that_is_revoked_meanwhile_ends(tmp_path: Path, comfy: StandIn) -> None:
    async with stopping(tmp_path, comfy) as found:
        assert await close_code(found.events) == 1001
        asks = request("/features", found.keys["mallory"])
        assert (await send(found.url, asks)).status == 200
        key_file.revoke_key(tmp_path / "config.toml", found.keys["mallory"].split("_")[1])
        await found.manager.life.said("configuration reloaded")
        assert (await send(found.url, asks)).status == 401
        assert found.is_first()
        await found.downloaded()
        await found.restarting
