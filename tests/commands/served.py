"""`comfygate serve` as a process of its own: what it says, where it listens, how it ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from yarl import URL

from proxy.commands.main import main

GUARD_S = 240.0
"""Ends a test that would hang; nothing is measured with it."""
COMMAND = f"from {main.__module__} import main; main()"


@dataclass
class Process:
    """A running `comfygate`. lines: what it has said on standard error."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    has_ended: bool = False
    listening: asyncio.Future[None] | None = None
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._grown:
                self.lines.append(line.decode())
                self._grown.notify_all()
        async with self._grown:
            self.has_ended = True
            self._grown.notify_all()

    async def said(self, words: str, times: int = 1) -> str:
        """The line with these words, the `times`th of them; waits for it."""
        async with self._grown:
            await self._grown.wait_for(lambda: self.has_ended or len(self._with(words)) >= times)
        found = self._with(words)
        assert len(found) >= times, f"ended without saying {words!r}:\n{''.join(self.lines)}"
        return found[times - 1]

    async def ended(self) -> int:
        return await self.process.wait()

    def _with(self, words: str) -> list[str]:
        return [line for line in self.lines if words in line]


@dataclass
class Served:
    """A gate that is up, and its client."""

    process: Process
    url: str
    ops_url: str
    session: aiohttp.ClientSession
    keys: dict[str, str]

    def send(self, number: int) -> None:
        self.process.process.send_signal(number)

    def bearer(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[who]}"}

    def address(self, path: str) -> URL:
        return URL(self.url + path, encoded=True)

    async def ask(self, method: str, path: str, who: str | None = "alice", **more: Any) -> tuple[int, Any]:
        """Status and JSON, None for an answer that is none."""
        headers = {**(self.bearer(who) if who else {}), **more.pop("headers", {})}
        async with self.session.request(
            method, self.address(path), headers=headers, allow_redirects=False, **more
        ) as answer:
            body = await answer.read()
            return answer.status, orjson.loads(body) if "json" in answer.headers.get("Content-Type", "") else None

    async def ops(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.ops_url + path) as answer:
            return answer.status, await answer.text()

    async def metric(self, name: str) -> float:
        """The value of a series, as it stands in the text format with its labels."""
        _, text = await self.ops("/metrics")
        return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.rpartition(" ")[0] == name)


@asynccontextmanager
async def started(*arguments: str, before: str = "") -> AsyncIterator[Process]:
    """Killed with the block if it still runs then. before: what the process does first."""
    process = Process(
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            f"{before}\n{COMMAND}",
            *arguments,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    )
    listening = asyncio.ensure_future(process.listen())
    try:
        async with asyncio.timeout(GUARD_S):
            yield process
    finally:
        if process.process.returncode is None:
            process.process.kill()
        await process.ended()
        await listening


@asynccontextmanager
async def served(config: Path, keys: dict[str, str], *, before: str = "") -> AsyncIterator[Served]:
    """`comfygate serve` from its first word until the end of the block. before: as of started()."""
    async with started("serve", "--config", str(config), before=before) as process:
        words = orjson.loads(await process.said("gate on "))["message"].replace(",", "").split()
        addresses = [word for word in words if word.startswith("http://")]
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Served(process, addresses[0], addresses[1], session, keys)
    said = "".join(process.lines)
    assert not [who for who, key in keys.items() if key.split("_", 2)[2] in said], "a key was written down"
