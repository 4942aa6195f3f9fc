"""The files that tenants have fetched: so many of a tenant's at once, and each told of. A gate that fetches none loads no client for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

from policy.addresses import Address, HostPattern
from policy.functions.fetches import FetchFailed
from policy.principal import TenantId
from proxy.http.errors import LimitExceeded
from proxy.limits.keyed_semaphore import KeyedSemaphore

if TYPE_CHECKING:
    from proxy.outside.door import Place
    from proxy.outside.fetching import Fetched, Fetcher

AT_ONCE: Final = 4
"""Of one tenant, from one gate."""
WAIT_S: Final = 30.0
FETCHED: Final = "fetched"
REFUSED: Final = "refused"
"""Results, beside those of `policy.functions.fetches.Failure`."""


class Told(Protocol):
    def __call__(self, address: Address, result: str, note: str) -> None: ...


class Fetches:
    """own: see OutsideDoor."""

    def __init__(self, own: Callable[[], Iterable[Place]]) -> None:
        self._own = own
        self._places = KeyedSemaphore(AT_ONCE)
        self.fetcher: Fetcher | None = None

    @asynccontextmanager
    async def fetch(
        self, tenant: TenantId, address: Address, hosts: Sequence[HostPattern], tell: Told
    ) -> AsyncIterator[Fetched]:
        """tell: what has come of it, whatever that was. Raises FetchFailed; LimitExceeded where no place came free in time."""
        leave = await self._enter(tenant)
        result, note = REFUSED, ""
        try:
            async with self._begin().fetch(address, hosts, tenant) as fetched:
                yield fetched
            result = FETCHED
        except FetchFailed as error:
            result, note = error.failure.value, error.note or error.detail
            raise
        finally:
            leave()
            tell(address, result, note)

    async def stop(self) -> None:
        if self.fetcher is not None:
            await self.fetcher.stop()

    async def _enter(self, tenant: TenantId) -> Callable[[], None]:
        try:
            async with asyncio.timeout(WAIT_S):
                return await self._places.acquire(tenant)
        except TimeoutError:
            raise LimitExceeded(
                "Too many files are being fetched for you at once. Try again in a moment.",
                limit=f"{AT_ONCE} at once",
                retry_after_s=5.0,
                reason="too-many-fetches",
            ) from None

    def _begin(self) -> Fetcher:
        if self.fetcher is None:
            from proxy.outside.door import OutsideDoor
            from proxy.outside.fetching import Fetcher

            self.fetcher = Fetcher(OutsideDoor(self._own))
        return self.fetcher
