"""What comes before a job is sent to its ComfyUI: its events are heard, and the files that it reads are there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sized

from policy.call import UpstreamReply
from policy.needs import Needs
from policy.principal import TenantId
from proxy.http.errors import UpstreamUnreachable
from proxy.jobs.job import Job
from proxy.jobs.job_rows import Given

Hear = Callable[[Job], Awaitable[None]]
Bring = Callable[[TenantId, Needs, str], Awaitable[UpstreamReply | None]]


async def _nothing(tenant: TenantId, needs: Needs, comfyui: str) -> UpstreamReply | None:
    return None


class Preparation:
    """bring: has the files of a job copied to a ComfyUI; answers as ComfyUI does where one of them is nowhere. far_files: which these are."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self.bring: Bring = _nothing
        self.far_files: Callable[[Needs, str], Sized] = lambda needs, comfyui: ()
        self.is_open: Callable[[TenantId, str], bool] = lambda tenant, comfyui: True
        """Whether a tenant's jobs may run at a ComfyUI."""

    def is_far(self, given: Given) -> bool:
        """Whether files of it are to be brought to where it was given."""
        return given.needs is not None and len(self.far_files(given.needs, given.job.comfyui)) > 0

    async def __call__(self, job: Job, given: Given) -> UpstreamReply | None:
        """A refusal of the job, None where everything is ready. Raises UpstreamUnavailable, UpstreamTimeout."""
        await self._hear(job)
        refusal = None if given.needs is None else await self.bring(job.tenant, given.needs, job.comfyui)
        # SECURITY: files may have been brought for minutes (tests/several/test_overtaking.py::test_who_may_not_run_there_any_more_does_not).
        if not self.is_open(job.tenant, job.comfyui):
            raise UpstreamUnreachable
        return refusal
