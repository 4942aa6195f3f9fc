"""A stand-in for a remote gate on the user's own machine, for clients that can send no credential: adds the key, changes nothing else.

Whoever reaches its port acts with the key, so it listens on loopback and believes no browser page but its own, unless its user says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from proxy.auth.credentials import without_tokens
from proxy.commands.connect_access import LOOPBACK, LocalAccess
from proxy.commands.connect_relay import relay
from proxy.commands.gate_address import read_gate_address
from proxy.config.server import ServerSettings
from proxy.http import hdrs, headers, request_body
from proxy.http.errors import Refusal
from proxy.http.request import Request
from proxy.http.responses import can_upgrade, is_upgrade
from proxy.http.server import Server, public_server

HOST: Final = "127.0.0.1"
_NOT_FORWARDED: Final = headers.HOP_BY_HOP | {
    "host",
    "authorization",
    "x-api-key",
    "cf-access-jwt-assertion",
    "cookie",
    "origin",
    "referer",
    "expect",
}
_NOT_ADDED: Final = frozenset({hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.USER_AGENT, hdrs.CONTENT_TYPE})
# RFC 9112, 3.2.2: a server reads the absolute form too. 3.2.1: the origin form.
_ABSOLUTE: Final = re.compile(r"http://([^/?#@\\]+)(.*)", re.IGNORECASE)
_ORIGIN_FORM: Final = re.compile(r"/[\x21\x22\x24-\x7e]*")
_TARGET: Final = Refusal(
    400,
    "target-malformed",
    "Send a path such as /queue as the request's target: this address forwards to one gate alone.",
)
_UPGRADE: Final = Refusal(400, "upgrade-malformed", "Open a WebSocket by a GET, as RFC 6455, 4.1 says.")
_EXPECTATION: Final = Refusal(417, "expectation-unknown", "The only expectation known here is 100-continue.")
_FOREIGN: Final = Refusal(
    403,
    "origin-foreign",
    "This address serves programs on this machine alone. Open the gate's own address in a browser, or start comfygate connect with --allow-host or "
    "--allow-origin.",
)
_UNREACHABLE: Final = Refusal(
    502,
    "gate-unreachable",
    "The gate does not answer. Check its address and the network.",
    headers=(("Retry-After", "5"),),
)
_CONNECT_LIMIT_S: Final = 10.0
_MAX_HEAD_BYTES: Final = 64 * 1024


class UnsafeGate(ValueError):
    """The key would travel in the clear, or the address is not a gate's alone. The text says what to do."""


