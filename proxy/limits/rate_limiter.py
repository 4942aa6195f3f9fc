"""How often a caller may ask: requests, prompts, uploads and uploaded bytes in sliding windows, per tenant and per key; the tighter holds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from policy.principal import Principal
from policy.routes import Budget
from proxy.config.limits import LimitSettings
from proxy.http.errors import LimitExceeded
from proxy.limits.effective_limits import EffectiveLimits, LimitStatus, digest_of
from proxy.limits.redis_scripts import RAISE_WINDOW, SPEND, Call
from proxy.limits.sliding_window import MAX_WINDOWS, Quota, SlidingWindows, quotas
from proxy.limits.store_unavailable import StoreUnavailable

if TYPE_CHECKING:
    from proxy.limits.redis_store import SharedStore

_MAX_PLANS: Final = 16_384
_FULL_FOR_S: Final = 1.0

RateHeaders = list[tuple[str, str]]

Rates = tuple[str, ...]
"""Names of settings in `[limits.<name>]`."""
RATES: Final[Rates] = ("requests", "prompts", "uploads", "polls", "web_ui_files", "previews", "upload_bytes")
SPENT: Final[Mapping[Budget, Rates]] = {
    Budget.READ: ("requests",),
    Budget.PREVIEW: ("requests", "previews"),
    Budget.SUBMIT: ("requests", "prompts"),
    Budget.UPLOAD: ("requests", "uploads"),
    Budget.POLL: ("polls",),
    Budget.WEB_UI: ("web_ui_files",),
}
"""What one call of a row draws on."""


class RateExceeded(LimitExceeded):
    """Over a rate; its headers are RateLimit-Policy and RateLimit."""

    def __init__(self, message: str, *, limit: str, retry_after_s: float, headers: RateHeaders) -> None:
        super().__init__(message, limit=limit, retry_after_s=retry_after_s)
        self.headers = tuple(headers)


class _Plan(NamedTuple):
    """All that one kind of call by one caller spends, worked out once. policy: a header. marked: each quota with what the RateLimit header says of it
    first. keys: of the counters in Redis."""

    quotas: tuple[Quota, ...]
    policy: tuple[str, str]
    marked: tuple[tuple[Quota, str], ...]
    keys: tuple[str, ...]


class Limiter:
    """Spends rates in Redis while it answers, else in memory; one round trip for all windows of a call.

    Memory also keeps what Redis last said, so that an outage begins with the true counts, and a caller that was refused is refused again for a
    moment without asking.
    """

    def __init__(
        self,
        allotment: EffectiveLimits,
        store: SharedStore | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_windows: int = MAX_WINDOWS,
    ) -> None:
        self._allotment = allotment
        self._store = store
        self._clock = clock
        self._windows = SlidingWindows(max_windows)
        self._plans: dict[tuple[str, str, Budget | Rates], _Plan] = {}
        self._full_at_s: dict[str, float] = {}
        self._version = allotment.version
        if store is not None:
            store.on_return(self._counted_here)

    async def acquire(self, principal: Principal, budget: Budget) -> RateHeaders:
        """Spends one call of the budget, and of `requests` where it draws on them; the headers for its answer. Raises RateExceeded, having spent nothing."""
        plan = self._plan(principal, budget)
        refused = await self._spend(plan, 1)
        headers = self._headers(plan, self._clock())
        if refused is not None:
            raise self._exceeded(plan.quotas[refused], 1, headers)
        return headers

    def acquire_at_once(self, principal: Principal, budget: Budget) -> RateHeaders | None:
        """As `acquire`, where nothing has to be waited for. None, having spent nothing, where Redis counts, or where it is to be refused."""
        if self._store is not None:
            return None
        plan, now_s = self._plan(principal, budget), self._clock()
        windows, said = [], ""
        for quota, mark in plan.marked:
            window = self._windows.window(quota, now_s)
            left = quota.amount - window.used(now_s) - 1
            if left < 0:
                return None
            windows.append(window)
            said += f"{mark}{left};t={math.ceil(window.ends_at_s - now_s)}"
        for window in windows:
            window.current += 1
        return [plan.policy, ("RateLimit", said)] if windows else []

    async def spend_bytes(self, principal: Principal, amount: int) -> None:
        """Spends uploaded bytes while they stream. Raises RateExceeded: then the rest of the upload is not to be read."""
        await self._spend_rate(principal, "upload_bytes", amount)

    async def spend_file(self, principal: Principal) -> None:
        """Spends one of `uploads`, for a file that comes with a call of another budget. Raises RateExceeded: then it is not to be read."""
        await self._spend_rate(principal, "uploads", 1)

    async def _spend_rate(self, principal: Principal, rate: str, amount: int) -> None:
        plan = self._plan(principal, (rate,))
        if not plan.quotas:
            return
        refused = await self._spend(plan, amount)
        if refused is not None:
            raise self._exceeded(plan.quotas[refused], amount, [])

    async def remaining(self, principal: Principal) -> list[LimitStatus]:
        """What is left of every rate, for the caller to see. Spends nothing."""
        found: list[LimitStatus] = []
        for rate in RATES:
            plan = self._plan(principal, (rate,))
            await self._spend(plan, 0)
            now_s = self._clock()
            for quota in plan.quotas:
                reading = self._windows.read(quota, now_s)
                left = max(0, quota.amount - reading.used)
                found.append(LimitStatus(quota.name, quota.size, quota.amount, left, reading.renews_in_s))
        return found

    async def _spend(self, plan: _Plan, cost: int) -> int | None:
        """The index of the quota that has no room, None when all were spent."""
        if not plan.quotas:
            return None
        if self._store is None or not self._store.is_up:
            return self._windows.spend(plan.quotas, cost, self._clock())
        known_full = self._known_full(plan.quotas, cost)
        if known_full is not None:
            return known_full
        args = [part for quota in plan.quotas for part in (quota.amount, quota.window_s * 1000, cost)]
        try:
            answer = await self._store.run(Call(SPEND, plan.keys, tuple(args)))
        except StoreUnavailable:
            return self._windows.spend(plan.quotas, cost, self._clock())
        refused = int(answer[0])
        self._adopt(plan.quotas, answer, 0 if refused else cost)
        if refused:
            self._full_at_s[plan.quotas[refused - 1].key] = self._clock()
        return refused - 1 if refused else None

    def _known_full(self, wanted: Sequence[Quota], cost: int) -> int | None:
        """A script gone wild is not worth a round trip for each of its calls: what Redis called full is full for a second, unless room came."""
        if not self._full_at_s:
            return None
        now_s = self._clock()
        for index, quota in enumerate(wanted):
            full_at_s = self._full_at_s.get(quota.key)
            if full_at_s is None:
                continue
            if now_s - full_at_s < _FULL_FOR_S and self._windows.read(quota, now_s).used + cost > quota.amount:
                return index
            del self._full_at_s[quota.key]
        return None

    def _adopt(self, spent: Sequence[Quota], answer: Sequence[int], cost: int) -> None:
        now_s = self._clock()
        for index, quota in enumerate(spent):
            previous, current, ttl_ms = (int(part) for part in answer[1 + 3 * index : 4 + 3 * index])
            window = self._windows.window(quota, now_s)
            window.previous, window.current = previous, current + cost
            window.ends_at_s = now_s + (ttl_ms / 1000 - quota.window_s if ttl_ms > 0 else quota.window_s)

    def _counted_here(self) -> Iterator[Call]:
        return raise_calls(self._windows, self._clock())

    def _plan(self, principal: Principal, spends: Budget | Rates) -> _Plan:
        if self._version != self._allotment.version:
            self._plans.clear()
            self._full_at_s.clear()
            self._version = self._allotment.version
        key = (principal.tenant, principal.subject, spends)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
                self._full_at_s.clear()
            found = self._plans[key] = self._make_plan(
                principal, SPENT[spends] if isinstance(spends, Budget) else spends
            )
        return found

    def _make_plan(self, principal: Principal, rates: Rates) -> _Plan:
        wanted = _quotas_of(self._allotment.of_tenant(principal.tenant), rates, "tenant", principal.tenant)
        of_key = self._allotment.of_key(principal)
        if of_key is not None:
            wanted += _quotas_of(of_key, rates, "key", digest_of(principal))
        policy = ", ".join(f'"{quota.name}";q={quota.amount};w={quota.window_s}{_unit(quota)}' for quota in wanted)
        return _Plan(
            wanted,
            ("RateLimit-Policy", policy),
            tuple((quota, f'{", " if index else ""}"{quota.name}";r=') for index, quota in enumerate(wanted)),
            tuple(key for quota in wanted for key in quota.redis_keys),
        )

    def _headers(self, plan: _Plan, now_s: float) -> RateHeaders:
        """draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4: two lists of structured fields, one item for each window."""
        if not plan.quotas:
            return []
        said = ""
        for quota, mark in plan.marked:
            window = self._windows.window(quota, now_s)
            left = max(0, quota.amount - window.used(now_s))
            said += f"{mark}{left};t={math.ceil(window.ends_at_s - now_s)}"
        return [plan.policy, ("RateLimit", said)]

    def _exceeded(self, quota: Quota, cost: int, headers: RateHeaders) -> RateExceeded:
        now_s = self._clock()
        wait_s = self._windows.window(quota, now_s).wait_s(quota.amount, cost, now_s)
        if cost > quota.amount:
            message = f"This alone is more than the limit of {quota.words}."
            return RateExceeded(message, limit=quota.words, retry_after_s=wait_s, headers=headers)
        message = f"The limit of {quota.words} is reached. Try again in {words_of_time(wait_s)}."
        return RateExceeded(message, limit=quota.words, retry_after_s=wait_s, headers=headers)


def words_of_time(seconds: float) -> str:
    """Whole seconds, rounded up as Retry-After is; minutes and hours where they read better."""
    whole = max(1, math.ceil(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{math.ceil(whole / 60)} min"
    return f"{math.ceil(whole / 3600)} h"


def raise_calls(windows: SlidingWindows, now_s: float) -> Iterator[Call]:
    """What tells Redis of the counters of one gate."""
    for key, window in windows.live(now_s):
        left_ms = max(1, round((window.ends_at_s - now_s) * 1000))
        names = Quota(key, "", "", "", 0, window.window_s).redis_keys
        yield Call(RAISE_WINDOW, names, (window.window_s * 1000, left_ms, window.current, window.previous))


def _unit(quota: Quota) -> str:
    return ';qu="content-bytes"' if "upload-bytes" in quota.name else ""


def _quotas_of(settings: LimitSettings, rates: Rates, scope: str, owner: str) -> tuple[Quota, ...]:
    return tuple(
        quota for rate in rates for quota in quotas(getattr(settings, rate), rate.replace("_", "-"), scope, owner)
    )
