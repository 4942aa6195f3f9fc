"""Bytes to the gate and back, with nothing in between that could tidy them up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

GUARD_S = 240.0


@dataclass
class RawAnswer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


def parse_answer(raw: bytes) -> RawAnswer:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return RawAnswer(int(first.split(" ", 2)[1]), headers, body, raw)


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def send(url: str, data: bytes) -> RawAnswer:
    """Sends the bytes and reads until the gate hangs up."""
    async with asyncio.timeout(GUARD_S):
        reader, writer = await connect(url)
        try:
            writer.write(data)
            await writer.drain()
            return parse_answer(await reader.read())
        finally:
            writer.close()


def request(target: bytes | str, key: str | None, *lines: bytes | str, method: str = "GET", body: bytes = b"") -> bytes:
    """A request that ends its connection; lines: further header lines, as they are."""
    path = target.encode() if isinstance(target, str) else target
    head = [method.encode() + b" " + path + b" HTTP/1.1", b"Host: gate.example", b"Connection: close"]
    if key is not None:
        head.append(f"Authorization: Bearer {key}".encode())
    head += [line.encode() if isinstance(line, str) else line for line in lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the gate hangs up."""
    rest = b""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            rest += data
    return rest
