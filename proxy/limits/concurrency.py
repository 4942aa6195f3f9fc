"""How much a caller may hold at once: unfinished jobs, WebSockets, connections. Checking for a free slot and taking it are one step."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from policy.principal import Principal, TenantId
from proxy.http.errors import LimitExceeded
from proxy.limits.effective_limits import EffectiveLimits, LimitStatus, digest_of
from proxy.limits.leases import Leases, Pool

if TYPE_CHECKING:
    from proxy.limits.redis_store import SharedStore

CLAIM_GRACE_S: Final = 120.0
_RETRY_S: Final = 5.0


@dataclass(slots=True)
class _JobClaim:
    tenant: TenantId
    claimed_at_s: float
    was_seen: bool = False


class SocketSlot:
    """A WebSocket's slot; also a context manager."""

    __slots__ = ("_is_held", "_release")

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
    """A job's slot is freed by what is seen of the job, not by the client."""

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
        self._clock = clock
        self._leases = Leases(store, sleep=sleep)
        self._jobs: dict[str, _JobClaim] = {}
        self._connections = 0

    async def start(self) -> None:
        await self._leases.start()

    async def stop(self) -> None:
        await self._leases.stop()

    async def claim_job(self, tenant: TenantId, prompt_id: str) -> None:
        """Takes one of the tenant's `queued_jobs`. Raises LimitExceeded when all are taken, or when the tenant may not run anything."""
        pools = self._pools_for_jobs(tenant)
        if prompt_id in self._jobs:
            return
        full = await self._leases.claim(pools, prompt_id)
        if full is not None:
            raise _jobs_full(full)
        # Also without a limit: a reload may set one, and then what is queued counts.
        if not pools:
            self._leases.hold(_jobs_key(tenant), prompt_id)
        self._jobs.setdefault(prompt_id, _JobClaim(tenant, self._clock()))

    def check_job(self, tenant: TenantId) -> None:
        """Takes nothing. Raises LimitExceeded as `claim_job` would now, by what this gate knows."""
        for pool in self._pools_for_jobs(tenant):
            if self._leases.count(pool.key) >= pool.size:
                raise _jobs_full(pool)

    def _pools_for_jobs(self, tenant: TenantId) -> tuple[Pool, ...]:
        """Raises LimitExceeded for a tenant that may run nothing."""
        limits = self._allotment.of_tenant(tenant)
        if limits.running_jobs == 0:
            raise _full("This tenant may run no jobs.", "0 running jobs of the tenant", "queue-full", 3600.0)
        return () if limits.queued_jobs is None else (_jobs_pool(tenant, limits.queued_jobs),)

    def free_job(self, prompt_id: str) -> None:
        """The job ended, vanished or was refused. Unknown ids are ignored."""
        claim = self._jobs.pop(prompt_id, None)
        if claim is not None:
            self._leases.free((_jobs_key(claim.tenant),), prompt_id)

    def reconcile(self, jobs: Mapping[str, TenantId], among: Collection[str] | None = None) -> list[str]:
        """Takes ComfyUI's queue for the truth: unknown jobs get a claim, vanished ones lose theirs; the ids of those.

        jobs: all pending and running ones, by prompt id. among: of these ids alone. A claim that was never seen there may be on its way: it has
        `CLAIM_GRACE_S`.
        """
        now_s = self._clock()
        for prompt_id, tenant in jobs.items():
            claim = self._jobs.get(prompt_id)
            if claim is None:
                claim = self._jobs[prompt_id] = _JobClaim(tenant, now_s)
                self._leases.hold(_jobs_key(tenant), prompt_id)
            claim.was_seen = True
        gone = [
            prompt_id
            for prompt_id in (self._jobs if among is None else among)
            if prompt_id not in jobs
            and (claim := self._jobs.get(prompt_id)) is not None
            and (claim.was_seen or now_s - claim.claimed_at_s > CLAIM_GRACE_S)
        ]
        for prompt_id in gone:
            self.free_job(prompt_id)
        return gone

    async def claim_socket(self, principal: Principal) -> SocketSlot:
        """Takes a WebSocket slot of the tenant and of the key. Raises LimitExceeded."""
        limits = self._allotment.of_tenant(principal.tenant)
        of_key = self._allotment.of_key(principal)
        pools: list[Pool] = []
        unbounded: list[str] = []
        of_tenant, of_caller = _socket_keys(principal.tenant, digest_of(principal))
        if limits.websockets is not None:
            words = f"{limits.websockets} WebSockets of the tenant"
            pools.append(Pool(of_tenant, limits.websockets, words))
        else:
            unbounded.append(of_tenant)
        sizes = (limits.websockets_per_key, None if of_key is None else of_key.websockets)
        per_key = [size for size in sizes if size is not None]
        if per_key:
            words = f"{min(per_key)} WebSockets of the key"
            pools.append(Pool(of_caller, min(per_key), words))
        else:
            unbounded.append(of_caller)
        token = secrets.token_hex(8)
        full = await self._leases.claim(tuple(pools), token)
        if full is not None:
            error = _full(f"{full.words} are open already. Close one.", full.words, "too-many-websockets")
            error.is_of_key = full.words.endswith("of the key")
            raise error
        # Also without a limit: a reload may set one, and then what is open counts.
        for key in unbounded:
            self._leases.hold(key, token)
        keys = (*(pool.key for pool in pools), *unbounded)
        return SocketSlot(partial(self._leases.free, keys, token))

    def claim_connection(self) -> SocketSlot | None:
        """One of this gate's connections, None when there are as many as may be."""
        if self._connections >= self.max_connections:
            return None
        self._connections += 1
        return SocketSlot(self._free_connection)

    def jobs_of(self, tenant: TenantId) -> int:
        """Unfinished jobs of the tenant, as far as this gate knows."""
        return self._leases.count(_jobs_key(tenant))

    def remaining(self, principal: Principal) -> list[LimitStatus]:
        limits = self._allotment.of_tenant(principal.tenant)
        sockets = self._leases.count(f"comfygate:sockets:{principal.tenant}")
        found = []
        if limits.queued_jobs is not None:
            left = max(0, limits.queued_jobs - self.jobs_of(principal.tenant))
            found.append(LimitStatus("queued-jobs", str(limits.queued_jobs), limits.queued_jobs, left))
        if limits.websockets is not None:
            left = max(0, limits.websockets - sockets)
            found.append(LimitStatus("websockets", str(limits.websockets), limits.websockets, left))
        return found

    def _free_connection(self) -> None:
        self._connections -= 1


def _jobs_key(tenant: str) -> str:
    return f"comfygate:jobs:{tenant}"


@lru_cache(maxsize=1024)
def _jobs_pool(tenant: str, size: int) -> Pool:
    return Pool(_jobs_key(tenant), size, f"{size} jobs of the tenant")


@lru_cache(maxsize=1024)
def _socket_keys(tenant: TenantId, digest: str) -> tuple[str, str]:
    """Of the tenant and of the caller: each socket keeps them."""
    return f"comfygate:sockets:{tenant}", f"comfygate:sockets:{digest}"


def _jobs_full(pool: Pool) -> LimitExceeded:
    words = f"{pool.words} are in ComfyUI's queue already. Wait for one to finish, or cancel one."
    return _full(words, pool.words, "queue-full")


def _full(message: str, limit: str, reason: str, retry_after_s: float = _RETRY_S) -> LimitExceeded:
    return LimitExceeded(message, limit=limit, retry_after_s=retry_after_s, reason=reason)
