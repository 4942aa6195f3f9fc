"""Fair queueing, as promised: what holds for every order of arrivals."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.principal import TenantId
from tests.policy.queueing import TENANTS, Arrival, Run, Worker


def backlogged(runs: Sequence[Run], tenant: str) -> list[tuple[float, float]]:
    """The spans of time in which the tenant had something pending or running."""
    spans: list[tuple[float, float]] = []
    for start_s, end_s in sorted((run.arrived_s, run.ended_s) for run in runs if run.tenant == tenant):
        if spans and start_s <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end_s, spans[-1][1]))
        else:
            spans.append((start_s, end_s))
    return spans


def worst_unfairness(runs: Sequence[Run], weights: Mapping[TenantId, float]) -> float:
    """Over all pairs of tenants and all spans in which both are backlogged: the difference of their weighted GPU time, in units of one job of each.

    Start-time fair queueing promises at most 1 (Goyal, Vin, Cheng, theorem 1).
    """
    worst = 0.0
    longest = {tenant: max((run.cost_s for run in runs if run.tenant == tenant), default=0.0) for tenant in weights}
    for one, other in itertools.combinations(weights, 2):
        bound = longest[one] / weights[one] + longest[other] / weights[other]
        for (from_1, to_1), (from_2, to_2) in itertools.product(backlogged(runs, one), backlogged(runs, other)):
            start_s, end_s = max(from_1, from_2), min(to_1, to_2)
            inside = [run for run in runs if run.started_s >= start_s - 1e-9 and run.ended_s <= end_s + 1e-9]
            for first in range(len(inside)):
                gained = {one: 0.0, other: 0.0}
                for run in inside[first:]:
                    if run.tenant in gained:
                        gained[run.tenant] += run.cost_s / weights[run.tenant]
                        worst = max(worst, abs(gained[one] - gained[other]) / bound)
    return worst


COSTS_S = (1.0, 2.0, 5.0, 10.0)
arrivals = st.lists(
    st.builds(
        Arrival,
        at_s=st.one_of(st.just(0.0), st.integers(0, 60).map(float)),
        tenant=st.sampled_from(TENANTS),
        cost_s=st.sampled_from(COSTS_S),
        priority=st.just(0.0),
        estimate_s=st.none(),
    ),
    min_size=1,
    max_size=50,
)
prioritised = st.lists(
    st.builds(
        Arrival,
        at_s=st.one_of(st.just(0.0), st.integers(0, 60).map(float)),
        tenant=st.sampled_from(TENANTS),
        cost_s=st.sampled_from(COSTS_S),
        priority=st.sampled_from((0.0, 0.0, 1.0, 2.0)),
        estimate_s=st.none(),
    ),
    min_size=1,
    max_size=50,
)
shares = st.fixed_dictionaries({tenant: st.sampled_from((1.0, 2.0, 3.0)) for tenant in TENANTS})


@settings(max_examples=80)
@given(arrivals, shares)
def test_backlogged_tenants_differ_by_one_job_of_each_at_most(
    coming: list[Arrival], weights: dict[TenantId, float]
) -> None:
    runs = Worker(weights).run(coming)
    assert worst_unfairness(runs, weights) <= 1 + 1e-9


@settings(max_examples=80)
@given(prioritised, shares)
def test_priorities_cost_neighbours_nothing(coming: list[Arrival], weights: dict[TenantId, float]) -> None:
    runs = Worker(weights).run(coming)
    assert len(runs) == len(coming)
    assert worst_unfairness(runs, weights) <= 1 + 1e-9


@settings(max_examples=80)
@given(arrivals, shares)
def test_nobody_waits_longer_than_a_fair_share_plus_one_job_of_each_neighbour(
    coming: list[Arrival], weights: dict[TenantId, float]
) -> None:
    """Theorem 4 of the paper: a job ends by the time it would with its share of the GPU alone, plus the longest job of each neighbour and its own."""
    runs = Worker(weights).run(coming)
    total = sum(weights.values())
    longest = {tenant: max((run.cost_s for run in runs if run.tenant == tenant), default=0.0) for tenant in weights}
    for tenant in weights:
        mine = sorted((run for run in runs if run.tenant == tenant), key=lambda run: int(run.prompt_id[4:]))
        fair_start_s = 0.0
        for run in mine:
            fair_start_s = max(fair_start_s, run.arrived_s)
            others_s = sum(cost_s for other, cost_s in longest.items() if other != tenant)
            assert run.ended_s <= fair_start_s + others_s + run.cost_s + 1e-6
            fair_start_s += run.cost_s * total / weights[tenant]
