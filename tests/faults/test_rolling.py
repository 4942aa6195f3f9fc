"""A rolling restart of two gates: no job is lost or runs twice, and no client that tries a second time notices."""

from __future__ import annotations

import secrets

import pytest

from tests.faults.programs import REDIS
from tests.faults.rolling import ROLLING, ROLLING_TWO, WEIGHTS, play
from tests.programs import needs

JOBS = 15


@pytest.mark.usefixtures("needs_postgresql")
@pytest.mark.parametrize("fault", [ROLLING, pytest.param(ROLLING_TWO, marks=needs(REDIS))])
async def test_nobody_who_tries_twice_notices_a_rolling_restart(fault: str) -> None:
    tally = await play(fault, JOBS, secrets.randbelow(2**31))
    assert not tally.wrong, f"--only {fault!r} --jobs {JOBS}0 --seed {tally.seed}\n" + "\n".join(tally.wrong)
    assert tally.counts["jobs"] == 2 * JOBS * len(WEIGHTS)
