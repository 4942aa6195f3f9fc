"""When waiting jobs will probably begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import forecast
from policy.forecast import Busy, Expected, start_of, starts_of
from policy.principal import TenantId

A, B = TenantId("a"), TenantId("b")


def one(left_s: float) -> Busy:
    return Busy({"default": left_s})


def two(first_s: float, second_s: float, **speeds: float) -> Busy:
    return Busy({"one": first_s, "two": second_s}, speeds)


def jobs(tenant: str, count: int, cost_s: float, first: int = 1) -> list[Expected]:
    return [Expected(f"{tenant}{number}", cost_s, first + number) for number in range(count)]


def test_who_is_alone_waits_for_what_runs_and_for_its_own() -> None:
    assert starts_of(A, {A: jobs("a", 3, 10.0)}, {}, 0.0, {}, one(5.0)) == {"a0": 5.0, "a1": 15.0, "a2": 25.0}


def test_a_newcomer_waits_for_one_job_of_a_busy_neighbour_at_most() -> None:
    waiting = {A: jobs("a", 100, 10.0), B: jobs("b", 1, 1.0, first=200)}
    assert starts_of(B, waiting, {A: 500.0}, 490.0, {}, one(3.0)) == {"b0": 3.0}


def test_shares_are_by_weight() -> None:
    waiting = {A: jobs("a", 4, 10.0), B: jobs("b", 8, 10.0)}
    found = starts_of(A, waiting, {}, 0.0, {"b": 3.0}, one(0.0))
    assert found["a1"] == 40.0, "three of b's between"


def test_what_comes_very_late_has_no_estimate() -> None:
    found = starts_of(A, {A: jobs("a", forecast.MAX_STEPS + 5, 1.0)}, {}, 0.0, {}, one(0.0))
    assert len(found) == forecast.MAX_STEPS


def test_nobody_waits() -> None:
    assert starts_of(A, {}, {}, 0.0, {}, one(9.0)) == {}


def test_one_start_waits_for_those_alone_that_come_before() -> None:
    waiting = {A: jobs("a", 2, 10.0), B: jobs("b", 8, 10.0, first=50)}
    assert start_of(waiting[A][1], A, waiting, {}, 0.0, {}, one(5.0)) == 5.0 + 10.0 + 10.0, "its own first one, and b's"


TENANTS = st.sampled_from([A, B, TenantId("c")])
COSTS = st.sampled_from([0.5, 1.0, 2.0, 7.0])


@given(
    st.lists(st.tuples(TENANTS, COSTS), max_size=30),
    st.dictionaries(TENANTS, st.sampled_from([0.0, 1.0, 4.5])),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.dictionaries(TENANTS, st.sampled_from([0.5, 1.0, 3.0])),
)
def test_one_start_is_what_it_is_among_all(
    submitted: list[tuple[TenantId, float]], tags: dict[TenantId, float], time: float, weights: dict[str, float]
) -> None:
    waiting: dict[TenantId, list[Expected]] = {}
    for number, (tenant, cost_s) in enumerate(submitted):
        waiting.setdefault(tenant, []).append(Expected(f"{number}", cost_s, number))
    for tenant, own in waiting.items():
        found = starts_of(tenant, waiting, tags, time, weights, one(3.0))
        for job in own:
            assert start_of(job, tenant, waiting, tags, time, weights, one(3.0)) == pytest.approx(found[job.prompt_id])


def test_what_does_not_wait_has_no_start() -> None:
    assert start_of(Expected("gone", 1.0, 9), A, {A: jobs("a", 3, 1.0)}, {}, 0.0, {}, one(0.0)) is None


def test_one_start_behind_very_many_has_no_estimate() -> None:
    many = jobs("a", forecast.MAX_STEPS + 1, 1.0)
    assert start_of(many[-2], A, {A: many}, {}, 0.0, {}, one(0.0)) == forecast.MAX_STEPS - 1
    assert start_of(many[-1], A, {A: many}, {}, 0.0, {}, one(0.0)) is None
    alone = Expected("b0", 1.0, 9000)
    others = {B: [alone], A: [each._replace(cost_s=0.0) for each in many]}
    assert start_of(alone, B, others, {}, 0.0, {}, one(0.0)) is None


def test_several_are_free_one_after_the_other() -> None:
    waiting = {A: jobs("a", 5, 10.0)}
    found = starts_of(A, waiting, {}, 0.0, {}, two(4.0, 0.0))
    assert found == {"a0": 0.0, "a1": 4.0, "a2": 10.0, "a3": 14.0, "a4": 20.0}
    assert start_of(waiting[A][3], A, waiting, {}, 0.0, {}, two(4.0, 0.0)) == 14.0


def at(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_a_job_is_expected_where_it_may_go() -> None:
    own = [Expected("a0", 10.0, 1, at("two")), Expected("a1", 10.0, 2), Expected("a2", 10.0, 3, at("two", "three"))]
    found = starts_of(A, {A: own}, {}, 0.0, {}, two(0.0, 30.0))
    assert found == {"a0": 30.0, "a1": 0.0, "a2": 40.0}
    for job in own:
        assert start_of(job, A, {A: own}, {}, 0.0, {}, two(0.0, 30.0)) == found[job.prompt_id]


def test_what_may_go_nowhere_has_no_estimate_and_keeps_nobody_waiting() -> None:
    own = [Expected("a0", 90.0, 1, at("three")), Expected("a1", 10.0, 2), Expected("a2", 10.0, 3)]
    waiting = {A: own, B: [Expected("b0", 5.0, 4)]}
    found = starts_of(A, waiting, {}, 0.0, {}, one(1.0))
    assert found == {"a1": 1.0, "a2": 16.0}
    assert [start_of(job, A, waiting, {}, 0.0, {}, one(1.0)) for job in own] == [None, 1.0, 16.0]
    assert starts_of(A, waiting, {}, 0.0, {}, Busy({})) == {}
    assert start_of(own[1], A, waiting, {}, 0.0, {}, Busy({})) is None


def test_one_that_is_fast_is_waited_for() -> None:
    """As it is when a job is given (policy.placement)."""
    found = starts_of(A, {A: jobs("a", 3, 10.0)}, {}, 0.0, {}, two(4.0, 0.0, one=2.0))
    assert found == {"a0": 4.0, "a1": 0.0, "a2": 9.0}
