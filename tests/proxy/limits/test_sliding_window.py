"""Sliding windows in memory: how much fits, when it fits again, and that the table stays small."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from proxy.limits.sliding_window import NEVER_S, Quota, SlidingWindows, Window, quotas, tightest


def quota(text: str = "10/minute", owner: str = "alice") -> Quota:
    (found,) = quotas(text, "requests", "tenant", owner)
    return found


def test_quotas_say_what_they_are() -> None:
    minute, days = quotas("30/minute; 500 per 2 days", "prompts", "tenant", "alice")
    assert (minute.name, minute.size, minute.words) == (
        "prompts-per-minute",
        "30/minute",
        "30 prompts per minute of the tenant",
    )
    assert (days.name, days.window_s) == ("prompts-per-2-days", 172_800)
    (of_key,) = quotas("5/second", "upload-bytes", "key", "x")
    assert (of_key.name, of_key.words) == ("key-upload-bytes-per-second", "5 upload bytes per second of the key")
    assert quotas(None, "prompts", "tenant", "alice") == ()


def test_of_two_windows_of_one_length_the_tighter_holds() -> None:
    assert [item.amount for item in tightest("100/minute; 60/60 second; 5/hour")] == [60, 5]


def test_a_counter_is_known_without_its_amount() -> None:
    assert quota("10/minute").key == quota("20/minute").key


def test_exactly_the_amount_fits() -> None:
    windows = SlidingWindows()
    assert [windows.spend([quota()], 1, 0.0) for _ in range(12)] == [None] * 10 + [0, 0]


def test_all_windows_are_spent_or_none() -> None:
    windows = SlidingWindows()
    both = quotas("10/minute; 3/hour", "prompts", "tenant", "alice")
    assert [windows.spend(both, 1, 0.0) for _ in range(5)] == [None, None, None, 1, 1]
    assert windows.read(both[0], 0.0).used == 3


def test_the_window_slides() -> None:
    windows = SlidingWindows()
    wanted = [quota()]
    windows.spend(wanted, 10, 0.0)
    assert windows.spend(wanted, 1, 59.9) == 0
    # At 90 s half of the first minute is still seen: 5 of 10.
    assert windows.spend(wanted, 6, 90.0) == 0
    assert windows.spend(wanted, 5, 90.0) is None
    assert windows.read(wanted[0], 1000.0).used == 0


@given(
    previous=st.integers(0, 40),
    current=st.integers(0, 40),
    amount=st.integers(1, 40),
    cost=st.integers(1, 45),
    at_s=st.floats(0, 59.9),
)
def test_the_wait_is_long_enough_and_not_too_long(
    previous: int, current: int, amount: int, cost: int, at_s: float
) -> None:
    def fits(after_s: float) -> bool:
        window = Window(60, 60.0, previous, current)
        window.roll(at_s + after_s)
        return window.used(at_s + after_s) + cost <= amount

    wait_s = Window(60, 60.0, previous, current).wait_s(amount, cost, at_s)
    if cost > amount:
        assert wait_s == NEVER_S
        return
    assert fits(wait_s + 1e-6)
    assert wait_s < 0.01 or not fits(wait_s - 0.01)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 4)), max_size=60))
def test_no_fixed_window_ever_holds_more_than_the_amount(steps: list[tuple[float, int]]) -> None:
    windows = SlidingWindows()
    now_s, granted = 0.0, []
    for pause_s, cost in steps:
        now_s += pause_s
        if windows.spend([quota()], cost, now_s) is None:
            granted.append((now_s, cost))
    for start_s, _ in granted:
        # The sliding window takes the last minute's calls as spread evenly: at worst a minute sees less than twice the amount.
        assert sum(cost for at_s, cost in granted if start_s <= at_s < start_s + 60) < 2 * quota().amount


async def test_it_counts_like_the_limits_library() -> None:
    """Within one window both are exact, so they must agree call by call."""
    item = parse("7/hour")
    library = SlidingWindowCounterRateLimiter(MemoryStorage())
    windows = SlidingWindows()
    ours = [windows.spend([quota("7/hour")], cost, 0.0) is None for cost in (1, 3, 4, 2, 2, 1)]
    theirs = [await library.hit(item, "alice", cost=cost) for cost in (1, 3, 4, 2, 2, 1)]
    assert ours == theirs


def test_the_table_is_bounded_and_the_longest_untouched_counter_goes() -> None:
    windows = SlidingWindows(max_windows=3)
    for owner in ("a", "b", "c"):
        windows.spend([quota(owner=owner)], 1, 0.0)
    windows.read(quota(owner="a"), 0.0)
    windows.spend([quota(owner="d")], 1, 0.0)
    assert len(windows) == 3
    assert windows.read(quota(owner="a"), 0.0).used == 1
    assert windows.read(quota(owner="b"), 0.0).used == 0


def test_only_counters_that_count_are_live() -> None:
    windows = SlidingWindows()
    windows.spend([quota(owner="old")], 1, 0.0)
    windows.spend([quota(owner="new")], 1, 100.0)
    windows.read(quota(owner="empty"), 100.0)
    assert [key for key, _ in windows.live(130.0)] == ["requests:tenant:new:60"]
    assert len(windows) == 2


@pytest.mark.parametrize("text", ["", "many/minute", "5/fortnight"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no rate"):
        tightest(text)
