"""A round of each fault, with a new seed each time, which a failure tells; `make faults` plays many."""

from __future__ import annotations

import secrets

import pytest

from tests.faults.rounds import FAULTS, JOBS, SEVERAL, play

ROUNDS = 1
POSTGRESQL = "postgresql"


async def _played(fault: str) -> None:
    tally = await play(fault, ROUNDS, secrets.randbelow(2**31))
    assert not tally.wrong, f"--only '{fault}' --rounds {ROUNDS} --seed {tally.seed}\n" + "\n".join(tally.wrong)
    assert tally.counts["jobs"] + tally.counts["not accepted"] == JOBS * ROUNDS


@pytest.mark.parametrize("fault", [each for each in (*FAULTS, *SEVERAL) if each != POSTGRESQL])
async def test_every_job_ends_once_whatever_is_killed(fault: str) -> None:
    await _played(fault)


@pytest.mark.usefixtures("needs_postgresql")
async def test_every_job_ends_once_when_the_database_is_killed() -> None:
    await _played(POSTGRESQL)