class _Redirected(Exception):
    """The gate answered a WebSocket with another address, which must not get the key."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    fields: CIMultiDict[str]
    body: bytes = b""


class ConnectProxy:
    """gate: the remote gate's address; key: an API key or a token of it; access: who may use this one. Raises UnsafeGate."""

    def __init__(self, gate: str, key: str, access: LocalAccess | None = None) -> None:
        try:
            self._gate = read_gate_address(gate)
        except ValueError as error:
            raise UnsafeGate(str(error)) from None
        if self._gate.scheme != "https" and self._gate.host not in LOOPBACK:
            raise UnsafeGate(f"{gate} is not https, so anybody on the way could read the key. Give the https address.")
        if self._gate.user or self._gate.query_string or self._gate.fragment:
            raise UnsafeGate("Give the gate's address alone, as in https://comfy.example.com: no key, no query.")
        self._access = access or LocalAccess()
        self._credential = {"Authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None  # noqa: TID251 - it speaks to gates, never to ComfyUI

    async def start(self) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_refuse_redirect)
        self._session = aiohttp.ClientSession(  # noqa: TID251
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_LIMIT_S),
            skip_auto_headers=_NOT_ADDED,
            trace_configs=[trace],
        )

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    def server(self) -> Server:
        """What listens for the clients."""
        return public_server(self.handle, ServerSettings(max_header_bytes=_MAX_HEAD_BYTES), nullcontext)

    async def handle(self, request: Request) -> None:
        """Forwards one request or WebSocket; a client that has gone is no error."""
        with suppress(ConnectionResetError):
            answer = await self._answer(request)
            if answer is not None:
                await request.send(answer.status, answer.fields.items(), answer.body)

    async def _answer(self, request: Request) -> _Answer | None:
        """What the proxy itself says; None where the gate's answer was sent."""
        authority, target = _target_of(request)
        if target is None:
            return _told(_TARGET)
        if not self._access.admits(authority, request.headers):
            return _told(_FOREIGN)
        if (answer := self._access.preflight(request.method, request.headers)) is not None:
            return _Answer(204, CIMultiDict(answer))
        readable = self._access.response_headers(request.headers)
        if request.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
            return _told(_EXPECTATION, readable)
        try:
            address = self._address(target)
            if is_upgrade(request):
                if request.method != "GET" or not can_upgrade(request):
                    return _told(_UPGRADE, readable)
                return await self._relay(request, address)
            await self._forward(request, address, readable)
            return None
        except (aiohttp.ClientConnectionError, TimeoutError, _Redirected):
            return _told(_UNREACHABLE, readable)

    async def _forward(self, request: Request, address: URL, readable: CIMultiDict[str]) -> None:
        assert self._session is not None, "start() comes first"
        # At once: the client's body is read as fast as the gate takes it, and a refusal of the gate ends it.
        await request_body.expect_continue(request)
        async with self._session.request(
            request.method,
            address,
            headers=self._fields(request),
            data=_body_of(request) if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            head = headers.to_client(answer.headers)
            headers.merge_vary(head, readable.popall(hdrs.VARY, ()))
            head.update(readable)
            await request.begin_answer(answer.status, head.items(), answer.reason or "")
            async for chunk in answer.content.iter_any():
                await request.send_piece(chunk)
            await request.end_answer()

    async def _relay(self, request: Request, address: URL) -> _Answer | None:
        assert self._session is not None, "start() comes first"
        try:
            upstream = await self._session.ws_connect(address, headers=self._credential, max_msg_size=0, compress=0)
        except aiohttp.WSServerHandshakeError as error:
            return _Answer(
                error.status,
                CIMultiDict({hdrs.CONTENT_TYPE: "text/plain"}),
                f"The gate refused the WebSocket: {error.status}.\n".encode(),
            )
        await relay(request, upstream)
        return None

    def _fields(self, request: Request) -> CIMultiDict[str]:
        dropped = _NOT_FORWARDED | headers.connection_named(request.headers)
        kept = CIMultiDict((name, value) for name, value in request.headers.items() if name.lower() not in dropped)
        kept.update(self._credential)
        return kept

    def _address(self, target: str) -> URL:
        """The gate's address with this path and query: a client's own token is left out, as its other credentials are.

        SECURITY: whatever a client sends as a target, scheme, host and port are the gate's, since the key goes there
        (test_connect_proxy_wire.py::test_the_key_goes_to_the_gate_alone).
        """
        path, mark, query = target.partition("?")
        query = without_tokens(query)
        address = URL(
            f"{self._gate.origin()}{self._gate.raw_path.rstrip('/')}{path}{mark if query else ''}{query}", encoded=True
        )
        if address.origin() != self._gate.origin() or address.user or address.password:
            raise AssertionError("a forwarded request must go to the gate")
        return address


async def _refuse_redirect(*_: object) -> None:
    raise _Redirected


def _target_of(request: Request) -> tuple[str, str | None]:
    """Host and port as the client names them, and path with query; None for a target that is neither origin nor absolute form."""
    target, authority = request.raw_path, request.headers.get(hdrs.HOST, "")
    if request.method == hdrs.METH_CONNECT:
        return authority, None
    if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
        # RFC 9112, 3.2.2: the target's authority counts, and Host is ignored.
        authority, target = absolute[1], absolute[2] if absolute[2].startswith("/") else f"/{absolute[2]}"
    return authority, target if _ORIGIN_FORM.fullmatch(target) else None


async def _body_of(request: Request) -> AsyncIterator[bytes]:
    while chunk := await request.body.read():
        yield chunk


def _told(refusal: Refusal, readable: CIMultiDict[str] | None = None) -> _Answer:
    fields = CIMultiDict({hdrs.CONTENT_TYPE: "application/json"})
    fields.update(refusal.headers)
    fields.update(readable or {})
    fields["Connection"] = "close"  # a body, or a socket's frames, may follow that nobody reads
    return _Answer(refusal.status, fields, refusal.body(""))
