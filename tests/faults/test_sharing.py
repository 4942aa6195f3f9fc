"""Two gates on one PostgreSQL, of which one is lost: each job runs once, and the GPU is shared by weight."""

from __future__ import annotations

import secrets

import pytest

from tests.faults.recording import Line
from tests.faults.sharing import HOLDER, WEIGHTS, play, shares_of

JOBS = 200


@pytest.mark.usefixtures("needs_postgresql")
async def test_each_job_of_two_gates_runs_once_and_shares_are_by_weight() -> None:
    tally = await play(JOBS, secrets.randbelow(2**31))
    assert not tally.wrong, f"--only 'two gates' --jobs {JOBS} --seed {tally.seed}\n" + "\n".join(tally.wrong)
    assert tally.counts["jobs"] >= JOBS


def begun(*tenants: str) -> list[Line]:
    return [Line("begin", f"id-{index}", f"{tenant}-{index}", 1, float(index)) for index, tenant in enumerate(tenants)]


ROUND = [tenant for tenant, weight in WEIGHTS.items() for _ in range(int(weight))]


WAITED = {tenant: round(20 * weight) for tenant, weight in WEIGHTS.items()}


def test_shares_are_counted_until_a_tenant_may_have_no_job_left() -> None:
    shares = shares_of(begun(HOLDER, *ROUND * 20, *["eve"] * 50), WAITED)
    assert shares.total == 20 * len(ROUND) - len(ROUND) + 1, "ann's last job is the first of the last round"
    assert not shares.wrong()


def test_what_begins_while_a_tenant_has_to_wait_is_not_counted() -> None:
    others = [tenant for tenant in ROUND if tenant != "eve"] * 3
    lines = begun(*ROUND * 5, *others, *ROUND * 9)
    lost_s, settled_s = 5.0 * len(ROUND), 5.0 * len(ROUND) + len(others)
    before, after = shares_of(lines, WAITED, until_s=lost_s), shares_of(lines, WAITED, since_s=settled_s)
    assert [before.total, after.total] == [5 * len(ROUND), 9 * len(ROUND)]
    assert not before.wrong()
    assert not after.wrong()
    assert any(line.startswith("eve") for line in shares_of(lines, WAITED).wrong())


@pytest.mark.parametrize("extra", ["ann", "eve"])
def test_a_share_that_is_too_large_is_found(extra: str) -> None:
    shares = shares_of(begun(*(ROUND + [extra] * 2) * 20), WAITED)
    assert any(line.startswith(extra) for line in shares.wrong())


@pytest.mark.parametrize("is_slow", [True, False])
def test_a_tenant_with_few_jobs_has_its_share_where_they_took_longer(*, is_slow: bool) -> None:
    """ann's jobs are half as many as are due to it, and take twice as long, or as long as all others."""
    tenants = [tenant for number in range(60) for tenant in ROUND if tenant != "ann" or number % 2]
    lines = [
        Line(
            event, f"id-{index}", f"{tenant}-{index}", 1, index + (2.0 if is_slow and tenant == "ann" else 1.0) * is_end
        )
        for index, tenant in enumerate(tenants)
        for is_end, event in enumerate(("begin", "end"))
    ]
    assert any(line.startswith("ann") for line in shares_of(lines, WAITED).wrong()) is not is_slow
