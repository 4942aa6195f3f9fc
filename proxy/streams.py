"""The WebSockets of clients: an admin's is relayed as it is."""

from __future__ import annotations

import time

from aiohttp import web

from policy.call import Opaque, UpstreamCall
from policy.caller import Request
from proxy import websocket
from proxy.exchange import Exchange
from proxy.outbox import Outbox
from proxy.sockets import Sockets
from proxy.upstream import Upstream


class EventStreams:
    def __init__(self, upstream: Upstream, sockets: Sockets) -> None:
        self._upstream = upstream
        self._sockets = sockets

    async def serve(self, request: web.BaseRequest, exchange: Exchange, incoming: Request) -> web.StreamResponse:
        """Upgrades and relays until either side closes. ComfyUI is asked first: when it is down the client gets an honest 502."""
        call = incoming.call
        client_id = call.first("clientId")
        query = () if client_id is None else (("clientId", Opaque(client_id)),)
        started_s = time.perf_counter()
        upstream = await self._upstream.connect(UpstreamCall("GET", (Opaque("ws"),), query))
        exchange.upstream_s = time.perf_counter() - started_s
        try:
            client = await websocket.accept(request)
        except BaseException:
            await upstream.close()
            raise
        exchange.status, exchange.has_started = 101, True
        outbox = Outbox()
        with self._sockets.register(incoming.caller.principal, outbox):
            await websocket.relay(request, client, upstream, outbox)
        return client
