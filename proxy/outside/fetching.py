"""Fetches a file that stands at an address outside, for a tenant that named it. Each address on the way, redirects included, is judged before it is asked,
and each connection when it is made (proxy/outside/door.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import aiohttp

from policy.addresses import Address, AddressRefused, HostPattern, follow
from policy.functions.fetches import MAX_REDIRECTS, Failure, FetchFailed
from proxy.outside.door import OutsideDoor, translated
from proxy.outside.target import Target, Unreachable

TIME_LIMIT_S: Final = 60.0
"""Of one file, from the first look-up to its last byte."""
BUFFER_BYTES: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_FIELDS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "comfygate"}
"""All that the other side learns; nothing of who asks, and no credential."""


class Fetched:
    """What comes, once. length: as the other side says, which bounds what can come of this answer; None where it does not say."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.length = response.content_length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises FetchFailed."""
        is_empty = True
        try:
            while True:
                with translated():
                    piece = await self._response.content.readany()
                if not piece:
                    break
                is_empty = False
                yield piece
        except Unreachable as error:
            raise FetchFailed(Failure.BROKEN_OFF, note=str(error)) from None
        if is_empty:
            raise FetchFailed(Failure.EMPTY)


class Fetcher:
    """allows_private: addresses of this machine and of private networks, for tests alone."""

    def __init__(self, door: OutsideDoor, *, allows_private: bool = False, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._door = door
        self._allows_private = allows_private
        self._time_limit_s = time_limit_s

    @asynccontextmanager
    async def fetch(self, address: Address, hosts: Sequence[HostPattern], tenant: str = "") -> AsyncIterator[Fetched]:
        """The file at an address, as long as it may take. hosts: that it may lead on to. tenant: see Target. Raises FetchFailed; so does whoever takes too
        long with it.
        """
        response: aiohttp.ClientResponse | None = None
        limit = asyncio.timeout(self._time_limit_s)
        try:
            async with limit, AsyncExitStack() as stack:
                response = await self._follow(stack, address, hosts, tenant)
                yield Fetched(response)
        except TimeoutError:
            if not limit.expired():
                raise
            if response is None:
                raise FetchFailed(Failure.UNREACHABLE, note=f"no answer within {self._time_limit_s:g} s") from None
            raise FetchFailed(Failure.TOO_SLOW, f"{self._time_limit_s:g}") from None

    async def stop(self) -> None:
        await self._door.stop()

    async def _follow(
        self, stack: AsyncExitStack, address: Address, hosts: Sequence[HostPattern], tenant: str
    ) -> aiohttp.ClientResponse:
        for _ in range(MAX_REDIRECTS + 1):
            hop = AsyncExitStack()
            async with hop:
                response = await self._ask(hop, address, tenant)
                if response.status not in _REDIRECTS:
                    stack.push_async_exit(hop.pop_all())
                    return _checked(response)
                location = response.headers.get("Location", "")
            try:
                address = follow(address, location, hosts)
            except AddressRefused as error:
                raise FetchFailed(Failure.REDIRECT, str(error)) from None
        raise FetchFailed(Failure.REDIRECT, f"more than {MAX_REDIRECTS} times")

    async def _ask(self, stack: AsyncExitStack, address: Address, tenant: str) -> aiohttp.ClientResponse:
        target = Target(address.url, frozenset({address.port}), self._allows_private, tenant)
        try:
            return await self._door.ask(stack, "GET", target, _FIELDS, buffer_bytes=BUFFER_BYTES)
        except Unreachable as error:
            raise FetchFailed(Failure.UNREACHABLE, note=str(error)) from None


def _checked(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    """Raises FetchFailed."""
    if response.status != 200:
        raise FetchFailed(Failure.STATUS, str(response.status))
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise FetchFailed(Failure.ENCODED)
    return response
