#!/usr/bin/env bash
# finding: httptools hands on the spaces and tabs behind a header's value as part of it; h11 and aiohttp's parser take them off
# about: httptools (llhttp), h11, aiohttp
# guess: OWS around a value is none of it (RFC 9110, 5.5), whichever parser reads it
# concerns: servers on httptools (uvicorn's default where it is installed, proxies): a key, a length in a custom field or a content type that is compared as a text is another one there
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check httptools==0.9.0 h11==0.16.0 aiohttp==3.14.5

"$python" - <<'PROGRAM'
import asyncio
from importlib.metadata import version

import h11
import httptools
from aiohttp import web

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX-Mark:  value \t \r\nConnection: close\r\n\r\n"


def by_httptools() -> bytes:
    found = {}

    class Seen:
        def on_header(self, name: bytes, value: bytes) -> None:
            found[name] = value

    httptools.HttpRequestParser(Seen()).feed_data(HEAD)
    return found[b"X-Mark"]


def by_h11() -> bytes:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(HEAD)
    return dict(connection.next_event().headers)[b"x-mark"]


async def by_aiohttp() -> bytes:
    seen: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers["X-Mark"])
        return web.Response()

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
    writer.write(HEAD)
    await reader.read()
    writer.close()
    await runner.cleanup()
    return seen[0].encode()


seen = {"httptools": by_httptools(), "h11": by_h11(), "aiohttp": asyncio.run(by_aiohttp())}
print(", ".join(f"{name} {version(name)}" for name in seen))
print("guess: all three read b'value'")
print("seen: ", ", ".join(f"{name} {value!r}" for name, value in seen.items()))
raise SystemExit(seen != {"httptools": b"value \t ", "h11": b"value", "aiohttp": b"value"})
PROGRAM
