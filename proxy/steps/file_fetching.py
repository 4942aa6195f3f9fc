"""A file of a call that stands at an address outside: it has the bounds of an upload, whatever the other side says of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from policy.addresses import Address
from policy.functions.fetches import Failure, FetchFailed
from policy.v2.effects import FetchFile
from proxy.files.quota import StorageQuota
from proxy.limits.limits import Limits
from proxy.observability.access_log import Recorder
from proxy.outside.fetches import Fetches
from proxy.steps.held import Held
from proxy.steps.permit import PermittedRequest

if TYPE_CHECKING:
    from proxy.outside.fetching import Fetched

_PAY_BYTES: Final = 1024 * 1024


class FileFetching:
    """Of one call."""

    def __init__(self, fetches: Fetches, storage: StorageQuota, limiter: Limits, recorder: Recorder) -> None:
        self._fetches = fetches
        self._storage = storage
        self._limiter = limiter
        self._recorder = recorder
        self._room = Held()

    @asynccontextmanager
    async def content(self, step: FetchFile, permitted: PermittedRequest) -> AsyncIterator[AsyncIterator[bytes]]:
        """What comes from there. It has its room in the tenant's quota until the next one, or `close`. Raises FetchFailed, Violation, LimitExceeded."""
        self.close()
        tenant = permitted.principal.tenant
        quota = permitted.compiled.limits_of(tenant).storage
        await self._storage.remaining_bytes(tenant, quota)  # nobody is asked for what there is no room for
        tell = partial(self._tell, permitted)
        async with self._fetches.fetch(tenant, step.address, step.hosts, tell) as fetched:
            room = await self._storage.remaining_bytes(tenant, quota)
            limit = permitted.compiled.upload_limits.max_bytes
            over: Exception = FetchFailed(Failure.TOO_LARGE, str(limit))
            if room is not None and room < limit:
                limit, over = room, self._storage.quota_exceeded(quota)
            if fetched.length is not None and fetched.length > limit:
                raise over
            if room is not None:
                size = limit if fetched.length is None else fetched.length
                self._room.enter_context(self._storage.reserve(tenant, size))
            yield self._counted(permitted, fetched, limit, over)

    def close(self) -> None:
        self._room.release()

    async def _counted(
        self, permitted: PermittedRequest, fetched: Fetched, limit: int, over: Exception
    ) -> AsyncIterator[bytes]:
        """Paid for as an upload is. Raises FetchFailed, Violation, LimitExceeded."""
        size = unpaid = 0
        async for piece in fetched:
            size += len(piece)
            if size > limit:
                raise over
            unpaid += len(piece)
            if unpaid >= _PAY_BYTES:
                unpaid = await self._pay(permitted, unpaid)
            yield piece
        await self._pay(permitted, unpaid)

    async def _pay(self, permitted: PermittedRequest, amount: int) -> int:
        await self._limiter.spend_bytes(permitted.principal, amount)
        return 0

    def _tell(self, permitted: PermittedRequest, address: Address, result: str, note: str) -> None:
        self._recorder.fetched(permitted.record, address.origin, result, note)
