"""A few rounds; `make faults` plays a hundred."""

from __future__ import annotations

import secrets

from tests.faults.webhooks import JOBS, play

ROUNDS = 3


async def test_every_accepted_job_is_told_whenever_the_gate_is_killed() -> None:
    tally = await play(ROUNDS, secrets.randbelow(2**31))
    assert not tally.wrong, f"--only webhooks --rounds {ROUNDS} --seed {tally.seed}\n" + "\n".join(tally.wrong)
    assert 0 < tally.counts["jobs"] <= JOBS * ROUNDS, "what comes while the gate is down is not accepted"
