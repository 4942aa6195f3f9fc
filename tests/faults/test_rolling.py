"""A rolling restart of two gates: no job is lost or runs twice, and no client that tries a second time notices."""

from __future__ import annotations

import secrets

import pytest

from tests.faults.rolling import ROLLING, WEIGHTS, play

JOBS = 15


@pytest.mark.usefixtures("needs_postgresql")
async def test_nobody_who_tries_twice_notices_a_rolling_restart() -> None:
    tally = await play(JOBS, secrets.randbelow(2**31))
    assert not tally.wrong, f"--only {ROLLING!r} --jobs {JOBS} --seed {tally.seed}\n" + "\n".join(tally.wrong)
    assert tally.counts["jobs"] == 2 * JOBS * len(WEIGHTS)
