"""What jobs are expected to cost."""

from __future__ import annotations

import math

import pytest

from policy.costs import Costs
from tests.policy.queueing import A, B


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
