"""Fair queueing, simulated: a worker that takes the smallest number, as ComfyUI's does."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.fairness import DEFAULT_COST_S, Costs, FairQueue, Listed
from policy.principal import TenantId

A, B, C = TenantId("a"), TenantId("b"), TenantId("c")
TENANTS = (A, B, C)


class Arrival(NamedTuple):
    at_s: float
    tenant: TenantId
    cost_s: float
    priority: float = 0.0


class Run(NamedTuple):
    prompt_id: str
    tenant: TenantId
    arrived_s: float
    started_s: float
    ended_s: float
    cost_s: float


@dataclass
class Worker:
    """ComfyUI's one worker and its queue, on a clock of its own."""

    queue: FairQueue
    now_s: float = 0.0
    pending: list[tuple[float, str, TenantId, float, float]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    ids: itertools.count[int] = field(default_factory=itertools.count)

    def submit(self, tenant: TenantId, cost_s: float, *, priority: float = 0.0, at_s: float | None = None) -> str:
        prompt_id = f"job-{next(self.ids)}"
        number = self.queue.claim(tenant, prompt_id, workflow_of(cost_s), priority)
        heapq.heappush(self.pending, (number, prompt_id, tenant, cost_s, self.now_s if at_s is None else at_s))
        return prompt_id

    def run(self, arrivals: Sequence[Arrival] = ()) -> list[Run]:
        """Runs everything; arrivals come at their times, also while a job runs."""
        waiting = sorted(arrivals)
        while waiting or self.pending:
            if not self.pending:
                self.now_s = max(self.now_s, waiting[0].at_s)
            self.admit(waiting)
            _, prompt_id, tenant, cost_s, arrived_s = heapq.heappop(self.pending)
            self.queue.start(prompt_id)
            started_s, self.now_s = self.now_s, self.now_s + cost_s
            self.admit(waiting)
            self.queue.finish(prompt_id, cost_s)
            self.runs.append(Run(prompt_id, tenant, arrived_s, started_s, self.now_s, cost_s))
        return self.runs

    def admit(self, waiting: list[Arrival]) -> None:
        while waiting and waiting[0].at_s <= self.now_s:
            arrival = waiting.pop(0)
            self.submit(arrival.tenant, arrival.cost_s, priority=arrival.priority, at_s=arrival.at_s)


def workflow_of(cost_s: float) -> str:
    return f"takes {cost_s}"


def measured(*costs_s: float) -> Costs:
    costs = Costs()
    for cost_s in costs_s:
        costs.measure(workflow_of(cost_s), cost_s)
    return costs


def order(worker: Worker) -> list[TenantId]:
    return [run.tenant for run in worker.run()]


def test_one_job_comes_next_when_a_neighbour_has_submitted_500() -> None:
    worker = Worker(FairQueue())
    for _ in range(500):
        worker.submit(A, 3.0)
    first = heapq.heappop(worker.pending)
    worker.queue.start(first[1])
    worker.submit(B, 3.0)
    assert order(worker)[:3] == [B, A, A]


def test_a_newcomer_comes_before_a_backlog_of_which_nothing_has_started() -> None:
    worker = Worker(FairQueue())
    for _ in range(500):
        worker.submit(A, 3.0)
    worker.submit(B, 3.0)
    assert order(worker)[:3] == [A, B, A]


@pytest.mark.parametrize("seed", range(5))
def test_gpu_time_is_shared_by_weight_over_400_jobs(seed: int) -> None:
    rnd = random.Random(seed)
    costs_s = (2.0, 5.0, 9.0)
    worker = Worker(FairQueue({A: 1, B: 3}, measured(*costs_s)))
    spent = {A: 0.0, B: 0.0}
    for tenant in (A, B):
        for _ in range(10):
            worker.submit(tenant, rnd.choice(costs_s))
    for _ in range(400):
        _, prompt_id, tenant, cost_s, _ = heapq.heappop(worker.pending)
        worker.queue.start(prompt_id)
        worker.queue.finish(prompt_id, cost_s)
        spent[tenant] += cost_s
        worker.submit(tenant, rnd.choice(costs_s))
    assert spent[B] / (spent[A] + spent[B]) == pytest.approx(0.75, rel=0.05)


def test_wrong_estimates_are_paid_back_so_that_shares_hold() -> None:
    """A's workflows are always new, so they are taken for average ones; in truth each is five times as long as B's."""
    worker = Worker(FairQueue({A: 1, B: 3}))
    spent = {A: 0.0, B: 0.0}
    fresh = itertools.count()
    jobs: list[tuple[float, str, TenantId]] = []

    def submit(tenant: TenantId) -> None:
        prompt_id = f"{tenant}{next(fresh)}"
        workflow = prompt_id if tenant is A else "the same"
        heapq.heappush(jobs, (worker.queue.claim(tenant, prompt_id, workflow), prompt_id, tenant))

    for tenant in (A, B):
        for _ in range(5):
            submit(tenant)
    for _ in range(400):
        _, prompt_id, tenant = heapq.heappop(jobs)
        cost_s = 20.0 if tenant is A else 4.0
        worker.queue.start(prompt_id)
        worker.queue.finish(prompt_id, cost_s)
        spent[tenant] += cost_s
        submit(tenant)
    assert spent[B] / (spent[A] + spent[B]) == pytest.approx(0.75, rel=0.05)


def test_without_neighbours_a_tenant_gets_everything_and_owes_nothing() -> None:
    worker = Worker(FairQueue())
    for _ in range(50):
        worker.submit(A, 60.0)
    assert all(first.ended_s == second.started_s for first, second in itertools.pairwise(worker.run()))
    worker.submit(B, 1.0)
    worker.submit(A, 1.0)
    worker.submit(B, 1.0)
    assert [run.tenant for run in worker.run()[50:]] == [B, A, B]


def test_order_is_kept_within_a_tenant() -> None:
    worker = Worker(FairQueue({A: 7.0, B: 0.3}))
    ids = [worker.submit(tenant, 1.0) for _ in range(50) for tenant in (A, B)]
    ran = [run.prompt_id for run in worker.run()]
    for start in (0, 1):
        mine = ids[start::2]
        assert [prompt_id for prompt_id in ran if prompt_id in mine] == mine


def test_priority_passes_only_the_tenants_own_jobs() -> None:
    worker = Worker(FairQueue())
    plain = [worker.submit(A, 1.0) for _ in range(5)]
    first = worker.submit(A, 1.0, priority=1.0)
    second = worker.submit(A, 1.0, priority=1.0)
    top = worker.submit(A, 1.0, priority=2.0)
    assert [run.prompt_id for run in worker.run()] == [top, first, second, *plain]


def test_priority_delays_no_job_of_a_neighbour() -> None:
    def ends(priority: float) -> list[float]:
        worker = Worker(FairQueue())
        for _ in range(6):
            worker.submit(A, 2.0)
            worker.submit(B, 2.0)
        for _ in range(4):
            worker.submit(A, 2.0, priority=priority)
        return [run.ended_s for run in worker.run() if run.tenant == B]

    assert ends(9.0) == ends(0.0)


def test_jobs_of_priority_do_not_hold_up_a_newcomers_second_job() -> None:
    worker = Worker(FairQueue())
    for _ in range(20):
        worker.submit(A, 1.0)
    for _ in range(20):
        worker.submit(A, 1.0, priority=1.0)
    first = heapq.heappop(worker.pending)
    worker.queue.start(first[1])
    for _ in range(4):
        worker.submit(B, 1.0)
    assert order(worker)[:8] == [B, A, B, A, B, A, B, A]


def test_priority_means_nothing_when_nothing_can_be_passed() -> None:
    queue = FairQueue()
    first = queue.claim(A, "1", priority=5.0)
    queue.start("1")
    assert queue.claim(A, "2", priority=5.0) == first + DEFAULT_COST_S
    assert queue.claim(A, "3", priority=math.nan) == first + 2 * DEFAULT_COST_S
    assert queue.claim(A, "4", priority=-1.0) == first + 3 * DEFAULT_COST_S


def test_an_admin_jumps_before_all_and_the_later_jump_comes_first() -> None:
    queue = FairQueue()
    numbers = [queue.claim(A, str(index)) for index in range(3)]
    first = queue.claim_front(B, "front-1")
    second = queue.claim_front(B, "front-2")
    assert second < first < min(numbers)
    assert queue.claim_front(B, "front-1") == first
    queue.start("front-2")
    queue.finish("front-2", 1000.0)
    # Time did not go back, and the tenant was not charged.
    assert queue.claim(B, "own") < numbers[1]


def test_an_admins_job_that_is_taken_back_leaves_nothing() -> None:
    queue = FairQueue()
    queue.claim_front(B, "front")
    queue.release("front")
    assert len(queue) == 0
    assert queue.claim(B, "own") == FairQueue().claim(B, "own")


def test_a_claim_is_idempotent() -> None:
    queue = FairQueue()
    assert queue.claim(A, "1") == queue.claim(A, "1")
    assert len(queue) == 1


def test_a_job_that_never_ran_is_not_charged() -> None:
    queue = FairQueue()
    first = queue.claim(A, "0")
    queue.start("0")
    queue.claim(A, "1")
    queue.release("1")
    queue.release("1")
    queue.finish("nobody knows it", 3.0)
    assert queue.claim(A, "2") == first + DEFAULT_COST_S


def test_a_restart_goes_on_from_comfyuis_queue() -> None:
    before = FairQueue({A: 1, B: 1})
    jobs = [
        Listed(before.claim(tenant, f"{tenant}{index}"), tenant, f"{tenant}{index}")
        for index in range(5)
        for tenant in (A, B)
    ]
    before.start("a0")
    after = FairQueue({A: 1, B: 1})
    after.rebuild(reversed(jobs), running=["a0"])
    assert len(after) == 10
    taken = {job.number for job in jobs}
    for tenant in (A, B):
        number = after.claim(tenant, f"{tenant}-new")
        assert number > max(job.number for job in jobs if job.tenant == tenant)
        assert number not in taken
    newcomer = after.claim(C, "c")
    assert newcomer < jobs[2].number, "before the second job of anybody"
    assert after.claim(C, "c-2") < max(taken)


def test_a_restart_during_an_admins_job_does_not_put_newcomers_before_everybody() -> None:
    queue = FairQueue()
    queue.rebuild([Listed(-3.0, A, "front"), Listed(1000.0, A, "1"), Listed(1010.0, B, "2")], running=["front"])
    assert 1000.0 < queue.claim(C, "c-1") < 1010.0
    assert queue.claim(C, "c-2") > 1010.0


@pytest.mark.parametrize("number", [math.inf, math.nan, 1e300])
def test_a_number_that_somebody_set_by_hand_spoils_nothing(number: float) -> None:
    queue = FairQueue()
    queue.rebuild([Listed(number, A, "odd"), Listed(5.0, B, "even")], running=["odd"])
    queue.adopt(Listed(7.0, B, "even"))
    assert queue.claim(A, "next") < 100.0
    assert queue.claim(B, "after") == 5.0 + DEFAULT_COST_S


def test_numbers_are_unique_when_everybody_arrives_at_once() -> None:
    queue = FairQueue()
    numbers = [queue.claim(TenantId(f"t{index}"), str(index)) for index in range(500)]
    assert len(set(numbers)) == 500
    assert numbers == sorted(numbers)


def test_numbers_stay_exact_over_a_very_long_run() -> None:
    queue = FairQueue({A: 0.001, B: 1000.0}, Costs(default_s=24 * 3600.0))
    first = second = 0.0
    for index in range(200):
        first = queue.claim(A, f"a{index}")
        second = queue.claim(A, f"b{index}")
        assert math.isfinite(second)
        assert first < second
        for prompt_id in (f"a{index}", f"b{index}"):
            queue.start(prompt_id)
            queue.finish(prompt_id)
    # 400 jobs of a day each at a thousandth of a share: an idle queue has started again at zero on its way.
    assert second < 2.0**33


def test_a_gap_that_is_used_up_ends_the_jumping_not_the_order() -> None:
    worker = Worker(FairQueue())
    plain = worker.submit(A, 1.0)
    for level in range(1, 400):
        worker.submit(A, 1.0, priority=float(level))
    ran = [run.prompt_id for run in worker.run()]
    assert len(set(ran)) == 400
    assert ran.index(plain) > 10


def test_a_stray_measurement_does_not_shut_a_tenant_out() -> None:
    queue = FairQueue()
    for index, tenant in enumerate((A, A, B, B)):
        queue.claim(tenant, str(index))
    queue.start("0")
    queue.finish("0", 1e9)
    assert queue.claim(A, "late") < 1000.0


def test_weights_outside_their_range_are_refused() -> None:
    for weight in (0.0, -1.0, 1e-9, 1e9, math.nan, math.inf):
        with pytest.raises(ValueError, match="weight of a"):
            FairQueue({A: weight})


def test_costs_follow_what_like_workflows_took() -> None:
    costs = Costs(default_s=10.0, max_workflows=2)
    assert costs.estimate("new") == 10.0
    costs.measure("x", 2.0)
    assert costs.estimate("x") == 2.0
    assert costs.estimate("new") == 2.0
    costs.measure("x", 4.0)
    assert 2.0 < costs.estimate("x") < 4.0
    costs.measure("y", 8.0)
    costs.estimate("x")
    costs.measure("z", math.nan)
    assert len(costs) == 2
    assert costs.estimate("x") < 4.0, "the longest unused one went"
    assert costs.estimate("z") == 24 * 3600.0


def test_an_interrupted_job_is_charged_but_teaches_nothing() -> None:
    queue = FairQueue(costs=measured(8.0))
    first = queue.claim(A, "1", workflow_of(8.0))
    queue.claim(B, "2", workflow_of(8.0))
    queue.start("1")
    queue.finish("1", 1.0, is_complete=False)
    assert queue.claim(A, "3", workflow_of(8.0)) == first + 1.0
    assert queue.pending_cost_s(A) == 8.0


def test_queued_costs_are_known_for_the_budget() -> None:
    queue = FairQueue(costs=measured(4.0))
    queue.claim(A, "1", workflow_of(4.0))
    queue.claim(A, "2", workflow_of(4.0))
    queue.claim(B, "3", workflow_of(4.0))
    assert queue.pending_cost_s(A) == 8.0
    queue.finish("1", 4.0)
    assert queue.pending_cost_s(A) == 4.0


def backlogged(runs: Sequence[Run], tenant: str) -> list[tuple[float, float]]:
    """The spans of time in which the tenant had something pending or running."""
    spans: list[tuple[float, float]] = []
    for start_s, end_s in sorted((run.arrived_s, run.ended_s) for run in runs if run.tenant == tenant):
        if spans and start_s <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end_s, spans[-1][1]))
        else:
            spans.append((start_s, end_s))
    return spans


