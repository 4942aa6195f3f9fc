"""A stand-in for a remote gate on the user's own machine, for clients that can send no credential: adds the key, changes nothing else.

Whoever reaches its port acts with the key, so it listens on loopback alone and believes no browser page but its own.
"""

from __future__ import annotations

from typing import Final

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from proxy import headers, websocket
from proxy.answers import is_upgrade
from proxy.errors import Refusal
from proxy.outbox import Outbox

HOST: Final = "127.0.0.1"
_NAMES: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_NOT_FORWARDED: Final = headers.HOP_BY_HOP | {"host", "authorization", "x-api-key", "cookie", "origin", "referer"}
_FOREIGN: Final = Refusal(
    403,
    "origin-foreign",
    "This address serves programs on this machine alone. Open the gate's own address in a browser.",
)
_UNREACHABLE: Final = Refusal(
    502,
    "gate-unreachable",
    "The gate does not answer. Check its address and the network.",
    headers=(("Retry-After", "5"),),
)
_CONNECT_LIMIT_S: Final = 10.0


class UnsafeGate(ValueError):
    """The key would travel in the clear. The text says what to do."""


class Forwarder:
    """gate: the remote gate's address; key: an API key or a token of it. Raises UnsafeGate."""

    def __init__(self, gate: str, key: str) -> None:
        self._gate = URL(gate.rstrip("/"))
        if self._gate.scheme != "https" and self._gate.host not in _NAMES:
            raise UnsafeGate(f"{gate} is not https, so anybody on the way could read the key. Give the https address.")
        self._credential = {"Authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None  # noqa: TID251 - it speaks to gates, never to ComfyUI

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(  # noqa: TID251
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_LIMIT_S),
        )

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Forwards one request or WebSocket."""
        if not _is_from_here(request):
            return _told(_FOREIGN)
        try:
            if is_upgrade(request):
                return await self._relay(request)
            return await self._forward(request)
        except (aiohttp.ClientConnectionError, TimeoutError):
            return _told(_UNREACHABLE)

    async def _forward(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self._session is not None, "start() comes first"
        async with self._session.request(
            request.method,
            self._address(request),
            headers=self._fields(request),
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=headers.to_client(answer.headers))
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    async def _relay(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self._session is not None, "start() comes first"
        try:
            upstream = await self._session.ws_connect(
                self._address(request), headers=self._credential, max_msg_size=0, compress=0
            )
        except aiohttp.WSServerHandshakeError as error:
            return web.Response(status=error.status, text=f"The gate refused the WebSocket: {error.status}.\n")
        client = await websocket.accept(request)
        await websocket.relay(request, client, upstream, Outbox())
        return client

    def _fields(self, request: web.BaseRequest) -> CIMultiDict[str]:
        dropped = _NOT_FORWARDED | headers.connection_named(request.headers)
        kept = CIMultiDict((name, value) for name, value in request.headers.items() if name.lower() not in dropped)
        kept.update(self._credential)
        return kept

    def _address(self, request: web.BaseRequest) -> URL:
        return URL(f"{self._gate}{request.raw_path}", encoded=True)


def _is_from_here(request: web.BaseRequest) -> bool:
    """SECURITY: no website may use the key, neither by a request of its page nor by a name that leads to loopback
    (test_forwarder.py::test_pages_of_other_sites_cannot_use_the_key)."""
    host = request.headers.get(hdrs.HOST, "")
    if URL(f"http://{host}").host not in _NAMES:
        return False
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and origin != f"http://{host}":
        return False
    return request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")


def _told(refusal: Refusal) -> web.Response:
    return web.Response(
        status=refusal.status, body=refusal.body(""), content_type="application/json", headers=dict(refusal.headers)
    )
