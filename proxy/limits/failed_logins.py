"""What guessing costs: failed logins per client address and per key id wait longer and longer, and then are refused.

SECURITY: asked only after a credential has failed. A good one is never slowed or refused, so nobody can lock a tenant out by failing in its name
or from its address (tests/proxy/limits/test_failed_logins.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from proxy.config.limits import LoginLimitSettings
from proxy.http.client_address import block_of
from proxy.http.errors import LimitExceeded
from proxy.limits.rate_limiter import raise_calls, words_of_time
from proxy.limits.redis_scripts import SPEND, Call
from proxy.limits.sliding_window import Quota, SlidingWindows, quotas
from proxy.limits.store_unavailable import StoreUnavailable

if TYPE_CHECKING:
    from proxy.limits.redis_store import SharedStore

MAX_ADDRESSES: Final = 16_384
MAX_KEY_IDS: Final = 4_096
MAX_SLOWED: Final = 512


class FailedLogins:
    """Counts failures in tables of a fixed size: whatever the flood, the oldest entry goes."""

    def __init__(
        self,
        settings: LoginLimitSettings,
        store: SharedStore | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        max_addresses: int = MAX_ADDRESSES,
        max_key_ids: int = MAX_KEY_IDS,
        max_slowed: int = MAX_SLOWED,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._addresses = SlidingWindows(max_addresses)
        self._key_ids = SlidingWindows(max_key_ids)
        self._max_slowed = max_slowed
        self._slowed = 0
        if store is not None:
            store.on_return(self._counted_here)

    def apply(self, settings: LoginLimitSettings) -> None:
        self._settings = settings

    def __len__(self) -> int:
        """Counters held."""
        return len(self._addresses) + len(self._key_ids)

    async def failed(self, address: str, key_id: str | None = None) -> None:
        """Counts a failure and waits as long as it costs. Raises LimitExceeded: at once, also when very many already wait."""
        delay_s = await self.delay_or_refuse(address, key_id)
        if self._slowed >= self._max_slowed:
            raise LimitExceeded(
                "Too many logins fail at this moment. Try again in 5 s.",
                limit=f"{self._max_slowed} failed logins at once",
                retry_after_s=5.0,
                reason="logins-failing",
            )
        self._slowed += 1
        try:
            await self._sleep(delay_s)
        finally:
            self._slowed -= 1

    async def delay_or_refuse(self, address: str, key_id: str | None = None) -> float:
        """Counts a failure; the seconds that its answer is to wait. Raises LimitExceeded when the address or the key id has failed too often.

        key_id: of the key that was tried, None where the credential names none.
        """
        failures = 0
        parts = [(self._addresses, "address", block_of(address))]
        if key_id is not None:
            # Made up by whoever fails, so of any length and content.
            parts.append((self._key_ids, "key-id", hashlib.sha256(key_id.encode(errors="replace")).hexdigest()[:32]))
        for table, scope, owner in parts:
            wanted = quotas(self._settings.failures, "failed-logins", scope, owner)
            refused = await self._count(table, wanted)
            now_s = self._clock()
            if refused is not None:
                quota = wanted[refused]
                wait_s = table.window(quota, now_s).wait_s(quota.amount, 1, now_s)
                raise LimitExceeded(
                    f"Too many logins have failed. Try again in {words_of_time(wait_s)}.",
                    limit=quota.words.replace("-", " "),
                    retry_after_s=wait_s,
                    reason="logins-failing",
                )
            failures = max([failures, *(table.read(quota, now_s).used for quota in wanted)])
        return min(self._settings.max_delay, self._settings.delay * 2.0 ** min(failures - 1, 60))

    async def _count(self, table: SlidingWindows, wanted: Sequence[Quota]) -> int | None:
        now_s = self._clock()
        before = max(table.read(quota, now_s).used for quota in wanted)
        refused = table.spend(wanted, 1, now_s)
        if refused is not None or self._store is None or not self._store.is_up or before == 0:
            # The first failure of anybody stays here: a flood from ever new addresses fills no Redis and costs no round trips.
            return refused
        cost = 2 if before == 1 else 1
        args = [part for quota in wanted for part in (quota.amount, quota.window_s * 1000, cost)]
        keys = tuple(key for quota in wanted for key in quota.redis_keys)
        try:
            answer = await self._store.run(Call(SPEND, keys, tuple(args)))
        except StoreUnavailable:
            return None
        return self._adopt(table, wanted, [int(part) for part in answer], cost)

    def _adopt(self, table: SlidingWindows, wanted: Sequence[Quota], answer: Sequence[int], cost: int) -> int | None:
        """Takes over what the other gates have counted besides."""
        now_s = self._clock()
        for index, quota in enumerate(wanted):
            previous, current, _ = answer[1 + 3 * index : 4 + 3 * index]
            window = table.window(quota, now_s)
            window.current = max(window.current, current + (0 if answer[0] else cost))
            window.previous = max(window.previous, previous)
        return answer[0] - 1 if answer[0] else None

    def _counted_here(self) -> Iterator[Call]:
        yield from raise_calls(self._addresses, self._clock())
        yield from raise_calls(self._key_ids, self._clock())
