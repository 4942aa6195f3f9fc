"""`make storm`: one tenant with everything that its limits permit, at once, and what a neighbour notices of it.

Promises: the neighbour's `GET /queue`, `POST /prompt` and socket answer at the 99th percentile within five times their quiet median, nobody is
refused a connection, and the gate's memory stays within 64 MiB of what it was. Exit 1 when one is broken. The stand-in takes ComfyUI's place.

Quiet is measured right before and right after. On a busy machine quiet's own 99th percentile is the bound where it is more than five medians, and what
the machine made the loops of the gate and of the stand-in wait for a processor is added; both are told. What holds on any machine: how late the gate's loop
is without that wait (10 ms at the 99th percentile, 50 ms at most), and that no step of it takes 30 ms of CPU time.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from bench.loops import figures, machine_s, tell
from bench.processes import Program, program
from proxy.auth import key_file

SECONDS: Final = 120.0
QUIET_SECONDS: Final = 20.0
TIMES: Final = 5.0
MEMORY_BYTES: Final = 64 * 1024**2
Loops = Callable[[], Awaitable[dict[str, dict[str, Any]]]]
"""What the probes of the loops saw since they were last asked, by name."""
_CONFIG = """\
[server]
port = 0
[ops]
port = 0
[upstream]
url = "{upstream}"
directory = "{directory}"
[tenants.calm]
[tenants.wild]
[policies.default]
allow = ["@core-image", "SlowProgress"]
[limits.default]
"""
_NUMBERS: Final = ",".join(["0"] * 99_000)
# Lawful, heavy, and quick to run: a note of the client's beside a small picture.
_HEAVY: Final = (
    '{"prompt":{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":%d}},'
    '"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}},'
    '"extra_data":{"extra_pnginfo":{"note":"\\u00e4","workflow":[' + _NUMBERS + "]}}}"
)


@dataclass
class Seen:
    """What one tenant met: seconds by question, failures by their kind, answers by status."""

    times: dict[str, list[float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)

    def p99_ms(self, name: str) -> float:
        values = sorted(self.times.get(name, [0.0]))
        return values[min(len(values) - 1, int(len(values) * 0.99))] * 1000

    def median_ms(self, name: str) -> float:
        return statistics.median(self.times.get(name, [0.0])) * 1000


@dataclass
class Tenant:
    url: str
    key: str
    session: aiohttp.ClientSession
    seen: Seen = field(default_factory=Seen)

    async def call(self, name: str, method: str, path: str, **more: Any) -> bytes:
        """Asks, reads the answer, and notes how long it took."""
        began_s = time.perf_counter()
        try:
            async with self.session.request(method, self.url + path, **more) as response:
                answer = await response.read()
                self.seen.statuses[response.status] += 1
                if response.status < 400:
                    self.seen.times.setdefault(name, []).append(time.perf_counter() - began_s)
                return answer
        except (aiohttp.ClientConnectorError, ConnectionResetError):
            self.seen.failures["refused"] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.seen.failures[type(error).__name__] += 1
        return b""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def raw(self) -> socket.socket:
        """A connection of this tenant's that takes little before it must be read."""
        parts = urlsplit(self.url)
        opened = socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.connect((parts.hostname, parts.port))
        return opened


