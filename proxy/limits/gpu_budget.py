"""GPU seconds that a tenant may use in a day or another span of the calendar (UTC). Kept in the database; with Redis the larger of both holds."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from policy.principal import TenantId
from proxy.http.errors import LimitExceeded
from proxy.limits.effective_limits import EffectiveLimits, LimitStatus
from proxy.limits.gpu_usage_db import GpuUsage
from proxy.limits.rate_limiter import words_of_time
from proxy.limits.redis_scripts import CHARGE, RAISE_TOTAL, TOTALS, Call
from proxy.limits.sliding_window import tightest
from proxy.limits.store_unavailable import StoreUnavailable
from proxy.persistence.operations import Database, DatabaseUnavailable

if TYPE_CHECKING:
    from proxy.limits.redis_store import SharedStore

_DAY_S: Final = 86_400
_KEPT_S: Final = 8 * _DAY_S
_MAX_UNSENT: Final = 10_000

_log = logging.getLogger("comfygate.limits")


class _Span(NamedTuple):
    """One window of one tenant's budget at one time. starts_at_s: Unix time, a multiple of the window."""

    tenant: str
    window_s: int
    starts_at_s: int
    amount_s: int

    @property
    def ends_at_s(self) -> int:
        return self.starts_at_s + self.window_s

    @property
    def key(self) -> str:
        return f"comfygate:gpu:{self.tenant}:{self.window_s}:{self.starts_at_s}"


