"""Fair queueing, case by case: whose job is next."""

from __future__ import annotations

import heapq
import itertools
import math
import random

import pytest

from policy.costs import DEFAULT_COST_S, Costs
from policy.fairness import FairQueue, Listed
from policy.principal import TenantId
from tests.policy.queueing import A, B, C, Worker, measured, workflow_of


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


def test_a_number_below_all_that_was_given_by_hand_turns_no_time_back() -> None:
    queue = FairQueue()
    numbers = [queue.claim(A, str(index)) for index in range(3)]
    queue.start("0")
    queue.finish("0", 10.0)
    queue.adopt(Listed(-5.0, B, "front"))
    queue.start("front")
    queue.finish("front", 1000.0)
    assert queue.claim(A, "own") > numbers[-1]


def test_a_number_beyond_all_that_was_given_by_hand_says_nothing_of_shares() -> None:
    for gpu_s in (30.0, None):
        queue = FairQueue()
        queue.adopt(Listed(2.0**50, A, "last"))
        assert queue.knows("last")
        if gpu_s is None:
            queue.release("last")
        else:
            queue.finish("last", gpu_s)
        assert queue.claim(A, "own") == FairQueue().claim(A, "own")


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
    assert costs.estimate(A, "new") == 10.0
    costs.measure(A, "x", 2.0)
    assert costs.estimate(A, "x") == 2.0
    assert costs.estimate(A, "new") == 2.0
    costs.measure(A, "x", 4.0)
    assert 2.0 < costs.estimate(A, "x") < 4.0
    costs.measure(A, "y", 8.0)
    costs.estimate(A, "x")
    costs.measure(A, "z", math.nan)
    assert costs.estimate(A, "x") < 4.0
    assert costs.estimate(A, "z") == 24 * 3600.0
    assert costs.estimate(A, "y") == costs.estimate(A, "new"), "the longest unused one went"


def test_a_neighbours_long_jobs_are_not_expected_of_others() -> None:
    costs = Costs(default_s=10.0)
    for _ in range(20):
        costs.measure(A, "the same template", 3600.0)
    assert costs.estimate(B, "the same template") == costs.estimate(B, "new") == 10.0
    costs.measure(B, "short", 0.5)
    assert costs.estimate(B, "new") == 0.5
    assert costs.estimate(A, "new") == pytest.approx(3600.0)


def test_where_all_jobs_are_short_a_newcomers_are_expected_to_be() -> None:
    costs = Costs(default_s=10.0)
    costs.measure(A, "x", 2.0)
    assert costs.estimate(B, "x") == costs.estimate(B, "new") == 2.0


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
    assert [queue.cost_s(prompt_id) for prompt_id in ("nobody", "2")] == [0.0, 4.0]


def test_what_is_pending_is_counted_whatever_ends_first() -> None:
    queue = FairQueue()
    for name in ("one", "two", "three"):
        queue.claim(A, name)
    queue.claim(B, "other")
    queue.adopt(Listed(2.0**50, A, "by hand"))
    assert queue.pending_cost_s(A) == pytest.approx(4 * DEFAULT_COST_S)
    queue.start("one")
    for name in ("two", "by hand", "one"):
        queue.finish(name)
    assert queue.pending_cost_s(A) == pytest.approx(DEFAULT_COST_S)
    assert [queue.knows(name) for name in ("one", "three", "by hand", "nobody's")] == [False, True, False, False]
    queue.release("three")
    assert queue.pending_cost_s(A) == 0.0
    assert queue.pending_cost_s(B) == pytest.approx(DEFAULT_COST_S)


@pytest.mark.parametrize("seed", range(3))
def test_sums_are_those_of_the_jobs_after_any_order_of_events(seed: int) -> None:
    alive: dict[str, TenantId] = {}
    chance, queue = random.Random(seed), FairQueue()
    for number in range(400):
        if alive and chance.random() < 0.5:
            name = chance.choice(sorted(alive))
            end = chance.choice((queue.start, queue.finish, queue.release))
            end(name)
            if end != queue.start:
                del alive[name]
        else:
            tenant = chance.choice((A, B, C))
            queue.claim(tenant, str(number), priority=chance.choice((0.0, 0.0, 1.0)))
            alive[str(number)] = tenant
        for tenant in (A, B, C):
            whole = sum(queue.cost_s(name) for name, owner in alive.items() if owner == tenant)
            assert queue.pending_cost_s(tenant) == pytest.approx(whole)
