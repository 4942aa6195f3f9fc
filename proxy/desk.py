"""Where a job is claimed before it exists upstream: ownership and its place in the queue, in one step."""

from __future__ import annotations

import itertools

from policy.call import ClaimedJob, ClaimJob
from policy.principal import Principal
from proxy.ledger import Ledger


class Desk:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._numbers = itertools.count(1)

    async def claim(self, principal: Principal, wish: ClaimJob) -> ClaimedJob:
        job = self._ledger.claim(principal.tenant, wish.prompt_id, subject=principal.subject, workflow=wish.workflow)
        return ClaimedJob(job.prompt_id, float(next(self._numbers)))

    def submitted(self, job: ClaimedJob, was_taken: bool) -> None:
        if was_taken:
            self._ledger.submitted(job.prompt_id, job.number)
        else:
            self._ledger.release(job.prompt_id)

    def release(self, prompt_id: str) -> None:
        self._ledger.release(prompt_id)
