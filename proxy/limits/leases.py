"""Who holds which slots: known to this gate, and to all that share its Redis, where each is a lease that its gate renews while it lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxy.limits.redis_scripts import CLAIM, FREE, RENEW, Call
from proxy.limits.store_unavailable import StoreUnavailable
from proxy.tasks import Tasks

if TYPE_CHECKING:
    from proxy.limits.redis_store import SharedStore

LEASE_S: Final = 60.0
_RENEW_AT_ONCE: Final = 500
_MAX_UNTOLD: Final = 10_000

_log = logging.getLogger("comfygate.limits")


@dataclass(frozen=True, slots=True)
class Pool:
    """Slots of one kind and one owner. words: of the limit, for people."""

    key: str
    size: int
    words: str


class _Holdings:
    """The claims that this gate knows of: tokens by pool."""

    def __init__(self) -> None:
        self._tokens: dict[str, set[str]] = {}

    def count(self, key: str) -> int:
        return len(self._tokens.get(key, ()))

    def claim(self, pools: tuple[Pool, ...], token: str) -> Pool | None:
        """Takes a slot of every pool, or of none: then the first that is full. A token that holds its slot keeps it."""
        for pool in pools:
            held = self._tokens.get(pool.key, ())
            if token not in held and len(held) >= pool.size:
                return pool
        self.hold([pool.key for pool in pools], token)
        return None

    def hold(self, keys: list[str], token: str) -> None:
        for key in keys:
            self._tokens.setdefault(key, set()).add(token)

    def free(self, keys: tuple[str, ...], token: str) -> None:
        for key in keys:
            held = self._tokens.get(key)
            if held is not None:
                held.discard(token)
                if not held:
                    del self._tokens[key]

    def calls(self) -> Iterator[Call]:
        """What renews every claim in Redis."""
        for key, held in list(self._tokens.items()):
            tokens = sorted(held)
            for start in range(0, len(tokens), _RENEW_AT_ONCE):
                yield Call(RENEW, (key,), (_milliseconds(LEASE_S), *tokens[start : start + _RENEW_AT_ONCE]))


class Leases:
    """Slots in Redis while it answers, else in memory; this gate's own claims are in memory always."""

    def __init__(
        self, store: SharedStore | None = None, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._store = store
        self._sleep = sleep
        self._held = _Holdings()
        self._untold: dict[str, tuple[str, ...]] = {}
        """What was freed here while Redis could not be told. Beyond the bound a lease ends by itself."""
        self._tasks = Tasks()
        if store is not None:
            store.on_return(self._known_here)

    async def start(self) -> None:
        if self._store is not None:
            store = self._store
            self._tasks.supervise(lambda: self._renew(store), "slot leases")

    async def stop(self) -> None:
        await self._tasks.stop()

    def count(self, key: str) -> int:
        """How many slots of a pool are held, as far as this gate knows."""
        return self._held.count(key)

    async def claim(self, pools: tuple[Pool, ...], token: str) -> Pool | None:
        """Takes a slot of every pool in one step, or of none: then the first that is full."""
        if not pools:
            return None
        if self._store is None or not self._store.is_up:
            return self._held.claim(pools, token)
        keys = tuple(pool.key for pool in pools)
        call = Call(CLAIM, keys, (token, _milliseconds(LEASE_S), *(pool.size for pool in pools)))
        try:
            refused = int(await self._store.run(call))
        except StoreUnavailable:
            return self._held.claim(pools, token)
        except asyncio.CancelledError:
            # The client went away while Redis may have granted the slot.
            self.free(keys, token)
            raise
        if refused:
            return pools[refused - 1]
        self._held.hold(list(keys), token)
        return None

    def free(self, keys: tuple[str, ...], token: str) -> None:
        self._held.free(keys, token)
        if not keys or self._store is None:
            return
        try:
            # At once in line, so that a claim made next finds the slot free.
            answer = self._store.send(Call(FREE, keys, (token,)))
        except StoreUnavailable:
            self._remember_untold(keys, token)
            return
        answer.add_done_callback(lambda sent: None if _is_done(sent) else self._remember_untold(keys, token))

    def hold(self, key: str, token: str) -> None:
        """A claim that is a fact already, whatever the limit."""
        self._held.hold([key], token)
        if self._store is not None and self._store.is_up:
            # Should it fail: leases are renewed when Redis is back.
            self._store.send(Call(RENEW, (key,), (_milliseconds(LEASE_S), token))).add_done_callback(_is_done)

    def _remember_untold(self, keys: tuple[str, ...], token: str) -> None:
        if len(self._untold) < _MAX_UNTOLD:
            self._untold[token] = keys

    def _known_here(self) -> Iterator[Call]:
        untold, self._untold = self._untold, {}
        for token, keys in untold.items():
            yield Call(FREE, keys, (token,))
        yield from self._held.calls()

    async def _renew(self, store: SharedStore) -> None:
        while True:
            await self._sleep(LEASE_S / 3)
            if not store.is_up:
                continue
            try:
                await store.run_all(self._held.calls())
            except StoreUnavailable:
                _log.debug("leases are renewed when Redis is back")


def _is_done(sent: asyncio.Future[object]) -> bool:
    return not sent.cancelled() and sent.exception() is None


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
