"""Sliding window counters in memory: the limits library's algorithm without its cost, with several windows spent in one step.

The library's MemoryStorage walks all its keys at every hit (0.7 ms with 10,000 of them), spends several windows one after the other, and keeps its
counts under the limit's size, so that a changed limit forgets them. Its Redis layout is kept (proxy/limits/redis_scripts.py).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from proxy.config.rates import Rate, read_rates

MAX_WINDOWS: Final = 65_536
NEVER_S: Final = 86_400.0
# At the very moment that the arithmetic gives, the counts are still equal to the limit.
_MARGIN_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Quota:
    """One window of one limit, and the counter it is held by.

    name: as in the RateLimit headers; size and words: for people; key: of the counter, without the amount, so that a reload keeps the count.
    """

    key: str
    name: str
    size: str
    words: str
    amount: int
    window_s: int

    @property
    def redis_keys(self) -> tuple[str, str]:
        """The current and the previous counter, as the limits library names them (prefix "comfygate")."""
        return f"comfygate:{{{self.key}}}", f"comfygate:{{{self.key}}}/-1"


def quotas(rates_text: str | None, unit: str, scope: str, owner: str) -> tuple[Quota, ...]:
    """The windows of "30/minute; 500/day"; of two windows of one length the tighter.

    unit: "prompts"; scope: "tenant" or "key", part of what people are told; owner: whose counter it is. Raises ValueError.
    """
    return () if rates_text is None else tuple(_quota(rate, unit, scope, owner) for rate in tightest(rates_text))


@lru_cache(maxsize=1024)
def tightest(rates_text: str) -> tuple[Rate, ...]:
    """The windows of a rate, one for each length. Raises ValueError."""
    found: dict[int, Rate] = {}
    for rate in read_rates(rates_text):
        if rate.window_s not in found or rate.amount < found[rate.window_s].amount:
            found[rate.window_s] = rate
    return tuple(found.values())


def _quota(rate: Rate, unit: str, scope: str, owner: str) -> Quota:
    name = f"{unit}-per-{rate.span.replace(' ', '-')}"
    return Quota(
        key=f"{unit}:{scope}:{owner}:{rate.window_s}",
        name=name if scope == "tenant" else f"{scope}-{name}",
        size=f"{rate.amount}/{rate.span}",
        words=f"{rate.amount} {unit.replace('-', ' ')} per {rate.span} of the {scope}",
        amount=rate.amount,
        window_s=rate.window_s,
    )


class Reading(NamedTuple):
    """What a counter says now. used: in the sliding window, rounded down; renews_in_s: until its fixed window ends."""

    used: int
    renews_in_s: float


@dataclass(slots=True)
class Window:
    """ends_at_s: of the current fixed window; the previous one counts by the share of it that the sliding window still covers."""

    window_s: int
    ends_at_s: float
    previous: int = 0
    current: int = 0

    def roll(self, now_s: float) -> None:
        if now_s < self.ends_at_s:
            return
        if now_s < self.ends_at_s + self.window_s:
            self.previous, self.current = self.current, 0
            self.ends_at_s += self.window_s
        else:
            self.previous = self.current = 0
            self.ends_at_s = now_s + self.window_s

    def used(self, now_s: float) -> int:
        if not self.previous:
            return self.current
        return math.floor(self.previous * (self.ends_at_s - now_s) / self.window_s) + self.current

    def wait_s(self, amount: int, cost: int, now_s: float) -> float:
        """Seconds until `cost` more would fit, when nothing else is spent; a day when it never does: by then the limits may be others."""
        room = amount - cost + 1
        if room <= 0:
            return NEVER_S
        left_s = self.ends_at_s - now_s
        if self.used(now_s) + cost <= amount:
            return 0.0
        if self.current < room:
            # The previous window's weight must fall below what is left: previous * share < room - current.
            return max(0.0, left_s - (room - self.current) * self.window_s / self.previous) + _MARGIN_S
        return left_s + max(0.0, self.window_s - room * self.window_s / self.current) + _MARGIN_S

    def is_over(self, now_s: float) -> bool:
        return now_s >= self.ends_at_s + self.window_s


class SlidingWindows:
    """A bounded table of counters: when it is full, the longest untouched one goes.

    Every method is one step on the event loop: nothing comes between a check and its spending.
    """

    def __init__(self, max_windows: int = MAX_WINDOWS) -> None:
        self._max_windows = max_windows
        self._windows: OrderedDict[str, Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def spend(self, wanted: Sequence[Quota], cost: int, now_s: float) -> int | None:
        """Spends `cost` of every quota, or of none: then the index of the first that has no room."""
        windows = [self.window(quota, now_s) for quota in wanted]
        for index, window in enumerate(windows):
            if window.used(now_s) + cost > wanted[index].amount:
                return index
        for window in windows:
            window.current += cost
        return None

    def read(self, quota: Quota, now_s: float) -> Reading:
        window = self.window(quota, now_s)
        return Reading(window.used(now_s), window.ends_at_s - now_s)

    def window(self, quota: Quota, now_s: float) -> Window:
        """The quota's counter, rolled to now."""
        window = self._windows.get(quota.key)
        if window is None:
            if len(self._windows) >= self._max_windows:
                self._windows.popitem(last=False)
            window = self._windows[quota.key] = Window(quota.window_s, now_s + quota.window_s)
        else:
            self._windows.move_to_end(quota.key)
            if now_s >= window.ends_at_s:
                window.roll(now_s)
        return window

    def live(self, now_s: float) -> Iterator[tuple[str, Window]]:
        """The counters that still count something, with their keys; the others are dropped."""
        for key, window in list(self._windows.items()):
            if window.is_over(now_s):
                self._windows.pop(key, None)
                continue
            window.roll(now_s)
            if window.previous or window.current:
                yield key, window
