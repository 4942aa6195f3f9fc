"""One fetch of a JWK set: a 200 of a bounded size, or nothing."""

from __future__ import annotations

import zlib
from typing import Final

import aiohttp

MAX_BODY_BYTES: Final = 1024 * 1024
_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # of zlib: with 16 added it reads gzip's frame


async def download(url: str) -> bytes:
    """The body, at most MAX_BODY_BYTES. Raises ValueError for any answer but a 200 of that size."""
    # A session for each fetch: there is one an hour. aiohttp rounds its own time limits up, so asyncio holds ours.
    async with (
        aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=1, force_close=True),
            auto_decompress=False,
        ) as session,
        session.get(
            url,
            allow_redirects=False,
            headers={
                "Accept": "application/json, application/jwk-set+json",
                "Accept-Encoding": "identity",
                "User-Agent": "comfygate",
            },
        ) as response,
    ):
        if response.status != 200:
            # SECURITY: a redirect is not followed, it could lead to http or into the private network.
            raise ValueError(f"the answer is {response.status}, not 200")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise ValueError(f"the answer has more than {MAX_BODY_BYTES} bytes")
        return _unpacked(bytes(body), response.headers.get("Content-Encoding", ""))


def _unpacked(body: bytes, encoding: str) -> bytes:
    """A body without its content coding (RFC 9110, 8.4.1): some servers compress whatever they are asked. Bounded. Raises ValueError."""
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in _WINDOW_BITS:
        raise ValueError("the answer has a Content-Encoding other than gzip or deflate")
    unpacker = zlib.decompressobj(_WINDOW_BITS[coding])
    try:
        unpacked = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise ValueError("the answer is not what its Content-Encoding says") from None
    if len(unpacked) > MAX_BODY_BYTES:
        raise ValueError(f"the answer has more than {MAX_BODY_BYTES} bytes")
    if not unpacker.eof:
        raise ValueError("the answer ends too soon")
    return unpacked
