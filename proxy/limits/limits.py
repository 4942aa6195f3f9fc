"""All limits of one gate, built from its configuration; started, reloaded and stopped together. What the pipeline and the login throttle ask."""

from __future__ import annotations

import logging
from collections.abc import Callable

from policy.principal import Principal
from policy.routes import Budget
from proxy.config import Config
from proxy.config.redis_url import check_redis_url, try_redis
from proxy.http.request import Request
from proxy.limits.brake import Brake
from proxy.limits.concurrency import ConcurrencyLimits
from proxy.limits.effective_limits import EffectiveLimits, LimitStatus
from proxy.limits.failed_logins import FailedLogins
from proxy.limits.gpu_budget import GpuBudgets
from proxy.limits.rate_limiter import Limiter, RateExceeded, RateHeaders
from proxy.open_files import connections_for
from proxy.persistence.operations import Database

_log = logging.getLogger("comfygate.limits")


def _ignore(is_up: bool) -> None:
    pass


class Limits:
    """The parts are `allotment`, `limiter`, `logins`, `slots`, `budgets`, and `store`, which is None without Redis."""

    def __init__(self, config: Config, state: Database, on_store_change: Callable[[bool], None] = _ignore) -> None:
        """state: where GPU seconds are counted; open from before `start` until after `stop`.

        on_store_change: told whether Redis is relied on. Raises OSError for a missing storage_file, ValueError for a bad URL.
        """
        settings = config.limits
        self._storage = _storage_of(config)
        self.store: SharedStore | None = None
        if self._storage != "memory":
            from proxy.limits.redis_store import SharedStore  # a gate without Redis does without seven megabytes

            self.store = SharedStore(self._storage, timeout_s=settings.storage_timeout, on_change=on_store_change)
        self.allotment = EffectiveLimits(settings, *_names(config))
        self.limiter = Limiter(self.allotment, self.store)
        self.acquire_at_once = self.limiter.acquire_at_once
        self.brake = Brake()
        self.logins = FailedLogins(settings.logins, self.store)
        max_connections = connections_for(config.server.max_connections)
        self.slots = ConcurrencyLimits(self.allotment, self.store, max_connections=max_connections)
        self.budgets = GpuBudgets(self.allotment, state, self.store)

    async def start(self) -> None:
        """Budgets first: Redis is told what they know before anybody relies on it. Raises DatabaseUnavailable."""
        await self.budgets.start()
        if self.store is not None:
            await self.store.start()
        await self.slots.start()

    async def stop(self) -> None:
        await self.slots.stop()
        if self.store is not None:
            await self.store.stop()

    def apply(self, config: Config) -> None:
        """A reload: limits change, counts stay. Another storage needs a restart. Raises OSError for a missing storage_file."""
        if _storage_of(config) != self._storage:
            _log.warning("the storage of limits has changed: restart the gate to use it")
        self.allotment.apply(config.limits, *_names(config))
        self.logins.apply(config.limits.logins)
        self.slots.max_connections = connections_for(config.server.max_connections)

    async def acquire(self, principal: Principal, budget: Budget, request: Request) -> RateHeaders:
        """As `Limiter.acquire`; who goes on asking while it is refused waits for its refusal. Raises RateExceeded."""
        try:
            return await self.limiter.acquire(principal, budget)
        except RateExceeded:
            request.is_refused = True
            await self.brake.refused(principal)
            raise

    async def spend_bytes(self, principal: Principal, amount: int) -> None:
        """As `Limiter.spend_bytes`. Raises RateExceeded."""
        await self.limiter.spend_bytes(principal, amount)

    async def spend_file(self, principal: Principal) -> None:
        """As `Limiter.spend_file`. Raises RateExceeded."""
        await self.limiter.spend_file(principal)

    async def failed(self, address: str, key_id: str | None) -> None:
        """Counts a failed login: returns after a delay that grows. Raises LimitExceeded."""
        await self.logins.failed(address, key_id)

    async def remaining(self, principal: Principal) -> list[LimitStatus]:
        """What the caller has left of every rate and slot. Spends nothing."""
        rates = await self.limiter.remaining(principal)
        return [*rates, *self.slots.remaining(principal)]

    async def gpu_budget(self, principal: Principal) -> LimitStatus | None:
        """The window of the tenant's budget that has the least left, None without a budget."""
        left = await self.budgets.remaining(principal.tenant)
        return min(left, key=lambda allowance: allowance.remaining) if left else None


async def try_storage(config: Config) -> str | None:
    """Why the store of limits cannot be used, in words; None when it can. Raises OSError, ValueError for an address that cannot be read."""
    storage = _storage_of(config)
    return None if storage == "memory" else await try_redis(storage, config.limits.storage_timeout)


def _storage_of(config: Config) -> str:
    """SECURITY: Redis's URL may hold a password, so it may come from a file of its own; it is never logged."""
    file = config.limits.storage_file
    if file is None:
        return config.limits.storage
    text = config.resolve(file).read_text(encoding="utf-8").strip()
    return text if text == "memory" else check_redis_url(text)


def _names(config: Config) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    tenants = {tenant: settings.limits for tenant, settings in config.tenants.items()}
    return tenants, {(key.tenant, key.id): key.limits for key in config.keys if key.limits is not None}
