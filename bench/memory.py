"""A large upload and a large download through the gate: how much its memory grows. The promise is less than 32 MiB for 1 GiB; for assets, 16 MiB."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from bench import processes
from bench.endpoint import CHUNK
from bench.processes import Program
from policy.principal import Role

MIB: Final = 1024**2
SIZE_BYTES: Final = 1024 * MIB
MAX_GROWTH_BYTES: Final = 32 * MIB
MAX_ASSET_GROWTH_BYTES: Final = 16 * MIB
_WARM_UP_BYTES: Final = 8 * MIB
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Figures:
    """Growth is the largest resident size during the transfer, less the one before it."""

    sent_bytes: int
    received_bytes: int
    upload_growth_bytes: int
    download_growth_bytes: int


def measure(size_bytes: int) -> Figures:
    with processes.endpoint() as upstream, processes.gate(upstream.url) as gate:
        return asyncio.run(_measure(gate, size_bytes))


def measure_asset(size_bytes: int) -> int:
    """The growth by an upload of an asset, which is hashed besides."""
    with processes.endpoint() as upstream, processes.gate(upstream.url, Role.USER) as gate:
        return asyncio.run(_measure_asset(gate, size_bytes))


async def _measure_asset(gate: Program, size_bytes: int) -> int:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {gate.key}"}) as session:
        await _upload_asset(session, gate, _WARM_UP_BYTES, lambda: None)
        peak = _Peak(gate)
        peak.begin()
        asset = await _upload_asset(session, gate, size_bytes, peak.look)
        if asset["size_bytes"] != size_bytes:
            raise RuntimeError(f"not all bytes came through: {asset}")
        return peak.growth_bytes


async def _measure(gate: Program, size_bytes: int) -> Figures:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {gate.key}"}) as session:
        # Connections, buffers and code that the first transfer needs are no growth of the second.
        await _upload(session, gate, _WARM_UP_BYTES, lambda: None)
        await _download(session, gate, _WARM_UP_BYTES, lambda: None)
        up, down = _Peak(gate), _Peak(gate)
        up.begin()
        sent = await _upload(session, gate, size_bytes, up.look)
        down.begin()
        received = await _download(session, gate, size_bytes, down.look)
        return Figures(sent, received, up.growth_bytes, down.growth_bytes)


class _Peak:
    def __init__(self, gate: Program) -> None:
        self._gate = gate
        self._before = self._largest = 0

    def begin(self) -> None:
        self._before = self._largest = self._gate.rss_bytes

    def look(self) -> None:
        self._largest = max(self._largest, self._gate.rss_bytes)

    @property
    def growth_bytes(self) -> int:
        return self._largest - self._before


async def _upload(session: aiohttp.ClientSession, gate: Program, size_bytes: int, look: Callable[[], None]) -> int:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(size_bytes // len(CHUNK)):
            yield CHUNK
            look()

    async with session.post(f"{gate.url}/userdata/bench.bin", data=body()) as response:
        response.raise_for_status()
        answer = await response.json()
        return int(answer["received"])


async def _upload_asset(
    session: aiohttp.ClientSession, gate: Program, size_bytes: int, look: Callable[[], None]
) -> Any:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n'

    async def body() -> AsyncIterator[bytes]:
        yield head + _PNG
        for start in range(len(_PNG), size_bytes, len(CHUNK)):
            yield CHUNK[: size_bytes - start]
            look()
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with session.post(f"{gate.url}/api/v2/assets", data=body(), headers=headers) as response:
        response.raise_for_status()
        return await response.json()


async def _download(session: aiohttp.ClientSession, gate: Program, size_bytes: int, look: Callable[[], None]) -> int:
    received = looked = 0
    async with session.get(f"{gate.url}/view?filename=x&size={size_bytes}") as response:
        response.raise_for_status()
        async for chunk in response.content.iter_any():
            received += len(chunk)
            if received - looked >= len(CHUNK):
                looked = received
                look()
    return received


def main() -> None:
    figures = measure(SIZE_BYTES)
    is_whole = figures.sent_bytes == figures.received_bytes == SIZE_BYTES
    print(
        f"upload   of {figures.sent_bytes / MIB:.0f} MiB: the gate grew by {figures.upload_growth_bytes / MIB:.1f} MiB"
    )
    print(
        f"download of {figures.received_bytes / MIB:.0f} MiB: the gate grew by {figures.download_growth_bytes / MIB:.1f} MiB"
    )
    asset_growth_bytes = measure_asset(SIZE_BYTES)
    print(f"asset    of {SIZE_BYTES / MIB:.0f} MiB: the gate grew by {asset_growth_bytes / MIB:.1f} MiB")
    if asset_growth_bytes >= MAX_ASSET_GROWTH_BYTES:
        sys.exit(f"more than {MAX_ASSET_GROWTH_BYTES / MIB:.0f} MiB")
    if not is_whole or max(figures.upload_growth_bytes, figures.download_growth_bytes) >= MAX_GROWTH_BYTES:
        sys.exit(f"more than {MAX_GROWTH_BYTES / MIB:.0f} MiB, or not all bytes came through")


if __name__ == "__main__":
    main()
