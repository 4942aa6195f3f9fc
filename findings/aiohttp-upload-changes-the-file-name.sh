#!/usr/bin/env bash
# finding: a file that aiohttp's client uploads has another name for aiohttp's own server
# about: aiohttp (client and server), python-multipart
# guess: client and server of one library agree on what filename="my photo (1).png" means
# concerns: an upload to ComfyUI, whose server is aiohttp, is stored as my%20photo%20%281%29.png, and a workflow that says "my photo (1).png" does not find it
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check aiohttp==3.14.5 python-multipart==0.0.34

"$python" - <<'PROGRAM'
import asyncio
from importlib.metadata import version

import aiohttp
from aiohttp import web
from python_multipart.multipart import parse_options_header

NAME = "my photo (1).png"


async def main() -> tuple[list[str | None], bytes]:
    names: list[str | None] = []
    heads: list[bytes] = []

    async def upload(request: web.Request) -> web.Response:
        part = await (await request.multipart()).next()
        names.append(part.filename)
        heads.append(part.headers["Content-Disposition"].encode())
        return web.Response()

    app = web.Application()
    app.router.add_post("/upload/image", upload)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/upload/image"
    async with aiohttp.ClientSession() as session:
        for quotes in (True, False):  # True is the default
            form = aiohttp.FormData(quote_fields=quotes)
            form.add_field("image", b"x", filename=NAME)
            await session.post(url, data=form)
    await runner.cleanup()
    return names, heads[0]


(quoted, plain), head = asyncio.run(main())
other = parse_options_header(head)[1][b"filename"].decode()
print("aiohttp", aiohttp.__version__, "python-multipart", version("python-multipart"))
print(f"guess: {NAME!r}")
print(f"seen:  aiohttp's server reads {quoted!r}, python-multipart {other!r}; with quote_fields=False {plain!r}")
assert quoted == other == "my%20photo%20%281%29.png"
assert plain == NAME
PROGRAM
