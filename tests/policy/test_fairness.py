"""Fair queueing, case by case: whose job is next."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from policy.costs import MAX_COST_S
from policy.fairness import MAX_CORRECTION_S, Head, correction_of, next_of, span_of, start_tag, time_at_rest
from policy.principal import TenantId
from tests.policy.queueing import TENANTS, A, B, C, Worker


def order(worker: Worker, jobs: int | None = None) -> list[TenantId]:
    """Whose the jobs are that run now."""
    before = len(worker.runs)
    return [run.tenant for run in worker.run(jobs=jobs)[before:]]


def heads(*tags: float, sequences: Sequence[int] = (1, 2, 3)) -> list[Head]:
    return [
        Head(tenant, tag, tenant, sequence) for tenant, tag, sequence in zip(TENANTS, tags, sequences, strict=False)
    ]


@pytest.mark.parametrize(
    ("tags", "virtual_time", "chosen"),
    [
        ((), 0.0, None),
        ((5.0,), 0.0, A),
        ((5.0, 4.0), 0.0, B),
        ((5.0, 4.0, 3.0), 3.0, C),
        ((-5.0, 4.0), 0.0, A),
    ],
)
def test_the_smallest_start_tag_goes_next(
    tags: tuple[float, ...], virtual_time: float, chosen: TenantId | None
) -> None:
    head = next_of(heads(*tags), virtual_time)
    assert (None if head is None else head.tenant) == chosen


@pytest.mark.parametrize("tags", [(0.0, 0.0, 0.0), (3.0, 1.0, 2.0)])
def test_of_equal_start_tags_the_one_that_was_submitted_first_goes_next(tags: tuple[float, ...]) -> None:
    """What was not used in the past gives nobody precedence."""
    for sequences in itertools.permutations((1, 2, 3)):
        given = heads(*tags, sequences=sequences)
        for listed in itertools.permutations(given):
            head = next_of(listed, 3.0)
            assert head is not None
            assert head.sequence == 1


def test_a_job_starts_where_its_tenants_last_one_finished_or_now() -> None:
    assert start_tag(7.0, 5.0) == 7.0
    assert start_tag(3.0, 5.0) == 5.0


def test_a_tenants_weight_makes_its_jobs_cheaper() -> None:
    assert span_of(6.0, 1.0) == 6.0
    assert span_of(6.0, 3.0) == 2.0
    assert span_of(6.0, 0.5) == 12.0


@pytest.mark.parametrize(
    ("cost_s", "gpu_s", "corrected_s"),
    [
        (10.0, 10.0, 0.0),
        (10.0, 4.0, -6.0),
        (10.0, 25.0, 15.0),
        (10.0, 1e9, MAX_CORRECTION_S),
        (10.0, float("inf"), MAX_CORRECTION_S),
        (10.0, float("nan"), MAX_CORRECTION_S),
        (MAX_COST_S, 1.0, -MAX_CORRECTION_S),
    ],
)
def test_what_was_estimated_wrong_is_paid_back_within_a_bound(cost_s: float, gpu_s: float, corrected_s: float) -> None:
    for weight in (0.5, 1.0, 4.0):
        span = span_of(cost_s, weight)
        assert correction_of(cost_s, span, gpu_s) == pytest.approx(corrected_s / weight)


def test_one_job_comes_next_when_a_neighbour_has_submitted_500() -> None:
    worker = Worker()
    for _ in range(500):
        worker.submit(A, 3.0)
    worker.run(jobs=1)
    worker.submit(B, 3.0)
    assert order(worker)[:3] == [B, A, A]


def test_a_newcomer_comes_before_a_backlog_of_which_nothing_has_started() -> None:
    worker = Worker()
    for _ in range(500):
        worker.submit(A, 3.0)
    worker.submit(B, 3.0)
    assert order(worker)[:3] == [A, B, A]


def test_a_newcomer_comes_next_however_long_its_neighbours_had_the_gpu() -> None:
    worker = Worker()
    for _ in range(300):
        worker.submit(A, 60.0)
        worker.submit(B, 60.0)
    worker.run(jobs=400)
    for _ in range(3):
        worker.submit(C, 60.0)
    assert set(order(worker, 3)) == {A, B, C}
    assert order(worker, 3).count(C) == 1, "and gets no more for having been idle"


@pytest.mark.parametrize("seed", range(5))
def test_gpu_time_is_shared_by_weight_over_400_jobs(seed: int) -> None:
    rnd = random.Random(seed)
    costs_s = (2.0, 5.0, 9.0)
    worker = Worker({A: 1, B: 3})
    for tenant in (A, B):
        for _ in range(10):
            worker.submit(tenant, rnd.choice(costs_s))
    for _ in range(400):
        worker.submit(worker.run(jobs=1)[-1].tenant, rnd.choice(costs_s))
    assert share_of(B, worker) == pytest.approx(0.75, rel=0.05)


def share_of(tenant: TenantId, worker: Worker) -> float:
    """Of the GPU's time."""
    return sum(run.cost_s for run in worker.runs if run.tenant == tenant) / sum(run.cost_s for run in worker.runs)


