"""The proxy that people write themselves: aiohttp on both sides, one key that is compared, and everything passed on. No rules, no limits, no records."""

from __future__ import annotations

import asyncio
import hmac
import sys
from typing import Final

import aiohttp
from aiohttp import WSMsgType, web
from multidict import CIMultiDict

KEY: Final = "naive-key-of-the-measurement"
_NOT_ON: Final = ("Host", "Connection", "Authorization", "Keep-Alive", "Upgrade", "Transfer-Encoding")
_NOT_BACK: Final = ("Connection", "Keep-Alive", "Transfer-Encoding")


class Naive:
    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self._upstream = upstream
        self._session = session

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if not hmac.compare_digest(request.headers.get("Authorization", ""), f"Bearer {KEY}"):
            return web.Response(status=401)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._relay(request)
        headers = CIMultiDict(request.headers)
        for name in _NOT_ON:
            headers.pop(name, None)
        body = request.content if request.can_read_body else None
        async with self._session.request(
            request.method, self._upstream + request.raw_path, headers=headers, data=body, allow_redirects=False
        ) as answer:
            fields = CIMultiDict(answer.headers)
            for name in _NOT_BACK:
                fields.pop(name, None)
            response = web.StreamResponse(status=answer.status, headers=fields)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    async def _relay(self, request: web.BaseRequest) -> web.StreamResponse:
        client = web.WebSocketResponse(max_msg_size=0, compress=False)
        async with self._session.ws_connect(self._upstream + request.raw_path, max_msg_size=0) as upstream:
            await client.prepare(request)
            loop = asyncio.get_running_loop()
            ways = [loop.create_task(_pass_on(client, upstream)), loop.create_task(_pass_on(upstream, client))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        await client.close()
        return client


Side = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _pass_on(source: Side, target: Side) -> None:
    async for message in source:
        if message.type is WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await target.send_bytes(message.data)


async def serve(upstream: str) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(auto_decompress=False, connector=connector) as session:
        runner = web.ServerRunner(web.Server(Naive(upstream, session).handle, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
