"""When waiting jobs will probably begin."""

from __future__ import annotations

from policy import forecast
from policy.forecast import Expected, starts_of
from policy.principal import TenantId

A, B = TenantId("a"), TenantId("b")


def jobs(tenant: str, count: int, cost_s: float, first: int = 1) -> list[Expected]:
    return [Expected(f"{tenant}{number}", cost_s, first + number) for number in range(count)]


def test_who_is_alone_waits_for_what_runs_and_for_its_own() -> None:
    assert starts_of(A, {A: jobs("a", 3, 10.0)}, {}, 0.0, {}, 5.0) == {"a0": 5.0, "a1": 15.0, "a2": 25.0}


def test_a_newcomer_waits_for_one_job_of_a_busy_neighbour_at_most() -> None:
    waiting = {A: jobs("a", 100, 10.0), B: jobs("b", 1, 1.0, first=200)}
    assert starts_of(B, waiting, {A: 500.0}, 490.0, {}, 3.0) == {"b0": 3.0}


def test_shares_are_by_weight() -> None:
    waiting = {A: jobs("a", 4, 10.0), B: jobs("b", 8, 10.0)}
    found = starts_of(A, waiting, {}, 0.0, {"b": 3.0}, 0.0)
    assert found["a1"] == 40.0, "three of b's between"


def test_what_comes_very_late_has_no_estimate() -> None:
    found = starts_of(A, {A: jobs("a", forecast.MAX_STEPS + 5, 1.0)}, {}, 0.0, {}, 0.0)
    assert len(found) == forecast.MAX_STEPS


def test_nobody_waits() -> None:
    assert starts_of(A, {}, {}, 0.0, {}, 9.0) == {}
