"""A client of the API that follows jobs, as tests need it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from tests.harness import Running
from tests.proxy.upstreams import GUARD_S

TERMINAL = {"succeeded", "failed", "canceled"}
Told = tuple[str, dict[str, Any]]


def image(color: int = 7) -> dict[str, Any]:
    return {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": color}}


def saving(prefix: str = "made", color: int = 7) -> dict[str, Any]:
    return {
        "1": image(color),
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def slow(seconds: float = GUARD_S, steps: int = 2400, prefix: str = "made") -> dict[str, Any]:
    """A job that saves a picture, runs a while, and shows another one."""
    return saving(prefix) | {
        "3": {"class_type": "SlowProgress", "inputs": {"image": ["1", 0], "seconds": seconds, "steps": steps}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }


async def submit(gate: Running, workflow: dict[str, Any], who: str = "alice", **more: Any) -> str:
    job = await gate.json("POST", "/api/v2/jobs", who, json={"workflow": workflow, **more})
    return str(job["id"])


def events_of(job: str) -> str:
    return f"/api/v2/jobs/{job}/events"


class Stream:
    """What one client is told. seen: all of it, in order; comments are counted."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.seen: list[Told] = []
        self.comments = 0

    async def next(self) -> Told | None:
        """The next event, None at the end."""
        lines: list[str] = []
        async with asyncio.timeout(GUARD_S):
            while line := await self.response.content.readline():
                text = line.decode().removesuffix("\n")
                if text.startswith(":"):
                    self.comments += 1
                elif text:
                    lines.append(text)
                elif lines:
                    name, data = lines
                    told = name.removeprefix("event: "), orjson.loads(data.removeprefix("data: "))
                    self.seen.append(told)
                    return told
        return None

    async def until(self, kind: str, **data: Any) -> dict[str, Any]:
        """The data of the next event of this kind that has these values in it."""
        while (told := await self.next()) is not None:
            if told[0] == kind and all(told[1].get(name) == value for name, value in data.items()):
                return told[1]
        raise AssertionError(f"ended without {kind} {data}: {self.seen}")

    async def rest(self) -> list[Told]:
        """All that was told, up to the end."""
        while await self.next() is not None:
            pass
        return self.seen

    async def comment(self) -> None:
        """The next sign of life; no event comes before it."""
        async with asyncio.timeout(GUARD_S):
            while not (line := await self.response.content.readline()).startswith(b":"):
                assert line.strip() == b"", line

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for name, data in self.seen if name == kind]


@asynccontextmanager
async def following(gate: Running, job: str, who: str = "alice") -> AsyncIterator[Stream]:
    async with gate.call("GET", events_of(job), who) as response:
        assert response.status == 200, await response.text()
        yield Stream(response)


async def finished(gate: Running, job: str, who: str = "alice") -> dict[str, Any]:
    """The job, when it has ended."""
    async with following(gate, job, who) as stream:
        await stream.rest()
    found: dict[str, Any] = await gate.json("GET", f"/api/v2/jobs/{job}", who)
    return found


async def cancel(gate: Running, job: str, who: str = "alice") -> dict[str, Any]:
    found: dict[str, Any] = await gate.json("POST", f"/api/v2/jobs/{job}/cancel", who)
    return found
