"""A thousand clients that follow one job: what each costs the gate in memory, and how long an event takes to reach the last of them.

Promises: less than 20 KiB for each, and at most 100 ms in the median from the first client that has an event to the last. The stand-in takes
ComfyUI's place; the clients are in this process, so that what reading costs them is in the figure.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from bench.processes import Program, program
from proxy.auth import key_file

STREAMS: Final = 1000
SECONDS: Final = 6.0
MAX_BYTES: Final = 20 * 1024
MAX_SPREAD_S: Final = 0.1
_WARM_UP: Final = 100
_AT_ONCE: Final = 50
_CONFIG: Final = """\
[server]
port = 0
[ops]
port = 0
[upstream]
url = "{upstream}"
[tenants.bench]
[policies.default]
allow = ["@core-image", "SlowProgress"]
[limits.default]
requests = "1000000/second"
prompts = "1000000/second"
polls = "1000000/second"
websockets = 20000
"""
_EVENT: Final = re.compile(rb"event: (\w+)\ndata: ([^\n]*)\n\n")


@dataclass(frozen=True)
class Figures:
    """spreads_s: of each event that all clients have, from the first client to the last. kinds: how many of each there were."""

    streams: int
    bytes_each: float
    spreads_s: list[float]
    kinds: Mapping[str, int]


@dataclass
class Arrivals:
    """By event, when each client had it. The previews between them are all alike, and not told apart."""

    times: dict[tuple[bytes, bytes], list[float]] = field(default_factory=dict)

    def of_all(self, streams: int) -> dict[tuple[bytes, bytes], list[float]]:
        return {event: times for event, times in self.times.items() if len(times) == streams}


class Follower(asyncio.Protocol):
    """As little of a client as it takes."""

    def __init__(self, head: bytes, arrivals: Arrivals) -> None:
        self._head = head
        self._arrivals = arrivals
        self._unread = b""
        self.has_begun = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        now_s = asyncio.get_running_loop().time()
        data, end = self._unread + data, 0
        for found in _EVENT.finditer(data):
            end = found.end()
            self._arrivals.times.setdefault((found[1], found[2]), []).append(now_s)
            self.has_begun.set()
        self._unread = data[end:]


@contextmanager
def _programs() -> Iterator[Program]:
    """A gate before a stand-in."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "comfyui"
        with program("-m", "standin", "--no-frontend", "--port", "0", "--base-directory", str(base)) as comfy:
            config = Path(folder) / "config.toml"
            config.write_text(_CONFIG.format(upstream=comfy.url), encoding="utf-8")
            key = key_file.create_key(config, tenant="bench").text
            command = ("-c", "from proxy.commands.main import main; main()", "serve", "--config", str(config))
            with program(*command, key=key, speaks_on_stderr=True) as gate:
                yield gate


def measure(streams: int, seconds: float) -> Figures:
    with _programs() as gate:
        return asyncio.run(_measure(gate, streams, seconds))


async def _measure(gate: Program, streams: int, seconds: float) -> Figures:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {gate.key}"}) as session:
        # Code and buffers that the first stream needs are not what the next one costs.
        async with _job(session, gate) as warm_up, _following(gate, warm_up, min(_WARM_UP, streams), Arrivals()):
            await asyncio.sleep(1.0)
        async with _job(session, gate) as job:
            await asyncio.sleep(1.0)
            before, arrivals = gate.rss_bytes, Arrivals()
            async with _following(gate, job, streams, arrivals):
                arrivals.times.clear()
                await asyncio.sleep(seconds)
                grown = gate.rss_bytes - before
    seen = arrivals.of_all(streams)
    kinds = Counter(kind.decode() for kind, _ in seen)
    return Figures(streams, grown / streams, [max(times) - min(times) for times in seen.values()], kinds)


@asynccontextmanager
async def _job(session: aiohttp.ClientSession, gate: Program) -> AsyncIterator[str]:
    image = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 7}}
    slow = {"class_type": "SlowProgress", "inputs": {"image": ["1", 0], "seconds": 1000.0, "steps": 10_000}}
    last = {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}
    async with session.post(f"{gate.url}/api/v2/jobs", json={"workflow": {"1": image, "2": slow, "3": last}}) as answer:
        answer.raise_for_status()
        job: dict[str, Any] = await answer.json()
    try:
        yield str(job["id"])
    finally:
        async with session.post(gate.url + job["urls"]["cancel"]) as answer:
            answer.raise_for_status()


@asynccontextmanager
async def _following(gate: Program, job: str, streams: int, arrivals: Arrivals) -> AsyncIterator[None]:
    address = urlsplit(gate.url)
    head = f"GET /api/v2/jobs/{job}/events HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {gate.key}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    followers: list[Follower] = []
    while len(followers) < streams:
        opened = [
            loop.create_connection(lambda: Follower(head, arrivals), str(address.hostname), address.port or 0)
            for _ in range(min(_AT_ONCE, streams - len(followers)))
        ]
        batch = [follower for _, follower in await asyncio.gather(*opened)]
        await asyncio.gather(*(follower.has_begun.wait() for follower in batch))
        followers += batch
    try:
        yield
    finally:
        for follower in followers:
            if follower.transport is not None:
                follower.transport.abort()


def main() -> None:
    figures = measure(STREAMS, SECONDS)
    spreads_ms = sorted(spread * 1000 for spread in figures.spreads_s)
    median_ms = statistics.median(spreads_ms)
    print(f"{figures.streams} streams on one job: {figures.bytes_each / 1024:.1f} KiB of the gate's memory each")
    print(
        f"{len(spreads_ms)} events ({', '.join(f'{count} {kind}' for kind, count in sorted(figures.kinds.items()))}): "
        f"{median_ms:.1f} ms from the first client to the last in the median, {spreads_ms[-1]:.1f} ms at most"
    )
    if figures.bytes_each >= MAX_BYTES or median_ms > MAX_SPREAD_S * 1000:
        sys.exit(f"more than {MAX_BYTES // 1024} KiB each, or more than {MAX_SPREAD_S * 1000:.0f} ms")


if __name__ == "__main__":
    main()
