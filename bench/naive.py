"""The least that an aiohttp proxy does: takes a request, makes the same one, passes the answer on. No authentication, no rules, no records."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
from aiohttp import web

from bench.endpoint import listen


async def serve(upstream: str) -> None:
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            async with session.request(request.method, upstream + request.raw_path, headers=request.headers) as answer:
                headers = {name: answer.headers[name] for name in ("Content-Type", "Content-Length")}
                response = web.StreamResponse(status=answer.status, headers=headers)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                return response

        await listen(web.Server(forward, access_log=None))


def run(upstream: str) -> None:
    """On the same event loop as the gate."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(upstream))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(upstream))


if __name__ == "__main__":
    run(sys.argv[1])
