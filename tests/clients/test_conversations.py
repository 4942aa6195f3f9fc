"""Clients that cannot be installed here, request by request as they send them, with and without a real ComfyUI behind the gate."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image
from yarl import URL

from tests.clients.conversations import Ask, Client, Close, HearTheEnd, Open, Part, Picture, clients
from tests.clients.record import record
from tests.clients.runs import (
    COLOUR,
    EMPTY,
    SAVE,
    SLOW,
    TARGETS,
    check_that_it_was_alices,
    exported,
    gate_before,
    upstream_of,
)
from tests.harness import Running
from tests.proxy.commands.test_connect_proxy import forwarding

LIMIT_S = 240.0
PAINTS = {"1": exported("EmptyImage", "EmptyImage", EMPTY), "2": SLOW, "3": SAVE}


def loads(name: str, seconds: float) -> dict[str, Any]:
    """Starts with a picture, and takes that long."""
    return {
        "1": exported("LoadImage", "Load Image", {"image": name}),
        "2": exported("SlowProgress", "Slow", {"image": ["1", 0], "seconds": seconds, "steps": 5}),
        "3": SAVE,
    }


def picture(kind: str) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (64, 48), COLOUR).save(target, kind)
    return target.getvalue()


CLIENTS = clients(PAINTS, loads, picture("PNG"), picture("JPEG"))


@pytest.fixture(params=TARGETS)
async def gate(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    async with gate_before(request.param, tmp_path) as running:
        yield running


class Talk:
    """One client's run: what it has learnt, and its socket."""

    def __init__(self, session: aiohttp.ClientSession, bare: aiohttp.ClientSession, url: str, query: str) -> None:
        """bare: without header fields. A phone's WebSocket has no others than its own, so the key stands in its address."""
        self.session = session
        self.sockets = bare if query else session
        self.url = url
        self.query = query
        self.known: dict[str, Any] = {"own_id": str(uuid.uuid4()), "client_id": str(uuid.uuid4())}
        self.socket: aiohttp.ClientWebSocketResponse | None = None

    def filled(self, text: str) -> str:
        for name, value in self.known.items():
            text = text.replace(f"<{name}>", str(value))
        return text

    def address(self, path: str) -> URL:
        path = self.filled(path)
        if self.query:
            path += ("&" if "?" in path else "?") + self.query
        return URL(self.url + path, encoded=True)

    async def ask(self, step: Ask) -> None:
        """A body of no named type goes without one, as from httpx."""
        is_named = step.media_type is not None and step.body is not None
        headers = {**step.headers, **({"Content-Type": str(step.media_type)} if is_named else {})}
        unnamed = () if is_named or step.parts else ("Content-Type",)
        while True:
            data = form(step.parts) if step.parts else step.body and self.filled(json.dumps(step.body)).encode()
            async with self.session.request(
                step.method, self.address(step.path), data=data, headers=headers, skip_auto_headers=unnamed
            ) as answer:
                text = await answer.text()
            assert answer.status == step.status, f"{step.method} {step.path}: {answer.status} {text}"
            value = json.loads(text) if text.startswith(("{", "[")) else None
            if step.until is None or step.until(value, self.known):
                break
            await asyncio.sleep(step.pace_s)  # the client's own pace is a part of what it sends
        for name, place in step.learn.items():
            self.known[name] = found(value, self.filled(place))

    async def hear_the_end(self) -> None:
        assert self.socket is not None
        while True:
            message = await self.socket.receive()
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
            if message.type is aiohttp.WSMsgType.BINARY:
                continue
            event = json.loads(message.data)
            if event["type"] == "executing" and event["data"]["node"] is None:
                assert event["data"]["prompt_id"] == self.known["prompt_id"]
                return

    async def see(self, step: Picture) -> None:
        async with self.session.get(self.address(step.path)) as answer:
            assert answer.status == 200, step.path
            red, green, blue = Image.open(io.BytesIO(await answer.read())).convert("RGB").getpixel((9, 9))  # type: ignore[misc]
        assert max(abs(red - COLOUR[0]), abs(green - COLOUR[1]), abs(blue - COLOUR[2])) < 4  # JPEG is not exact

    async def run(self, client: Client) -> None:
        for step in client.steps:
            match step:
                case Ask():
                    await self.ask(step)
                case Open():
                    self.socket = await self.sockets.ws_connect(self.address(step.path))
                case Close():
                    assert self.socket is not None
                    await self.socket.close()
                case HearTheEnd():
                    await self.hear_the_end()
                case Picture():
                    await self.see(step)


def found(value: Any, place: str) -> Any:
    for name in place.split("."):
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def form(parts: tuple[Part, ...]) -> aiohttp.FormData:
    body = aiohttp.FormData(quote_fields=False)
    for part in parts:
        body.add_field(part.name, part.value, filename=part.filename, content_type=part.media_type)
    return body


@asynccontextmanager
async def door(client: Client, gate: Running) -> AsyncIterator[tuple[str, Mapping[str, str], str]]:
    """Address, header fields and query with which this client comes in."""
    key = gate.keys["alice"]
    async with AsyncExitStack() as stack:
        if client.door == "connect":
            yield await stack.enter_async_context(forwarding(gate.url, key)), {}, ""
        else:
            yield gate.url, gate.headers("alice"), f"token={key}" if client.door == "bearer+token" else ""


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
async def test_a_client_as_it_speaks(client: Client, gate: Running) -> None:
    before = len(await gate.json("GET", "/history", "alice"))
    async with (
        door(client, gate) as (url, headers, query),
        aiohttp.ClientSession(headers=headers) as session,
        aiohttp.ClientSession() as bare,
        asyncio.timeout(LIMIT_S),
    ):
        await Talk(session, bare, url, query).run(client)
    await check_that_it_was_alices(gate, before)
    what = "request by request as it sends them: a workflow goes through, its picture comes back"
    record(client=client.name, version="as written down", upstream=await upstream_of(gate), what=what)
