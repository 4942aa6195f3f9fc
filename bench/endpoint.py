"""An upstream that costs little: swallows what is posted, gives as many bytes as are asked for. A process of its own."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from aiohttp import web

CHUNK: Final = bytes(1024 * 1024)
_TAIL_BYTES: Final = 1024
_SUBFOLDER: Final = re.compile(rb'name="subfolder"\r\n\r\n(.*)\r\n')
_ANSWERS: Final = {
    "/history": b"{}",
    "/queue": b'{"queue_running": [], "queue_pending": []}',
    "/api/jobs": b'{"jobs": []}',
    "/object_info": b"{}",
    "/features": b'{"supports_preview_metadata": true, "max_upload_size": 104857600}',
}


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    if request.headers.get("Upgrade", "").lower() == "websocket":
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket
    if request.method == "POST":
        received, last = 0, b""
        async for chunk in request.content.iter_any():
            received += len(chunk)
            last = (last + chunk)[-_TAIL_BYTES:]
        folder = _SUBFOLDER.search(last)
        stored = {} if folder is None else {"name": "x.png", "subfolder": folder[1].decode(), "type": "input"}
        return web.json_response({"received": received, **stored})
    if request.path == "/view":
        return await give(request, int(request.query.get("size", 0)))
    return web.Response(body=_ANSWERS.get(request.path, b"{}"), content_type="application/json")


async def give(request: web.BaseRequest, size: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(size), "Content-Type": "image/png"})
    await response.prepare(request)
    for begin in range(0, size, len(CHUNK)):
        await response.write(CHUNK[: size - begin])
    return response


async def listen(server: web.Server) -> None:
    """Listens on a free port, says which, and serves until the process is ended."""
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.get_running_loop().create_future()


async def serve() -> None:
    await listen(web.Server(answer, access_log=None))


if __name__ == "__main__":
    asyncio.run(serve())
