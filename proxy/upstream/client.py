"""The only door to ComfyUI: sends nothing but an UpstreamCall, and translates what the HTTP client raises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp import ClientTimeout, hdrs
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from policy.call import UpstreamCall, UpstreamReply
from policy.document import read_upstream_json
from proxy.http.errors import ReplyTooLarge, UpstreamTimeout, UpstreamUnavailable
from proxy.http.responses import SMALL_BYTES

MAX_REPLY_BYTES: Final = 256 * 1024**2
"""Bound of an answer that a rule reads; a long history with large graphs is the largest."""

MAX_EVENT_BYTES: Final = 64 * 1024**2
"""Bound of one event: a picture of 16 megapixels without compression. Nodes double texts without end."""

LARGE_BYTES: Final = 256 * 1024
"""JSON of more than that is read in a thread."""
PING_INTERVAL_S: Final = 30.0
HANDSHAKE_LIMIT_S: Final = 30.0
"""How long ComfyUI may take to accept a WebSocket, also while it blocks on /object_info."""
_IDLE_CONNECTION_S: Final = (
    15.0  # shorter than ComfyUI's own keep-alive, so that a POST never meets a socket it just closed
)
_SKIPPED = (hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE)


@dataclass(slots=True)
class UpstreamStream:
    """An answer whose body is still to come."""

    status: int
    headers: CIMultiDictProxy[str]
    response: aiohttp.ClientResponse

    @property
    def is_small(self) -> bool:
        """Whether the whole body is known to be of a size that is better sent at once than streamed."""
        length = self.headers.get(hdrs.CONTENT_LENGTH, "")
        has_body = self.response.method != hdrs.METH_HEAD and self.status not in (204, 304)
        return has_body and self.status >= 200 and length.isdigit() and int(length) <= SMALL_BYTES

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self.response.content.iter_any():
                yield chunk
        except TimeoutError as error:
            raise UpstreamTimeout from error
        except aiohttp.ClientError as error:
            raise UpstreamUnavailable("ComfyUI broke off its answer.") from error

    async def body(self, max_bytes: int) -> bytes:
        """The bounded body. Raises ReplyTooLarge when it is larger."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > max_bytes:
                raise ReplyTooLarge("ComfyUI's answer is too large to be filtered.")
        return bytes(body)

    async def whole(self, max_bytes: int = MAX_REPLY_BYTES) -> UpstreamReply:
        """The bounded answer, its JSON parsed when it is JSON."""
        body = await self.body(max_bytes)
        is_large = len(body) > LARGE_BYTES
        value = await asyncio.to_thread(read_upstream_json, body) if is_large else read_upstream_json(body)
        return UpstreamReply(self.status, value, body, self.headers.get(hdrs.CONTENT_TYPE, "text/plain"))


class Upstream:
    """One ComfyUI."""

    def __init__(self, url: str, connect_timeout_s: float) -> None:
        self.url = URL(url)
        self._connect_timeout_s = connect_timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_CONNECTION_S, ttl_dns_cache=60)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_SKIPPED,
            timeout=ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            read_bufsize=256 * 1024,
        )

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def send(
        self,
        call: UpstreamCall,
        headers: CIMultiDict[str] | None = None,
        body: AsyncIterable[bytes] | bytes | None = None,
        *,
        time_limit_s: float,
    ) -> AsyncIterator[UpstreamStream]:
        """Sends the call. time_limit_s: how long ComfyUI may be silent once it has the whole call.

        Raises UpstreamUnavailable, UpstreamTimeout, or what the client's body broke with.
        """
        response = await self._open(call, CIMultiDict() if headers is None else headers, body, time_limit_s)
        try:
            if response.status == 101:
                # SECURITY: nobody asked for another protocol; passed on, it would open a tunnel past every rule. test_upstream.py
                raise UpstreamUnavailable("ComfyUI switched protocols unasked.")
            yield UpstreamStream(response.status, response.headers, response)
        except BaseException:
            response.close()
            raise
        else:
            response.release()

    async def _open(self, call: UpstreamCall, headers: CIMultiDict[str], body: Any, time_limit_s: float) -> Any:
        assert self._session is not None, "start() comes first"
        if call.content_type is not None:
            headers[hdrs.CONTENT_TYPE] = call.content_type
        try:
            async with asyncio.timeout(None) as stall:
                return await self._session.request(
                    call.method,
                    self._address(call),
                    headers=headers,
                    data=body if isinstance(body, bytes | None) else _timed(body, stall, time_limit_s),
                    allow_redirects=False,
                    # sock_read runs from the end of the body on, and while a client does not read its answer it stands still.
                    timeout=ClientTimeout(total=None, sock_connect=self._connect_timeout_s, sock_read=time_limit_s),
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise UpstreamUnavailable from error
        except TimeoutError as error:
            raise _body_error(body) or UpstreamTimeout() from error
        except (aiohttp.ClientError, OSError) as error:
            raise _body_error(body) or UpstreamUnavailable() from error

    async def ask(self, call: UpstreamCall, *, time_limit_s: float, max_bytes: int = MAX_REPLY_BYTES) -> UpstreamReply:
        """A call with a small body and a bounded answer, as multi-call rules make it."""
        headers = CIMultiDict({hdrs.ACCEPT_ENCODING: "identity"})
        body = call.body if isinstance(call.body, bytes) else None
        try:
            async with (
                asyncio.timeout(time_limit_s),
                self.send(call, headers, body, time_limit_s=time_limit_s) as stream,
            ):
                return await stream.whole(max_bytes)
        except TimeoutError as error:
            raise UpstreamTimeout from error

    async def connect(
        self, call: UpstreamCall, headers: Mapping[str, str] | None = None
    ) -> aiohttp.ClientWebSocketResponse:
        """Opens a WebSocket. No compression: it costs fifteen times the CPU on previews. ComfyUI sends whole pictures, so messages may be large."""
        assert self._session is not None, "start() comes first"
        try:
            async with asyncio.timeout(HANDSHAKE_LIMIT_S):
                return await self._session.ws_connect(
                    self._address(call),
                    max_msg_size=MAX_EVENT_BYTES,
                    heartbeat=PING_INTERVAL_S,
                    compress=0,
                    headers=headers,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise UpstreamUnavailable from error
        except TimeoutError as error:
            raise UpstreamTimeout from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamUnavailable from error

    def _address(self, call: UpstreamCall) -> URL:
        # Encoded: the client must not normalise what was judged.
        return URL(
            f"{self.url}{call.target}" if not str(self.url).endswith("/") else f"{self.url}{call.target[1:]}",
            encoded=True,
        )


async def _timed(body: AsyncIterable[bytes], stall: asyncio.Timeout, time_limit_s: float) -> AsyncIterator[bytes]:
    """The body; while ComfyUI does not take what was read of it, ComfyUI's time runs, and while the client sends nothing it does not."""
    clock = asyncio.get_running_loop().time
    async for chunk in body:
        with suppress(RuntimeError):  # ComfyUI has answered before it had the whole body: nobody waits any more
            stall.reschedule(clock() + time_limit_s)
        yield chunk
        with suppress(RuntimeError):
            stall.reschedule(None)


def _body_error(body: object) -> Exception | None:
    return getattr(body, "error", None)