@asynccontextmanager
async def tenant(url: str, key: str) -> AsyncIterator[Tenant]:
    headers = {"Authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as session:
        yield Tenant(url, key, session)


# ---- the neighbour ----


async def calm(who: Tenant, seconds: float) -> None:
    """A person at work: looks at the queue, submits, and pings on the socket."""
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    flags = '{"type": "feature_flags", "data": {"supports_preview_metadata": true}}'
    async with who.session.ws_connect(who.url + "/ws?clientId=calm", heartbeat=None) as ws:
        turn, end_s = 0, time.monotonic() + seconds
        while time.monotonic() < end_s:
            await who.call("GET /queue", "GET", "/queue")
            if turn % 10 == 0:
                await who.call("POST /prompt", "POST", "/prompt", json={"prompt": graph, "client_id": "other"})
            if turn % 4 == 0:
                began_s = time.perf_counter()
                await ws.send_str(flags)
                while "feature_flags" not in str((await ws.receive()).data):
                    pass
                who.seen.times.setdefault("socket", []).append(time.perf_counter() - began_s)
            turn += 1
            await asyncio.sleep(0.2)


# ---- the storm ----


async def heavy_jobs(who: Tenant) -> None:
    for number in range(1_000_000):
        await who.call("submit", "POST", "/prompt", data=(_HEAVY % (number % 1000)).encode())


async def histories(who: Tenant) -> None:
    while True:
        for path in ("/history", "/api/jobs", "/queue"):
            await who.call("read", "GET", path)


async def previews(who: Tenant) -> None:
    while True:
        for query in ("preview=webp", "channel=a"):
            await who.call("preview", "GET", f"/view?filename=large.png&type=input&{query}")


async def many_parts(who: Tenant) -> None:
    body = b'{"delete":[' + b",".join([b'"x"'] * 9_000) + b"]}"
    while True:
        await who.call("delete", "POST", "/queue", data=body)
        await who.call("parts", "POST", "/queue", data=b"[" + b"0," * 200_000 + b"0]")


async def silent_readers(who: Tenant) -> None:
    """Asks for the large picture, again and again, and reads nothing."""
    opened: list[socket.socket] = []
    head = f"GET /view?filename=large.png&type=input HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {who.key}\r\n\r\n".encode()
    try:
        while True:
            with suppress(OSError):
                opened.append(who.raw())
                opened[-1].send(head)
            if len(opened) > 300:
                opened.pop(0).close()
            await asyncio.sleep(0.05)
    finally:
        for each in opened:
            each.close()


async def trickling_bodies(who: Tenant) -> None:
    """Promises bodies of 8 MiB, and sends most of each."""
    size = 8 * 1024**2
    head = (
        f"POST /prompt HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {who.key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {size}\r\n\r\n"
    ).encode()
    opened: list[asyncio.StreamWriter] = []
    parts = urlsplit(who.url)
    try:
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(parts.hostname, parts.port)
                writer.write(head + b" " * (1024**2))
                opened.append(writer)
            if len(opened) > 40:
                opened.pop(0).transport.abort()
            for each in opened:
                each.write(b" " * 4096)
            await asyncio.sleep(0.25)
    finally:
        for each in opened:
            each.transport.abort()


async def chatter(who: Tenant) -> None:
    """Floods its own sockets, and opens them anew."""
    while True:
        with suppress(aiohttp.ClientError, ConnectionError, asyncio.TimeoutError):
            async with who.session.ws_connect(who.url + "/ws") as ws:
                for _ in range(500):
                    await ws.send_str('{"type":"x","data":{}}')
        await asyncio.sleep(0.2)


STORM: Final[tuple[tuple[Callable[[Tenant], Awaitable[None]], int], ...]] = (
    (heavy_jobs, 2),
    (histories, 4),
    (previews, 6),
    (many_parts, 4),
    (silent_readers, 1),
    (trickling_bodies, 1),
    (chatter, 2),
)


async def storm(who: Tenant, seconds: float) -> None:
    tasks = [asyncio.ensure_future(work(who)) for work, times in STORM for _ in range(times)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            who.seen.failures[f"storm: {type(ended).__name__}"] += 1


def large_picture(folder: Path) -> None:
    """Many pixels, few bytes: 60 million of one colour."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8000, 7500)).save(folder / "large.png", compress_level=1)


async def measure(
    gate: Program, loops: Loops, calm_key: str, wild_key: str, seconds: float, quiet_seconds: float
) -> list[str]:
    """Prints what was seen; the broken promises."""
    async with (
        tenant(gate.url, calm_key) as quiet,
        tenant(gate.url, calm_key) as neighbour,
        tenant(gate.url, calm_key) as after,
    ):
        await calm(quiet, quiet_seconds)
        before, most = gate.rss_bytes, 0
        await loops()

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, gate.rss_bytes)
                await asyncio.sleep(0.5)

        watching = asyncio.ensure_future(watch())
        # In a process of its own: else what the neighbour is seen to wait for would be the storm's own work.
        command = (sys.executable, "-m", "bench.storm", "--wild", gate.url, wild_key, str(seconds))
        blowing = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        await calm(neighbour, seconds)
        said = (await blowing.communicate())[0].decode()
        watching.cancel()
        in_storm = await loops()
        await asyncio.sleep(2)
        await calm(after, quiet_seconds)
    told = [line for name, seen in in_storm.items() for line in tell(name, seen, promises=name == "the gate")]
    machine_ms = sum(machine_s(seen) for seen in in_storm.values()) * 1000
    broken = broken_times(quiet.seen, neighbour.seen, after.seen, machine_ms)
    broken += told
    print(f"the neighbour:  {dict(neighbour.seen.statuses)} {dict(neighbour.seen.failures)}")
    print(f"the storm:      {said.strip()}")
    print(f"memory:         {before / 1024**2:.0f} MiB quiet, {most / 1024**2:.0f} MiB at most")
    if neighbour.seen.failures:
        broken.append(f"the neighbour failed: {dict(neighbour.seen.failures)}")
    if most - before > MEMORY_BYTES:
        broken.append(f"memory grew by {(most - before) / 1024**2:.0f} MiB")
    return broken


def broken_times(quiet: Seen, storm: Seen, after: Seen, machine_ms: float) -> list[str]:
    """Prints the neighbour's times; the broken promises among them. machine_ms: that the loops were ready in the storm and had no processor."""
    print(
        f"the machine:    made the two loops wait {machine_ms:.1f} ms for a processor (p99), which no bound below holds against the gate"
    )
    broken = []
    for name in quiet.times:
        median, during = quiet.median_ms(name), storm.p99_ms(name)
        noise = max(quiet.p99_ms(name), after.p99_ms(name))
        bound = max(noise, TIMES * median) + machine_ms
        print(
            f"{name:15} quiet: median {median:6.1f} ms, p99 {quiet.p99_ms(name):6.1f} ms before, {after.p99_ms(name):6.1f} ms after"
            f"   storm: median {storm.median_ms(name):6.1f} ms, p99 {during:6.1f} ms of {bound:6.1f} ms"
        )
        if during > bound:
            broken.append(f"{name}: {during:.1f} ms is more than {bound:.1f} ms")
    return broken


def main(seconds: float = SECONDS, quiet_seconds: float = QUIET_SECONDS) -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        large_picture(folder / "comfyui" / "input" / "tenants" / "wild")
        probed, files = ("-m", "bench.probed"), {name: folder / f"{name}.json" for name in ("gate", "standin")}
        options = ("--port", "0", "--no-frontend", "--base-directory", str(folder / "comfyui"))
        with program(*probed, "standin", str(files["standin"]), *options) as comfy:
            config = folder / "config.toml"
            config.write_text(_CONFIG.format(upstream=comfy.url, directory=folder / "comfyui"), encoding="utf-8")
            keys = [key_file.create_key(config, tenant=name).text for name in ("calm", "wild")]
            with program(*probed, "gate", str(files["gate"]), str(config), speaks_on_stderr=True) as gate:

                async def loops() -> dict[str, dict[str, Any]]:
                    return {
                        "the gate": await figures(gate, files["gate"]),
                        "the stand-in": await figures(comfy, files["standin"]),
                    }

                broken = asyncio.run(measure(gate, loops, keys[0], keys[1], seconds, quiet_seconds))
    for line in broken:
        print(f"BROKEN: {line}")
    if broken:
        sys.exit(1)


async def wild(url: str, key: str, seconds: float) -> None:
    async with tenant(url, key) as who:
        await storm(who, seconds)
        print(dict(who.seen.statuses), dict(who.seen.failures))


if __name__ == "__main__" and sys.argv[1:2] == ["--wild"]:
    asyncio.run(wild(sys.argv[2], sys.argv[3], float(sys.argv[4])))
elif __name__ == "__main__":
    main(*(float(argument) for argument in sys.argv[1:]))
