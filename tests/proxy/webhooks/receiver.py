"""An endpoint as a receiver has it: it verifies what comes with the libraries of Standard Webhooks, and answers as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import standardwebhooks
import svix
from aiohttp import web

from proxy.webhooks.endpoint import new_secret
from tests.proxy.upstreams import GUARD_S, serving


@dataclass(frozen=True)
class Received:
    id: str
    signatures: tuple[str, ...]
    at_s: int
    body: bytes
    headers: dict[str, str]
    path: str

    @property
    def event(self) -> Any:
        return orjson.loads(self.body)

    @property
    def job(self) -> str:
        return str(self.event["data"]["id"])


@dataclass
class Receiver:
    """secrets: by path; what is not signed with the path's is wrong. answer: to each, 204 at first. delay_s: until it is given."""

    secrets: dict[str, str] = field(default_factory=dict)
    answer: Callable[[Received], web.Response] = lambda received: web.Response(status=204)
    delay_s: Callable[[], float] = lambda: 0.0
    got: list[Received] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self.held.set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): text for name, text in request.headers.items()}
        received = Received(
            headers["webhook-id"],
            tuple(headers["webhook-signature"].split(" ")),
            int(headers["webhook-timestamp"]),
            body,
            headers,
            request.path,
        )
        self._verify(received)
        self.got.append(received)
        self.came.set()
        await self.held.wait()
        await asyncio.sleep(self.delay_s())
        return self.answer(received)

    def _verify(self, received: Received) -> None:
        for library in (standardwebhooks, svix):
            try:
                library.Webhook(self.secrets[received.path]).verify(received.body, received.headers)
            except Exception as error:
                self.wrong.append(f"{library.__name__}: {error!r}")

    async def until(self, is_enough: Callable[[list[Received]], bool]) -> list[Received]:
        async with asyncio.timeout(GUARD_S):
            while not is_enough(self.got):
                self.came.clear()
                await self.came.wait()
        assert not self.wrong
        return self.got

    def endpoint(self, folder: Path, name: str, tenant: str = "alice", **more: str) -> str:
        """Its table of the configuration, with a new secret in a file. more: as TOML writes it."""
        secret = self.secrets[f"/{name}"] = new_secret()
        (folder / f"{name}.secret").write_text(f"{secret}\n", "utf-8")
        fields = {
            "name": f'"{name}"',
            "tenant": f'"{tenant}"',
            "url": f'"{self.url}/{name}"',
            "secret_file": f'"{name}.secret"',
            "allow_private": "true",
            **more,
        }
        return "[[webhooks]]\n" + "".join(f"{key} = {text}\n" for key, text in fields.items())


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with serving(receiver) as url:
        receiver.url = url
        yield receiver
