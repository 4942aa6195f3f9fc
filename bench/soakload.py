"""What the clients of a soak do: each call is one small piece of a person's or program's day, with the answer that it must get."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import secrets
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from yarl import URL

_JOB_GUARD_S: Final = 60.0


class Unexpected(Exception):
    """An answer that no client should get. The text says which."""


@dataclass
class Outages:
    """When ComfyUI is away by intention: what fails then, or began before, is explained by it."""

    is_out: bool = False
    count: int = 0


@dataclass
class Tally:
    """What was done, what failed for a reason that is known, and what did not."""

    done: Counter[str] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)
    unexplained: Counter[str] = field(default_factory=Counter)
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def count(self, name: str) -> None:
        self.done[name] += 1
        self._grown.set()

    async def reached(self, total: int) -> None:
        """Waits until that many pieces of work are done."""
        while self.done.total() < total:
            self._grown.clear()
            await self._grown.wait()


class Client:
    """One tenant's clients. url: of the gate."""

    def __init__(self, url: str, name: str, key: str, neighbour: Client | None, outages: Outages, tally: Tally) -> None:
        self.name = name
        self._url = url
        self._key = key
        self._neighbour = neighbour
        self._outages = outages
        self._tally = tally
        self._numbers = itertools.count()
        self.last_file = ""
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Client:
        self._session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {self._key}"})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def work(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """The kinds of work, each to be done over and over by a worker of its own."""
        return {
            "job": self._job,
            "job with events": self._job_with_events,
            "upload": self._upload,
            "reading": self._reading,
            "saving": self._saving,
            "socket": self._socket,
            "bad manners": self._bad_manners,
        }

    async def do(self, name: str, piece: Callable[[], Awaitable[None]]) -> None:
        """Does one piece and counts it."""
        outage = self._outages.count
        try:
            async with asyncio.timeout(_JOB_GUARD_S):
                await piece()
        except (Unexpected, aiohttp.ClientError, OSError, TimeoutError) as error:
            is_explained = self._outages.is_out or self._outages.count != outage
            found = self._tally.explained if is_explained else self._tally.unexplained
            found[f"{name}: {type(error).__name__} {str(error)[:200]}"] += 1
        self._tally.count(name)

    async def _ask(self, method: str, path: str, expected: int = 200, **more: Any) -> bytes:
        async with self._session.request(method, URL(self._url + path, encoded=True), **more) as answer:
            body = await answer.read()
            if answer.status != expected:
                raise Unexpected(f"{method} {path.partition('?')[0]} was answered {answer.status}: {body[:120]!r}")
            return body

    async def _submit(self, client_id: str | None = None) -> str:
        graph = {
            "1": {
                "class_type": "EmptyImage",
                "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": secrets.randbelow(2**24)},
            },
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "soak"}},
        }
        body = {"prompt": graph} if client_id is None else {"prompt": graph, "client_id": client_id}
        return str(json.loads(await self._ask("POST", "/prompt", json=body))["prompt_id"])

    async def _result(self, prompt_id: str) -> None:
        while not (entry := json.loads(await self._ask("GET", f"/history/{prompt_id}"))):
            await asyncio.sleep(0.05)
        (image,) = entry[prompt_id]["outputs"]["2"]["images"]
        self.last_file = image["filename"]
        if not (await self._ask("GET", f"/view?filename={self.last_file}")).startswith(b"\x89PNG"):
            raise Unexpected("the result is no picture")
        if self._neighbour is not None and json.loads(await self._neighbour._ask("GET", f"/history/{prompt_id}")):
            raise Unexpected("the neighbour sees the job")
        await self._ask("POST", "/history", json={"delete": [prompt_id]})

    async def _job(self) -> None:
        await self._result(await self._submit())

    async def _job_with_events(self) -> None:
        async with self._events() as (client_id, socket):
            prompt_id = await self._submit(client_id)
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    if event["type"] == "execution_success" and event["data"]["prompt_id"] == prompt_id:
                        break
            else:
                raise Unexpected(f"the socket closed with {socket.close_code} before its job ended")
        await self._result(prompt_id)

    @asynccontextmanager
    async def _events(self) -> AsyncIterator[tuple[str, aiohttp.ClientWebSocketResponse]]:
        client_id = f"{self.name}-{next(self._numbers)}"
        async with self._session.ws_connect(f"{self._url}/ws?clientId={client_id}") as socket:
            yield client_id, socket

    async def _upload(self) -> None:
        form = aiohttp.FormData()
        form.add_field("image", io.BytesIO(picture(256)), filename=f"{self.name}.png")
        form.add_field("overwrite", "true")
        name = json.loads(await self._ask("POST", "/upload/image", data=form))["name"]
        await self._ask("GET", f"/view?type=input&filename={name}")

    async def _reading(self) -> None:
        for path in ("/queue", "/history?max_items=5", "/object_info", "/gate/me", "/system_stats", "/features"):
            await self._ask("GET", path)
        await self._ask("GET", "/view?filename=not-there.png", 404)
        await self._ask("GET", "/internal/logs")

    async def _saving(self) -> None:
        path = "/userdata/workflows%2Fsoak.json"
        await self._ask("POST", f"{path}?overwrite=true", json={"nodes": [], "number": next(self._numbers)})
        await self._ask("GET", path)

    async def _socket(self) -> None:
        """A tab that is opened and whose network is gone, and one that comes back under the same id."""
        for _ in range(2):
            socket = await self._session.ws_connect(f"{self._url}/ws?clientId={self.name}-tab")
            await socket.receive()
            transport = socket.get_extra_info("socket")
            if next(self._numbers) % 2 and transport is not None:
                socket._response.connection and socket._response.connection.transport.abort()  # type: ignore[union-attr]
            await socket.close()

    async def _bad_manners(self) -> None:
        """What breaks off, what is refused, and what guesses."""
        address = URL(self._url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(
            f"POST /prompt HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._key}\r\nContent-Length: 1000\r\n\r\nhalf".encode()
        )
        await writer.drain()
        writer.transport.abort()
        del reader
        await self._ask("POST", "/prompt", 400, data=b"{")
        refused = {"1": {"class_type": "NotPermitted", "inputs": {}}}
        await self._ask("POST", "/prompt", 403, json={"prompt": refused})
        await self._ask("GET", "/queue", 401, headers={"Authorization": "Bearer nobody"})


def picture(side: int) -> bytes:
    """A PNG of noise."""
    rows = b"".join(b"\x00" + secrets.token_bytes(side * 3) for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