def test_wrong_estimates_are_paid_back_so_that_shares_hold() -> None:
    """Jobs of A are taken for average ones; in truth each is five times as long as B's."""
    worker = Worker({A: 1, B: 3})

    def submit(tenant: TenantId) -> None:
        worker.submit(tenant, 20.0 if tenant is A else 4.0, estimate_s=10.0 if tenant is A else 4.0)

    for tenant in (A, B):
        for _ in range(5):
            submit(tenant)
    for _ in range(400):
        submit(worker.run(jobs=1)[-1].tenant)
    assert share_of(B, worker) == pytest.approx(0.75, rel=0.05)


def test_a_job_that_took_less_than_was_expected_gives_back_the_rest() -> None:
    worker = Worker()
    for _ in range(20):
        worker.submit(A, 1.0, estimate_s=10.0)
        worker.submit(B, 1.0)
    assert order(worker) == [A, B] * 20


def test_without_neighbours_a_tenant_gets_everything_and_owes_nothing() -> None:
    worker = Worker()
    for _ in range(50):
        worker.submit(A, 60.0)
    assert all(first.ended_s == second.started_s for first, second in itertools.pairwise(worker.run()))
    worker.submit(B, 1.0)
    worker.submit(A, 1.0)
    worker.submit(B, 1.0)
    assert order(worker) == [B, A, B]


def test_at_rest_every_debt_is_forgotten() -> None:
    assert time_at_rest([], 5.0) == 5.0
    assert time_at_rest([3.0, 9.0], 5.0) == 9.0
    worker = Worker()
    worker.submit(A, 600.0, estimate_s=1.0)
    worker.run()
    for tenant in (A, B, A, B):
        worker.submit(tenant, 10.0)
    assert order(worker) == [A, B, A, B]


@pytest.mark.parametrize("light", [1.0, 0.001])
def test_nobody_starves(light: float) -> None:
    """However small one's share and however many jobs of neighbours come in the meantime."""
    worker = Worker({A: light, B: 1000.0 * light})
    mine = [worker.submit(A, 1.0) for _ in range(2)]
    for _ in range(1002):
        worker.submit(B, 1.0)
        worker.run(jobs=1)
    ran = [run.prompt_id for run in worker.runs]
    places = [ran.index(prompt_id) for prompt_id in mine]
    assert places == [0, 1001], "one now, and one after 1,000 of a neighbour with 1,000 times the share"


def test_order_is_kept_within_a_tenant() -> None:
    worker = Worker({A: 7.0, B: 0.3})
    ids = [worker.submit(tenant, 1.0) for _ in range(50) for tenant in (A, B)]
    ran = [run.prompt_id for run in worker.run()]
    for start in (0, 1):
        mine = ids[start::2]
        assert [prompt_id for prompt_id in ran if prompt_id in mine] == mine


def test_priority_delays_no_job_of_a_neighbour() -> None:
    def ends(priority: float) -> list[float]:
        worker = Worker()
        for _ in range(6):
            worker.submit(A, 2.0)
            worker.submit(B, 2.0)
        for _ in range(4):
            worker.submit(A, 2.0, priority=priority)
        return [run.ended_s for run in worker.run() if run.tenant == B]

    assert all(with_it <= without for with_it, without in zip(ends(9.0), ends(0.0), strict=True))


def test_jobs_of_priority_do_not_hold_up_a_newcomers_second_job() -> None:
    worker = Worker()
    for _ in range(20):
        worker.submit(A, 1.0)
    for _ in range(20):
        worker.submit(A, 1.0, priority=1.0)
    worker.run(jobs=1)
    for _ in range(4):
        worker.submit(B, 1.0)
    assert order(worker)[:8] == [B, A, B, A, B, A, B, A]


def test_a_stray_measurement_does_not_shut_a_tenant_out() -> None:
    worker = Worker()
    worker.submit(A, MAX_COST_S, estimate_s=10.0)
    for _ in range(100):
        worker.submit(B, 10.0)
    worker.run(jobs=1)
    worker.submit(A, 10.0)
    assert 1 < order(worker).index(A) <= MAX_CORRECTION_S / 10.0 + 2
