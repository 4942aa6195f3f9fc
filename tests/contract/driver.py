"""A small client of ComfyUI's native API for the contract tests, and the graphs that they submit.

Nothing here assumes where the server keeps its files, nor that the server has no other clients.
"""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp
from PIL import Image
from yarl import URL

Graph = dict[str, Any]
TIMEOUT_S = 240.0


def unique(stem: str = "ct") -> str:
    return f"{stem}-{uuid.uuid4().hex[:12]}"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def empty_image(color: int = 255, **inputs: Any) -> dict[str, Any]:
    return node("EmptyImage", **{"width": 32, "height": 32, "batch_size": 1, "color": color} | inputs)


def saving(prefix: str, color: int = 255) -> Graph:
    return {"1": empty_image(color), "2": node("SaveImage", images=["1", 0], filename_prefix=prefix)}


def previewing(color: int) -> Graph:
    return {"1": empty_image(color), "2": node("PreviewImage", images=["1", 0])}


def slow(seconds: float = 60.0, steps: int = 600) -> Graph:
    """A job that lasts until it is interrupted."""
    return {
        "1": empty_image(),
        "2": node("SlowProgress", image=["1", 0], seconds=seconds, steps=steps),
        "3": node("PreviewImage", images=["2", 0]),
    }


def loading(name: Any, class_type: str = "LoadImage", **inputs: Any) -> Graph:
    return {"1": node(class_type, image=name, **inputs), "2": node("PreviewImage", images=["1", 0])}


def png(color: tuple[int, ...] = (200, 10, 10), mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, "PNG")
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def text(self) -> str:
        return self.body.decode()