def worst_unfairness(runs: Sequence[Run], weights: Mapping[str, float]) -> float:
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
    ),
    min_size=1,
    max_size=50,
)
shares = st.fixed_dictionaries({tenant: st.sampled_from((1.0, 2.0, 3.0)) for tenant in TENANTS})


@settings(max_examples=150, deadline=None)
@given(arrivals, shares)
def test_backlogged_tenants_differ_by_one_job_of_each_at_most(coming: list[Arrival], weights: dict[str, float]) -> None:
    runs = Worker(FairQueue(weights, measured(*COSTS_S))).run(coming)
    assert worst_unfairness(runs, weights) <= 1 + 1e-9


@settings(max_examples=150, deadline=None)
@given(prioritised, shares)
def test_priorities_cost_neighbours_one_job_more_at_most(coming: list[Arrival], weights: dict[str, float]) -> None:
    runs = Worker(FairQueue(weights, measured(*COSTS_S))).run(coming)
    assert len(runs) == len(coming)
    assert worst_unfairness(runs, weights) <= 2 + 1e-9


@settings(max_examples=150, deadline=None)
@given(arrivals, shares)
def test_nobody_waits_longer_than_a_fair_share_plus_one_job_of_each_neighbour(
    coming: list[Arrival], weights: dict[str, float]
) -> None:
    """Theorem 4 of the paper: a job ends by the time it would with its share of the GPU alone, plus the longest job of each neighbour and its own."""
    runs = Worker(FairQueue(weights, measured(*COSTS_S))).run(coming)
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
