"""How much a caller may hold at once: unfinished jobs, WebSockets, connections. Checking for a free slot and taking it are one step."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from policy.principal import Principal, TenantId
from proxy.http.errors import LimitExceeded
from proxy.limits.effective_limits import EffectiveLimits, LimitStatus, digest_of
from proxy.limits.redis_scripts import CLAIM, FREE, RENEW, Call
from proxy.limits.redis_store import SharedStore, StoreUnavailable
from proxy.tasks import Tasks

CLAIM_GRACE_S: Final = 120.0
LEASE_S: Final = 60.0
_RETRY_S: Final = 5.0
_RENEW_AT_ONCE: Final = 500
_MAX_OWED: Final = 10_000

_log = logging.getLogger("comfygate.limits")


@dataclass(frozen=True, slots=True)
class _Pool:
    """Slots of one kind and one owner. words: of the limit, for people."""

    key: str
    size: int
    words: str


@dataclass(slots=True)
class _JobClaim:
    tenant: TenantId
    claimed_at_s: float
    was_seen: bool = False


class _Holdings:
    """The claims that this gate knows of: tokens by pool."""

    def __init__(self) -> None:
        self._tokens: dict[str, set[str]] = {}

    def count(self, key: str) -> int:
        return len(self._tokens.get(key, ()))

    def claim(self, pools: tuple[_Pool, ...], token: str) -> _Pool | None:
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


class SocketSlot:
    """A WebSocket's slot; also a context manager."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._is_held = True

    def release(self) -> None:
        """Gives it back; a second time does nothing."""
        if self._is_held:
            self._is_held = False
            self._release()

    def __enter__(self) -> SocketSlot:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class ConcurrencyLimits:
    """Slots in Redis while it answers, else in memory; this gate's own claims are in memory always.

    A job's slot is freed by what is seen of the job, not by the client. In Redis a claim is a lease, renewed while its gate lives.
    """

    def __init__(
        self,
        allotment: EffectiveLimits,
        store: SharedStore | None = None,
        *,
        max_connections: int = 4096,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.max_connections = max_connections
        self._allotment = allotment
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._held = _Holdings()
        self._jobs: dict[str, _JobClaim] = {}
        self._owed: dict[str, tuple[str, ...]] = {}
        self._connections = 0
        self._tasks = Tasks()
        if store is not None:
            store.on_return(self._known_here)

    async def start(self) -> None:
        if self._store is not None:
            store = self._store
            self._tasks.supervise(lambda: self._keep_leases(store), "slot leases")

    async def stop(self) -> None:
        await self._tasks.stop()

    async def claim_job(self, tenant: TenantId, prompt_id: str) -> None:
        """Takes one of the tenant's `queued_jobs`. Raises LimitExceeded when all are taken, or when the tenant may not run anything."""
        limits = self._allotment.of_tenant(tenant)
        if limits.running_jobs == 0:
            raise _full("This tenant may run no jobs.", "0 running jobs of the tenant", "queue-full", 3600.0)
        if prompt_id in self._jobs:
            return
        pools = () if limits.queued_jobs is None else (_jobs_pool(tenant, limits.queued_jobs),)
        full = await self._claim(pools, prompt_id)
        if full is not None:
            raise _full(
                f"{full.words} are in ComfyUI's queue already. Wait for one to finish, or cancel one.",
                full.words,
                "queue-full",
            )
        # Also without a limit: a reload may set one, and then what is queued counts.
        if not pools:
            self._hold_shared(_jobs_key(tenant), prompt_id)
        self._jobs.setdefault(prompt_id, _JobClaim(tenant, self._clock()))

    def free_job(self, prompt_id: str) -> None:
        """The job ended, vanished or was refused. Unknown ids are ignored."""
        claim = self._jobs.pop(prompt_id, None)
        if claim is not None:
            self._free((_jobs_key(claim.tenant),), prompt_id)

    def reconcile(self, jobs: Mapping[str, TenantId]) -> list[str]:
        """Takes ComfyUI's queue for the truth: unknown jobs get a claim, vanished ones lose theirs; the ids of those.

        jobs: all pending and running ones, by prompt id. A claim that was never seen there may be on its way: it has `CLAIM_GRACE_S`.
        """
        now_s = self._clock()
        for prompt_id, tenant in jobs.items():
            claim = self._jobs.get(prompt_id)
            if claim is None:
                claim = self._jobs[prompt_id] = _JobClaim(tenant, now_s)
                self._hold_shared(_jobs_key(tenant), prompt_id)
            claim.was_seen = True
        gone = [
            prompt_id
            for prompt_id, claim in self._jobs.items()
            if prompt_id not in jobs and (claim.was_seen or now_s - claim.claimed_at_s > CLAIM_GRACE_S)
        ]
        for prompt_id in gone:
            self.free_job(prompt_id)
        return gone

    async def claim_socket(self, principal: Principal) -> SocketSlot:
        """Takes a WebSocket slot of the tenant and of the key. Raises LimitExceeded."""
        limits = self._allotment.of_tenant(principal.tenant)
        of_key = self._allotment.of_key(principal)
        pools: list[_Pool] = []
        unbounded: list[str] = []
        of_tenant, of_caller = f"comfygate:sockets:{principal.tenant}", f"comfygate:sockets:{digest_of(principal)}"
        if limits.websockets is not None:
            words = f"{limits.websockets} WebSockets of the tenant"
            pools.append(_Pool(of_tenant, limits.websockets, words))
        else:
            unbounded.append(of_tenant)
        sizes = (limits.websockets_per_key, None if of_key is None else of_key.websockets)
        per_key = [size for size in sizes if size is not None]
        if per_key:
            words = f"{min(per_key)} WebSockets of the key"
            pools.append(_Pool(of_caller, min(per_key), words))
        else:
            unbounded.append(of_caller)
        token = secrets.token_hex(8)
        full = await self._claim(tuple(pools), token)
        if full is not None:
            error = _full(f"{full.words} are open already. Close one.", full.words, "too-many-websockets")
            error.is_of_key = full.words.endswith("of the key")
            raise error
        # Also without a limit: a reload may set one, and then what is open counts.
        for key in unbounded:
            self._hold_shared(key, token)
        keys = (*(pool.key for pool in pools), *unbounded)
        return SocketSlot(lambda: self._free(keys, token))

    def claim_connection(self) -> SocketSlot | None:
        """One of this gate's connections, None when there are as many as may be."""
        if self._connections >= self.max_connections:
            return None
        self._connections += 1
        return SocketSlot(self._free_connection)

    def jobs_of(self, tenant: TenantId) -> int:
        """Unfinished jobs of the tenant, as far as this gate knows."""
        return self._held.count(_jobs_key(tenant))

    def remaining(self, principal: Principal) -> list[LimitStatus]:
        limits = self._allotment.of_tenant(principal.tenant)
        sockets = self._held.count(f"comfygate:sockets:{principal.tenant}")
        found = []
        if limits.queued_jobs is not None:
            left = max(0, limits.queued_jobs - self.jobs_of(principal.tenant))
            found.append(LimitStatus("queued-jobs", str(limits.queued_jobs), limits.queued_jobs, left))
        if limits.websockets is not None:
            left = max(0, limits.websockets - sockets)
            found.append(LimitStatus("websockets", str(limits.websockets), limits.websockets, left))
        return found

    async def _claim(self, pools: tuple[_Pool, ...], token: str) -> _Pool | None:
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
            self._free(keys, token)
            raise
        if refused:
            return pools[refused - 1]
        self._held.hold(list(keys), token)
        return None

    def _free(self, keys: tuple[str, ...], token: str) -> None:
        self._held.free(keys, token)
        if not keys or self._store is None:
            return
        try:
            # At once in line, so that a claim made next finds the slot free.
            answer = self._store.send(Call(FREE, keys, (token,)))
        except StoreUnavailable:
            self._owe(keys, token)
            return
        answer.add_done_callback(lambda sent: None if _is_done(sent) else self._owe(keys, token))

    def _hold_shared(self, key: str, token: str) -> None:
        """A claim that is a fact already, whatever the limit."""
        self._held.hold([key], token)
        if self._store is not None and self._store.is_up:
            # Should it fail: leases are renewed when Redis is back.
            self._store.send(Call(RENEW, (key,), (_milliseconds(LEASE_S), token))).add_done_callback(_is_done)

    def _owe(self, keys: tuple[str, ...], token: str) -> None:
        """Freed here while Redis could not be told. Beyond the bound the end of the lease frees it."""
        if len(self._owed) < _MAX_OWED:
            self._owed[token] = keys

    def _known_here(self) -> Iterator[Call]:
        owed, self._owed = self._owed, {}
        for token, keys in owed.items():
            yield Call(FREE, keys, (token,))
        yield from self._held.calls()

    def _free_connection(self) -> None:
        self._connections -= 1

    async def _keep_leases(self, store: SharedStore) -> None:
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


def _jobs_key(tenant: str) -> str:
    return f"comfygate:jobs:{tenant}"


def _jobs_pool(tenant: str, size: int) -> _Pool:
    return _Pool(_jobs_key(tenant), size, f"{size} jobs of the tenant")


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _full(message: str, limit: str, reason: str, retry_after_s: float = _RETRY_S) -> LimitExceeded:
    return LimitExceeded(message, limit=limit, retry_after_s=retry_after_s, reason=reason)
