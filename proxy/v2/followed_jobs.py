"""The jobs that somebody may follow: those that run, those whose clients wait, and none that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from policy.principal import TenantId
from policy.rules.results import SDK_CLIENT
from proxy.jobs.job import Job, JobState
from proxy.jobs.registry import JobRegistry
from proxy.v2.followed_job import FollowedJob

LOOK_EACH_S: Final = 15.0
"""Whatever becomes of a job is announced; this is for what was not."""


class FollowedJobs:
    """history_s: how long an ended job is kept. on_gone: called with one that has ended, or is none of its tenant's any more."""

    def __init__(self, registry: JobRegistry, history_s: Callable[[], float]) -> None:
        self._registry = registry
        self._history_s = history_s
        self._followed: dict[tuple[TenantId, str], FollowedJob] = {}
        self._of_interest: dict[FollowedJob, None] = {}
        """Those that somebody has looked at, or is likely to."""
        self._timer: asyncio.TimerHandle | None = None
        self.on_gone: Callable[[FollowedJob], None] = self.drop

    def __len__(self) -> int:
        return len(self._followed)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for followed in self._followed.values():
            followed.audience.rest()

    def get(self, tenant: TenantId, prompt_id: str) -> FollowedJob | None:
        """SECURITY: an id that was one tenant's may be another's later, and who still asks for it takes nobody's place (test_job_streams.py)."""
        return self._followed.get((tenant, prompt_id))

    def of(self, tenant: TenantId) -> Iterator[FollowedJob]:
        return (followed for followed in tuple(self._followed.values()) if followed.tenant == tenant)

    def ensure(self, tenant: TenantId, prompt_id: str) -> FollowedJob:
        followed = self.get(tenant, prompt_id)
        if followed is None:
            followed = self._followed[tenant, prompt_id] = FollowedJob(tenant, prompt_id)
            if self.is_watched(followed):
                self._of_interest[followed] = None
            self._look_later()
        return followed

    def watch(self, tenant: TenantId, prompt_id: str) -> FollowedJob:
        """`ensure`, for somebody who looks."""
        followed = self.ensure(tenant, prompt_id)
        self._of_interest[followed] = None
        return followed

    def drop(self, followed: FollowedJob) -> None:
        if self.get(followed.tenant, followed.prompt_id) is followed:
            del self._followed[followed.tenant, followed.prompt_id]
            self._of_interest.pop(followed, None)

    def job(self, followed: FollowedJob) -> Job | None:
        """None where it has ended, or is gone."""
        job = self._registry.job(followed.prompt_id)
        return None if job is None or job.tenant != followed.tenant or job.state is JobState.ENDED else job

    @property
    def has_watched(self) -> bool:
        """Whether any may be watched: mostly none is, and then nothing need be found out of what is heard most often."""
        return bool(self._of_interest)

    def is_watched(self, followed: FollowedJob) -> bool:
        """Whether it is worth something to know what it does: somebody looks, or is likely to."""
        job = self._registry.job(followed.prompt_id)
        return followed.has_clients or (job is not None and job.client_id == SDK_CLIENT)

    def expires_at_s(self, job: Job) -> float:
        """Unix time until which what a job makes is kept at least, as far as is known while it runs."""
        return job.claimed_at_s + self._history_s()

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EACH_S, self._look)

    def _look(self) -> None:
        self._timer = None
        for followed in tuple(self._followed.values()):
            if self.job(followed) is None:
                self.on_gone(followed)
        if self._followed:
            self._look_later()
