"""What every request passes: the record of what was received, ComfyUI's cache headers, and its origin check."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlparse, urlsplit

from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_KEPT_BODY_BYTES = 1024 * 1024
MAX_KEPT_REQUESTS = 20_000
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Received:
    """One request as it arrived. `raw_path` is the request target byte for byte; `body` is cut after 1 MiB."""

    method: str
    raw_path: str
    query: list[tuple[str, str]]
    headers: CIMultiDict[str]
    body: bytes
    websocket: bool


class Recorder:
    """Reads each body before the handler does, keeps its start, and hands the handler a fresh stream of it."""

    def __init__(self, max_body_bytes: int) -> None:
        self.received: list[Received] = []
        self._max_body_bytes = max_body_bytes

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        is_websocket = request.headers.get("Upgrade", "").lower() == "websocket"
        body = bytearray()
        try:
            if request.can_read_body and not is_websocket:
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > self._max_body_bytes:
                        break
        finally:
            self._keep(request, bytes(body[:MAX_KEPT_BODY_BYTES]), is_websocket)
        if body:
            request._payload = _stream_of(bytes(body))
        return await handler(request)

    def _keep(self, request: web.Request, body: bytes, is_websocket: bool) -> None:
        if len(self.received) >= MAX_KEPT_REQUESTS:
            del self.received[: MAX_KEPT_REQUESTS // 2]
        headers = CIMultiDict(request.headers)
        query = list(request.query.items())
        self.received.append(Received(request.method, request.raw_path, query, headers, body, is_websocket))


def _stream_of(body: bytes) -> StreamReader:
    loop = asyncio.get_running_loop()
    # A limit above the size: nothing is there that could be told to pause.
    reader = StreamReader(BaseProtocol(loop), len(body) + 1, loop=loop)
    reader.feed_data(body)
    reader.feed_eof()
    return reader


@web.middleware
async def set_cache_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """By path alone: scripts and styles are not kept, whatever ends like a picture is public for a day."""
    response = await handler(request)
    name = request.path.rsplit("/", 1)[-1]
    if request.path.endswith((".js", ".css")) or (name.startswith("index") and name.endswith(".json")):
        response.headers.setdefault("Cache-Control", "no-store")
    elif request.path.lower().endswith(IMAGE_EXTENSIONS):
        if response.status == 404:
            response.headers.setdefault("Cache-Control", "public, max-age=3600")
        elif response.status in (200, 201, 202, 203, 204, 205, 206, 301, 308):
            response.headers.setdefault("Cache-Control", "public, max-age=86400")
    return response


@web.middleware
async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses foreign pages on a loopback host; on every other host nothing is checked (server.py of ComfyUI)."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return web.Response(status=403)
    origin, host = request.headers.get("Origin"), request.headers.get("Host")
    if origin is not None and host is not None and await _is_foreign(host.lower(), origin):
        return web.Response(status=403)
    if request.method == "OPTIONS":
        return web.Response()
    return await handler(request)


async def _is_foreign(host: str, origin: str) -> bool:
    """ValueError when a port is not a number: 500 upstream, and here."""
    asked, sender = urlsplit(f"//{host}"), urlparse(origin)
    is_loopback = await _is_loopback(asked.hostname)
    own: str | None = host if sender.port is not None else asked.hostname
    other: str | None = sender.netloc.lower() if asked.port is not None else sender.hostname
    return bool(is_loopback and own and other and own != other)


async def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(each[4][0]).is_loopback for each in found)