class GpuBudgets:
    """Refuses a tenant that has used its GPU seconds, until the next window. Windows start at whole multiples since 1970 (UTC): a day at midnight."""

    def __init__(
        self,
        allotment: EffectiveLimits,
        state: Database,
        store: SharedStore | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._allotment = allotment
        self._usage = GpuUsage(state)
        self._store = store
        self._clock = clock
        self._totals: dict[str, float] = {}
        self._unkept: dict[str, float] = {}
        """Of windows whose sum could not be read yet: what is missing in the database."""
        self._unsent: deque[Call] = deque(maxlen=_MAX_UNSENT)
        if store is not None:
            store.on_return(self._known_here)

    async def start(self) -> None:
        """The database must be open. Raises DatabaseUnavailable."""
        spans_by_tenant = [self._spans(tenant) for tenant in self._allotment.tenants]
        longest_s = max((span.window_s for spans in spans_by_tenant for span in spans), default=0)
        await self._usage.forget_before(self._clock() - max(_KEPT_S, longest_s + _DAY_S))
        for spans in spans_by_tenant:
            await self._load(spans)

    async def check(self, tenant: TenantId, queued_s: float = 0.0) -> None:
        """Raises LimitExceeded when the tenant's budget is spent, DatabaseUnavailable where it cannot be read how much of it is.

        queued_s: what its unfinished jobs will probably cost: without it a full queue slips in before the first job is counted. It is not
        told: where nothing of a tenant's own was measured yet, it comes from what everybody's jobs took.
        """
        spans = self._spans(tenant)
        if not spans:
            return
        used = await self._used(spans)
        for span, used_s in zip(spans, used, strict=True):
            if used_s + queued_s < span.amount_s:
                continue
            renews_in_s = span.ends_at_s - self._clock()
            limit = f"{span.amount_s} GPU seconds per {_words_of_window(span.window_s)} of the tenant"
            spent = f"{used_s:.0f} s are used" + (", and what waits or runs may take the rest" if queued_s else "")
            raise LimitExceeded(
                f"The budget of {limit} is spent: {spent}. It renews in {words_of_time(renews_in_s)}.",
                limit=limit,
                retry_after_s=renews_in_s,
                reason="budget-spent",
            )

    async def add(self, tenant: TenantId, run_id: str, gpu_s: float, ended_at_s: float | None = None) -> None:
        """Counts a finished job; a second time does nothing. run_id: `Job.run_id`. ended_at_s: Unix time, None for now. Raises ValueError for no duration."""
        if not math.isfinite(gpu_s) or gpu_s < 0:
            raise ValueError(f"{gpu_s} is no number of seconds")
        at_s = self._clock() if ended_at_s is None else ended_at_s
        spans = self._spans(tenant)
        is_loaded = await self._is_loaded(spans)
        is_new, is_kept = await self._write(run_id, tenant, at_s, gpu_s)
        if not is_new:
            return
        hit = [span for span in spans if span.starts_at_s <= at_s < span.ends_at_s]
        for span in hit:
            if is_loaded:
                self._totals[span.key] = self._totals.get(span.key, 0.0) + gpu_s
            elif not is_kept:
                self._unkept[span.key] = self._unkept.get(span.key, 0.0) + gpu_s
        if self._store is not None and hit:
            lives = [_lifetime_ms(span) for span in hit]
            keys = (f"comfygate:gpu:job:{run_id}", *(span.key for span in hit))
            await self._tell(self._store, Call(CHARGE, keys, (repr(gpu_s), max(lives), *lives)))

    async def remaining(self, tenant: TenantId) -> list[LimitStatus]:
        spans = self._spans(tenant)
        now_s = self._clock()
        return [
            LimitStatus(
                f"gpu-seconds-per-{_words_of_window(span.window_s).replace(' ', '-')}",
                f"{span.amount_s}/{_words_of_window(span.window_s)}",
                span.amount_s,
                max(0.0, span.amount_s - used_s),
                span.ends_at_s - now_s,
            )
            for span, used_s in zip(spans, await self._used(spans), strict=True)
        ]

    async def _used(self, spans: list[_Span]) -> list[float]:
        await self._load(spans)
        if self._store is not None and self._store.is_up and spans:
            try:
                answer = await self._store.run(Call(TOTALS, tuple(span.key for span in spans), ()))
            except StoreUnavailable:
                answer = ()
            for span, value in zip(spans, answer, strict=False):
                # Kept for the time when Redis is gone.
                self._totals[span.key] = max(self._totals.get(span.key, 0.0), float(value or 0))
        return [self._totals.get(span.key, 0.0) for span in spans]

    def _spans(self, tenant: str) -> list[_Span]:
        """The tenant's windows of now."""
        text = self._allotment.of_tenant(tenant).gpu_seconds
        if text is None:
            return []
        now_s = self._clock()
        spans = []
        for rate in tightest(text):
            window_s = rate.window_s
            spans.append(_Span(tenant, window_s, int(now_s // window_s) * window_s, rate.amount))
        return spans

    async def _load(self, spans: list[_Span]) -> None:
        """Sums what is not in memory yet: at the start, after a reload, in a new window."""
        missing = [span for span in spans if span.key not in self._totals]
        if not missing or not self._usage.state.is_open:
            for span in missing:
                self._totals.setdefault(span.key, 0.0)
            return
        wanted = [(span.tenant, float(span.starts_at_s)) for span in missing]
        for span, total_s in zip(missing, await self._usage.totals_s(wanted), strict=True):
            # Another task may have been quicker, and have added to it.
            self._totals.setdefault(span.key, total_s + self._unkept.pop(span.key, 0.0))
        self._forget_past()

    async def _is_loaded(self, spans: list[_Span]) -> bool:
        try:
            await self._load(spans)
        except DatabaseUnavailable:
            return False
        return True

    def _forget_past(self) -> None:
        now_s = self._clock()
        for sums in (self._totals, self._unkept):
            for key in [key for key in sums if _ends_at_s(key) <= now_s]:
                del sums[key]

    async def _write(self, run_id: str, tenant: str, at_s: float, gpu_s: float) -> tuple[bool, bool]:
        """Whether it was not counted before, and whether it is in the database."""
        if not self._usage.state.is_open:
            return True, False
        try:
            return await self._usage.add(run_id, tenant, at_s, gpu_s), True
        except DatabaseUnavailable as error:
            # Counted in memory at least: a full disk gives nobody free GPU time.
            _log.error("GPU seconds of job %s are not in %s: %s", run_id, self._usage.state.place, error)
            return True, False

    async def _tell(self, store: SharedStore, call: Call) -> None:
        try:
            await store.run(call)
        except StoreUnavailable:
            self._unsent.append(call)

    def _known_here(self) -> Iterator[Call]:
        # All that still matter, sent before or not: a job's mark keeps it from counting twice.
        now_s = self._clock()
        self._unsent = deque((call for call in self._unsent if _ends_at_s(call.keys[1]) > now_s), maxlen=_MAX_UNSENT)
        yield from list(self._unsent)
        for tenant in self._allotment.tenants:
            for span in self._spans(tenant):
                if total_s := self._totals.get(span.key):
                    yield Call(RAISE_TOTAL, (span.key,), (repr(total_s), _lifetime_ms(span)))


def _lifetime_ms(span: _Span) -> int:
    return (span.window_s + _DAY_S) * 1000


def _ends_at_s(key: str) -> int:
    *_, window_s, starts_at_s = key.split(":")
    return int(window_s) + int(starts_at_s)


def _words_of_window(window_s: int) -> str:
    for size_s, name in ((_DAY_S, "day"), (3600, "hour"), (60, "minute")):
        if window_s % size_s == 0:
            return name if window_s == size_s else f"{window_s // size_s} {name}s"
    return f"{window_s} seconds"
