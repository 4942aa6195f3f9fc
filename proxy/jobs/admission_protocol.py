"""Where a job is claimed before it exists upstream: ownership, slots and its place in the queue are taken in one step."""

from __future__ import annotations

from typing import Protocol

from policy.call import ClaimedJob, ClaimJob, JobUpdate
from policy.principal import Principal


class JobAdmissions(Protocol):
    async def claim(self, principal: Principal, wish: ClaimJob) -> ClaimedJob:
        """Raises LimitExceeded when the tenant has no slot or budget left."""
        ...

    def submitted(self, job: ClaimedJob) -> None:
        """ComfyUI took the job."""
        ...

    def apply_update(self, update: JobUpdate) -> None:
        """An answer to its tenant tells something of a job."""
        ...

    def release(self, prompt_id: str) -> None:
        """The job never came to be."""
        ...
