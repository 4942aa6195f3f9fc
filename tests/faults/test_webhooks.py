"""A few rounds; `make faults` plays a hundred."""

from __future__ import annotations

import secrets

import pytest

from tests.faults.webhooks import JOBS, TWO_GATES, play

ROUNDS = 3


async def test_every_accepted_job_is_told_whenever_the_gate_is_killed() -> None:
    tally = await play(ROUNDS, secrets.randbelow(2**31))
    assert not tally.wrong, f"--only webhooks --rounds {ROUNDS} --seed {tally.seed}\n" + "\n".join(tally.wrong)
    assert 0 < tally.counts["jobs"] <= JOBS * ROUNDS, "what comes while the gate is down is not accepted"


@pytest.mark.usefixtures("needs_postgresql")
async def test_every_accepted_job_is_told_whichever_of_two_gates_is_killed() -> None:
    """What the killed one was sending the other one sends when its time is over."""
    tally = await play(1, secrets.randbelow(2**31), gates=2)
    assert not tally.wrong, f"--only '{TWO_GATES}' --rounds 1 --seed {tally.seed}\n" + "\n".join(tally.wrong)
    assert 0 < tally.counts["jobs"] <= JOBS