@dataclass
class Socket:
    """A websocket client; `seen` holds every text message read so far."""

    connection: aiohttp.ClientWebSocketResponse
    sid: str
    seen: list[dict[str, Any]] = field(default_factory=list)
    binary: list[bytes] = field(default_factory=list)

    async def read(self) -> dict[str, Any] | bytes:
        message = await self._receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            self.binary.append(message.data)
            return bytes(message.data)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        content: dict[str, Any] = message.json()
        self.seen.append(content)
        return content

    async def _receive(self) -> aiohttp.WSMessage:
        """The next message. Who serves a slow machine asks meanwhile whether the client lives."""
        while (message := await self.connection.receive(timeout=TIMEOUT_S)).type is aiohttp.WSMsgType.PING:
            await self.connection.pong(message.data)
        return message

    async def until(self, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            message = await self.read()
            if isinstance(message, dict) and is_wanted(message):
                return message

    async def event(self, kind: str, prompt_id: str | None = None, **data: Any) -> dict[str, Any]:
        """The data of the next message of that type, with these values in its data."""
        wanted = data | ({} if prompt_id is None else {"prompt_id": prompt_id})
        message = await self.until(
            lambda each: each["type"] == kind and all(each["data"].get(k, ...) == v for k, v in wanted.items())
        )
        found: dict[str, Any] = message["data"]
        return found

    async def end_of(self, prompt_id: str) -> None:
        await self.event("executing", prompt_id, node=None)

    async def is_silent(self) -> bool:
        """Whether nothing came before the answer to a ping: what was published earlier would have."""
        await self.connection.ping()
        return (await self._receive()).type is aiohttp.WSMsgType.PONG

    def types(self, prompt_id: str) -> list[str]:
        return [each["type"] for each in self.seen if each["data"].get("prompt_id") == prompt_id]

    async def close(self) -> None:
        await self.connection.close()


@dataclass
class Comfy:
    """One ComfyUI under test; `version` is what it says of itself."""

    url: str
    session: aiohttp.ClientSession
    version: tuple[int, ...]
    is_real: bool

    @property
    def is_current(self) -> bool:
        """0.33 rather than 0.3.64."""
        return self.version >= (0, 33)

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        """`path` goes out as it is: what needs quoting has to be quoted."""
        url = URL(self.url + path, encoded=True)
        async with self.session.request(method, url, allow_redirects=False, **options) as reply:
            return Answer(reply.status, reply.headers, await reply.read())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.call("POST", path, **options)

    async def view(self, filename: str, **query: str) -> Answer:
        pairs = {"filename": filename} | query
        return await self.get("/view?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs.items()))

    async def upload(self, name: str, data: bytes, route: str = "/upload/image", **fields: str | list[str]) -> Answer:
        form = aiohttp.FormData(quote_fields=False)
        for key, value in fields.items():
            for each in [value] if isinstance(value, str) else value:
                form.add_field(key, each)
        form.add_field("image", io.BytesIO(data), filename=name, content_type="image/png")
        return await self.post(route, data=form)

    async def put(self, name: str, data: bytes, **fields: str) -> None:
        answer = await self.upload(name, data, **fields)
        assert answer.status == 200, answer.text()

    async def submit(self, graph: Graph, **fields: Any) -> Answer:
        return await self.post("/prompt", json={"prompt": graph, **fields})

    async def queue(self, graph: Graph, **fields: Any) -> str:
        answer = await self.submit(graph, **fields)
        assert answer.status == 200, answer.text()
        prompt_id: str = answer.json()["prompt_id"]
        return prompt_id

    async def run(self, graph: Graph, **fields: Any) -> dict[str, Any]:
        """Runs a graph to its end; its history entry."""
        async with self.socket() as socket:
            prompt_id = await self.queue(graph, client_id=socket.sid, **fields)
            await socket.end_of(prompt_id)
        return await self.history(prompt_id)

    async def history(self, prompt_id: str) -> dict[str, Any]:
        entry: dict[str, Any] = (await self.get(f"/history/{prompt_id}")).json()[prompt_id]
        return entry

    @asynccontextmanager
    async def socket(self, sid: str | None = None, path: str = "/ws") -> AsyncIterator[Socket]:
        socket = await self.connect(unique("sid") if sid is None else sid, path)
        try:
            yield socket
        finally:
            await socket.close()

    async def connect(self, sid: str, path: str = "/ws") -> Socket:
        url = f"{self.url}{path}?clientId={quote(sid)}" if sid else f"{self.url}{path}"
        connection = await self.session.ws_connect(url, max_msg_size=0, autoping=False)
        socket = Socket(connection, sid)
        first = await socket.read()
        assert isinstance(first, dict)
        socket.sid = first["data"]["sid"]
        return socket

    @asynccontextmanager
    async def blocked(self) -> AsyncIterator[str]:
        """Keeps the worker busy with a job of ours; its id. Others' jobs may be before it."""
        async with self.socket() as socket:
            prompt_id = await self.queue(slow(), client_id=socket.sid, number=-1e6)
            await socket.event("progress", prompt_id)
            try:
                yield prompt_id
            finally:
                await self.post("/interrupt", json={"prompt_id": prompt_id})
                await socket.end_of(prompt_id)

    async def raw(self, target: str, method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
        """One request byte for byte; header names may be given that a client library would set itself."""
        host = URL(self.url)
        assert host.host is not None
        reader, writer = await asyncio.open_connection(host.host, host.port)
        lines = {"Host": f"{host.host}:{host.port}", "Connection": "close"} | (headers or {})
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode("latin-1"))
        answer = await asyncio.wait_for(reader.read(), TIMEOUT_S)
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *rest = head.decode("latin-1").split("\r\n")
        pairs = dict(line.split(": ", 1) for line in rest)
        return Answer(int(status.split()[1]), pairs, body)


def images_of(entry: dict[str, Any], node_id: str = "2") -> list[dict[str, str]]:
    images: list[dict[str, str]] = entry["outputs"][node_id]["images"]
    return images


def errors_of(answer: Answer, node_id: str) -> list[str]:
    return [error["type"] for error in answer.json()["node_errors"][node_id]["errors"]]
