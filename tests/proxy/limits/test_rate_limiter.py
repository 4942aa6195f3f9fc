"""Rates in memory: who is refused, what they are told, and that a reload forgets nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.principal import Principal
from policy.routes import Budget
from proxy.config.limits import LimitSettings, LimitsSettings
from proxy.http.errors import LimitExceeded, refusal_for
from proxy.limits.rate_limiter import RATES, SPENT, Limiter, RateExceeded, RateHeaders, words_of_time
from tests.proxy.conftest import Clock, allotment, context


async def granted(limiter: Limiter, budget: Budget, attempts: int, **who: str) -> int:
    count = 0
    for _ in range(attempts):
        try:
            await limiter.acquire(context(**who), budget)
            count += 1
        except LimitExceeded:
            pass
    return count


async def test_a_tenant_is_held_to_its_rate_over_all_its_keys(clock: Clock) -> None:
    limiter = Limiter(allotment({"requests": "5/minute"}), clock=clock)
    assert await granted(limiter, Budget.READ, 3, subject="one") == 3
    assert await granted(limiter, Budget.READ, 3, subject="two") == 2
    assert await granted(limiter, Budget.READ, 3, tenant="bob") == 3


async def test_of_tenant_and_key_the_tighter_holds(clock: Clock) -> None:
    limits = allotment({"requests": "5/minute"}, {("alice", "small"): "small"}, small={"requests": "2/minute"})
    limiter = Limiter(limits, clock=clock)
    assert await granted(limiter, Budget.READ, 4, subject="small") == 2
    assert await granted(limiter, Budget.READ, 9, subject="other") == 3


async def test_a_key_of_the_same_id_in_another_tenant_has_its_own_count(clock: Clock) -> None:
    keys = {("alice", "id"): "small", ("bob", "id"): "small"}
    limiter = Limiter(allotment({"requests": "5/minute"}, keys, small={"requests": "2/minute"}), clock=clock)
    assert await granted(limiter, Budget.READ, 3, subject="id") == 2
    assert await granted(limiter, Budget.READ, 3, subject="id", tenant="bob") == 2


async def test_several_windows_hold_at_once(clock: Clock) -> None:
    limiter = Limiter(allotment({"prompts": "3/minute; 5/day"}), clock=clock)
    assert await granted(limiter, Budget.SUBMIT, 4) == 3
    clock.pass_s(120)
    assert await granted(limiter, Budget.SUBMIT, 4) == 2
    clock.pass_s(3600)
    assert await granted(limiter, Budget.SUBMIT, 4) == 0
    clock.pass_s(2 * 86_400)
    assert await granted(limiter, Budget.SUBMIT, 4) == 3


async def test_a_refused_prompt_spends_no_request(clock: Clock) -> None:
    limiter = Limiter(allotment({"requests": "4/minute", "prompts": "1/minute"}), clock=clock)
    assert await granted(limiter, Budget.SUBMIT, 10) == 1
    assert await granted(limiter, Budget.READ, 10) == 3


async def test_prompts_and_uploads_have_counters_of_their_own(clock: Clock) -> None:
    limiter = Limiter(allotment({"prompts": "2/minute", "uploads": "3/minute"}), clock=clock)
    assert await granted(limiter, Budget.SUBMIT, 5) == 2
    assert await granted(limiter, Budget.UPLOAD, 5) == 3


async def test_uploaded_bytes_are_spent_as_they_come(clock: Clock) -> None:
    limiter = Limiter(allotment({"upload_bytes": "1000B/hour"}), clock=clock)
    for _ in range(4):
        await limiter.spend_bytes(context(), 250)
    with pytest.raises(RateExceeded, match="1000 upload bytes per hour of the tenant is reached"):
        await limiter.spend_bytes(context(), 1)
    with pytest.raises(RateExceeded, match="alone is more than"):
        await limiter.spend_bytes(context("bob"), 1001)
    clock.pass_s(7200)
    await limiter.spend_bytes(context(), 1000)


async def test_without_a_limit_nothing_is_counted(clock: Clock) -> None:
    limiter = Limiter(allotment({"requests": None, "prompts": None}), clock=clock)
    assert await limiter.acquire(context(), Budget.SUBMIT) == []
    await limiter.spend_bytes(context(), 10**12)


async def test_headers_follow_the_draft(clock: Clock) -> None:
    limiter = Limiter(allotment({"requests": "600/minute", "prompts": "30/minute; 500/day"}), clock=clock)
    await limiter.acquire(context(), Budget.SUBMIT)
    clock.pass_s(10.5)
    headers = dict(await limiter.acquire(context(), Budget.SUBMIT))
    assert headers == {
        "RateLimit-Policy": '"requests-per-minute";q=600;w=60, "prompts-per-minute";q=30;w=60, "prompts-per-day";q=500;w=86400',
        "RateLimit": '"requests-per-minute";r=598;t=50, "prompts-per-minute";r=28;t=50, "prompts-per-day";r=498;t=86390',
    }


async def test_a_refusal_says_which_limit_its_size_and_when_to_come_back(clock: Clock) -> None:
    limiter = Limiter(allotment({"prompts": "2/minute"}), clock=clock)
    assert await granted(limiter, Budget.SUBMIT, 2) == 2
    clock.pass_s(20)
    with pytest.raises(RateExceeded) as caught:
        await limiter.acquire(context(), Budget.SUBMIT)
    error = caught.value
    # The first moment at which less than two of the two are still seen.
    assert error.message == "The limit of 2 prompts per minute of the tenant is reached. Try again in 41 s."
    assert error.limit == "2 prompts per minute of the tenant"
    assert error.retry_after_s == pytest.approx(40, abs=0.01)
    assert ("RateLimit", '"requests-per-minute";r=598;t=40, "prompts-per-minute";r=0;t=40') in error.headers
    refusal = refusal_for(error)
    assert refusal is not None
    assert refusal.status == 429
    assert dict(refusal.headers)["Retry-After"].isdigit()
    clock.pass_s(error.retry_after_s)
    await limiter.acquire(context(), Budget.SUBMIT)


async def test_a_limit_of_nothing_refuses_everything(clock: Clock) -> None:
    limiter = Limiter(allotment({"uploads": "0/minute"}), clock=clock)
    with pytest.raises(RateExceeded, match="more than the limit of 0 uploads"):
        await limiter.acquire(context(), Budget.UPLOAD)


async def test_a_reload_changes_limits_and_keeps_counts(clock: Clock) -> None:
    limits = allotment({"requests": "10/minute"})
    limiter = Limiter(limits, clock=clock)
    assert await granted(limiter, Budget.READ, 8) == 8
    tenants = {"alice": "default"}
    limits.apply(LimitsSettings.model_validate({"default": {"requests": "9/minute"}}), tenants)
    assert await granted(limiter, Budget.READ, 5) == 1
    limits.apply(LimitsSettings.model_validate({"default": {"requests": "12/minute"}}), tenants)
    assert await granted(limiter, Budget.READ, 5) == 3
    limits.apply(LimitsSettings.model_validate({"default": {"requests": "3/minute"}}), tenants)
    with pytest.raises(RateExceeded) as caught:
        await limiter.acquire(context(), Budget.READ)
    assert re.search(r"r=0;", dict(caught.value.headers)["RateLimit"])


async def test_what_is_left_is_told_without_spending(clock: Clock) -> None:
    quiet = {"uploads": None, "polls": "5/minute", "web_ui_files": None, "previews": None}
    limiter = Limiter(allotment({"requests": "600/minute", "prompts": "30/minute", **quiet}), clock=clock)
    await limiter.acquire(context(), Budget.SUBMIT)
    await limiter.acquire(context(), Budget.POLL)
    await limiter.remaining(context())
    left = {item.name: (item.size, item.total, item.remaining) for item in await limiter.remaining(context())}
    assert left == {
        "requests-per-minute": ("600/minute", 600, 599),
        "prompts-per-minute": ("30/minute", 30, 29),
        "polls-per-minute": ("5/minute", 5, 4),
    }


async def test_polls_and_the_web_uis_files_draw_on_budgets_of_their_own(clock: Clock) -> None:
    limits = allotment({"requests": "1/minute", "polls": "2/minute", "web_ui_files": "3/minute"})
    limiter = Limiter(limits, clock=clock)
    assert await granted(limiter, Budget.POLL, 9) == 2
    assert await granted(limiter, Budget.WEB_UI, 9) == 3
    assert await granted(limiter, Budget.READ, 9) == 1


async def test_memory_is_bounded_however_many_callers_come(clock: Clock) -> None:
    keys = {("alice", f"key-{index}"): "small" for index in range(20_000)}
    limiter = Limiter(allotment({"requests": None}, keys, small={"requests": "2/minute"}), clock=clock, max_windows=100)
    for index in range(20_000):
        await limiter.acquire(context(subject=f"key-{index}"), Budget.READ)
    assert len(limiter._windows) == 100
    assert len(limiter._plans) <= 16_384


CALLS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 20.0, 61.0, 100.0]),
        st.sampled_from(Budget),
        st.sampled_from(["small", "plain"]),
        st.sampled_from(["alice", "bob"]),
    ),
    max_size=60,
)


async def outcome(limiter: Limiter, who: Principal, budget: Budget) -> RateHeaders | tuple[object, str]:
    try:
        return await limiter.acquire(who, budget)
    except RateExceeded as refused:
        return refused.headers, str(refused)


@given(CALLS)
async def test_what_waits_for_nothing_counts_as_what_may_wait(calls: list[tuple[float, Budget, str, str]]) -> None:
    """The same numbers, the same headers, and the same refusals, which only `acquire` tells."""
    clock, small = Clock(), {"requests": "4/minute", "prompts": None, "polls": None}
    default = {"requests": "6/minute; 20/hour", "prompts": "2/minute", "web_ui_files": "3/minute", "polls": None}
    one, other = (
        Limiter(allotment(default, {("alice", "small"): "small"}, small=small), clock=clock) for _ in range(2)
    )
    for passed_s, budget, subject, tenant in calls:
        clock.pass_s(passed_s)
        who = context(subject=subject, tenant=tenant)
        expected = await outcome(other, who, budget)
        at_once = one.acquire_at_once(who, budget)
        assert (at_once if at_once is not None else await outcome(one, who, budget)) == expected
        assert (at_once is None) is isinstance(expected, tuple), (
            "what is refused spends nothing, and is told by `acquire`"
        )
    for tenant in ("alice", "bob"):
        assert await one.remaining(context(tenant=tenant)) == await other.remaining(context(tenant=tenant))


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "1 s"), (1.2, "2 s"), (119, "119 s"), (600.5, "11 min"), (86_400, "24 h")]
)
def test_times_are_said_in_words(seconds: float, words: str) -> None:
    assert words_of_time(seconds) == words


def test_every_kind_of_call_draws_on_rates_that_there_are() -> None:
    assert set(SPENT) == set(Budget)
    assert {rate for rates in SPENT.values() for rate in rates} | {"upload_bytes"} == set(RATES)
    assert set(RATES) <= set(LimitSettings.model_fields)
