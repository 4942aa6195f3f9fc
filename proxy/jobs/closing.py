"""Finds out how jobs ended that ComfyUI has no more in its queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from proxy.config.comfyui import FIRST
from proxy.jobs.adoption import is_of_run
from proxy.jobs.endings import JobEndings
from proxy.jobs.history_reader import UNREADABLE, HistoryReader, HistoryUnreadable
from proxy.jobs.job import COMFYUI_GONE, GIVEN, Job, JobState
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.persistence.operations import DatabaseUnavailable
from proxy.tasks import Tasks

_HISTORY_DELAYS_S: Final = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""ComfyUI tells a job's client of its end just before it writes its history."""


class JobClosing:
    """Of jobs that this gate follows. What is not found out is asked again at the next comparison with the queue."""

    def __init__(
        self,
        registry: JobRegistry,
        records: JobRecords,
        endings: JobEndings,
        history: HistoryReader,
        on_left: Callable[[], None],
        comfyui: str = FIRST,
    ) -> None:
        """comfyui: the name of the one that has them. on_left: called when the end of a job was not found soon, so that the queue is compared again."""
        self._registry = registry
        self._records = records
        self._endings = endings
        self._history = history
        self._on_left = on_left
        self._comfyui = comfyui
        self._tasks = Tasks()
        self._closing: set[str] = set()
        self._has: dict[str, float] = {}
        self._had: dict[str, float] = {}
        """Numbers in ComfyUI's queue, by id: now, and when the connection before this one ended."""
        self._connection = registry.connections.to(comfyui)
        self.is_giving_back = False
        """Of several jobs that ComfyUI has lost some wait again already: no job is given meanwhile, so that their order stays."""

    async def stop(self) -> None:
        await self._tasks.stop()

    async def close_missing(self, prompt_ids: set[str], *, was_current: bool) -> None:
        """In the order in which ComfyUI had them; those whose end is being read already are left to that. was_current: all that ComfyUI had announced
        was known when the connection before this one ended.
        """
        self._turn_over()
        known = [job for prompt_id in prompt_ids if (job := self._registry.job(prompt_id)) is not None]
        jobs = [job for job in known if not self._is_closing(job)]
        numbers = {job.prompt_id: job.number for job in jobs}
        lost = [job for job in sorted(jobs, key=lambda job: job.number) if not await self._close(job)]
        lost = [job for job in lost if self._is_this_run(job, numbers)]
        runs = [job for job in lost if job.state is JobState.RUNNING]
        first = next(
            (job for job in lost if not _was_never_there(job, self._now) and not self._stood_behind(job)), None
        )
        self.is_giving_back = bool(lost)
        try:
            for job in lost:
                if not self._is_this_run(job, numbers):
                    continue
                if _was_never_there(job, self._now):
                    await self._endings.not_taken(job)
                    continue
                # Where none is known to have run, the first may have just begun; where it is not known what ComfyUI did last, any may have.
                is_unknown = not was_current or job.seen_in != self._now - 1
                is_first = job is first
                # What stood behind another one has run only if that one had ended, of which nothing was seen.
                is_sure = job in runs or is_first
                has_run = job in runs or is_unknown or (is_first and not runs)
                await self._endings.lost(job, has_run=has_run, is_sure=is_sure)
        finally:
            self.is_giving_back = False

    async def give_up(self, *, has_stood: bool = False) -> None:
        """ComfyUI has been away for so long that the others go on with what it had, in its order. What it ran, or may have begun, ends by the rule.

        has_stood: it was there, and is known to have begun nothing of it but what it runs, which stays there.
        """
        if not has_stood:  # else its queue tells
            for job in await self._records.doubts.give_up(self._comfyui):
                self._endings.on_waiting(job)
        given = sorted(self._had_by_comfyui(), key=lambda job: job.number)
        stay = {JobState.RUNNING} if has_stood else set[JobState]()
        jobs = [job for job in given if job.gate == self._records.gate and job.state not in stay]
        runs = any(job.state is JobState.RUNNING for job in jobs)
        self.is_giving_back = bool(jobs)
        try:
            for job in jobs:
                is_running = job.state is JobState.RUNNING
                has_run = not has_stood and (is_running or (not runs and job is given[0]))
                await self._endings.lost(job, has_run=has_run, is_sure=is_running)
        finally:
            self.is_giving_back = False

    def _is_this_run(self, job: Job, numbers: Mapping[str, float]) -> bool:
        """Whether it has not been given anew, by another gate that had taken it over, while ComfyUI or the database was waited for. numbers: before."""
        return job.state in GIVEN and job.gate == self._records.gate and job.number == numbers[job.prompt_id]

    def _stood_behind(self, job: Job) -> bool:
        """Whether ComfyUI had a job before this one, of whichever gate, of which nobody has seen that it ended."""
        given = {other.prompt_id: other.number for other in self._had_by_comfyui()}
        before = [prompt_id for prompt_id, number in (given | self._had).items() if number < job.number]
        if not all(self._was_seen_to_end(prompt_id) for prompt_id in before):
            return True
        # What was lost with it may wait again by now: each gate gives its own back, and what it has taken over later.
        others = (other for other in self._registry.active() if other is not job)
        return any(other.was_lost_since(job.given_at_s, self._comfyui) for other in others)

    def _had_by_comfyui(self) -> list[Job]:
        """Without those that are still on their way: their files may be brought meanwhile, and others have passed them."""
        return [job for job in self._registry.given_to(self._comfyui) if not job.is_in_flight]

    def _was_seen_to_end(self, prompt_id: str) -> bool:
        job = self._registry.job(prompt_id)
        return job is None or (job.state is JobState.ENDED and job.error != COMFYUI_GONE)

    def listed(self, prompt_ids: Iterable[str]) -> None:
        """ComfyUI has these in its queue. What it had when the connection before this one ended is remembered as long as this one lasts."""
        jobs = (self._registry.job(prompt_id) for prompt_id in prompt_ids)
        self._has = {job.prompt_id: job.number for job in jobs if job is not None}

    def _turn_over(self) -> None:
        if self._connection != self._now:
            self._connection, self._had = self._now, self._has

    @property
    def _now(self) -> int:
        return self._registry.connections.to(self._comfyui)

    def _is_closing(self, job: Job) -> bool:
        return job.prompt_id in self._closing and job.seen_in == self._now

    def close_soon(self, prompt_id: str) -> None:
        """Its client was told that it ended: its end is read as soon as ComfyUI's history has it."""
        job = self._registry.job(prompt_id)
        is_ours = job is not None and job.gate == self._records.gate and job.state is not JobState.ENDED
        if job is not None and is_ours and prompt_id not in self._closing:
            self._closing.add(prompt_id)
            self._tasks.start(self._close_over(job), "end of a job")

    async def _close_over(self, job: Job) -> None:
        try:
            for delay_s in _HISTORY_DELAYS_S:
                await asyncio.sleep(delay_s)
                if job.state is JobState.ENDED or await self._told(job):
                    return
        except (HistoryUnreadable, DatabaseUnavailable):
            pass  # the comparison with the queue goes on with it
        finally:
            self._closing.discard(job.prompt_id)
        self._on_left()

    async def _told(self, job: Job) -> bool:
        """Whether ComfyUI's history has the end of this run of the job, after which it may wait again. Raises HistoryUnreadable."""
        entry, size = await self._history.find(job.prompt_id)
        if entry is UNREADABLE:
            await self._endings.taken_out(job, was_watched=True)
            return True
        if not is_of_run(entry, job):
            return False
        # Else somebody else has read it while the history was asked: once more, it would be the end of a second run.
        if job.state in GIVEN:
            await self._endings.told(job, entry, size)
        return True

    async def _close(self, job: Job) -> bool:
        """False for a job that ComfyUI has lost."""
        try:
            if await self._told(job):
                return True
        except HistoryUnreadable:
            return True  # for now: the others' jobs are still to be closed
        if job.state not in GIVEN or job.gate != self._records.gate:
            return True
        if job.seen_in == self._now:
            await self._endings.taken_out(job, was_watched=True)
            return True
        return False


def _was_never_there(job: Job, connection: int) -> bool:
    """ComfyUI was sent it, did not say that it took it, and has been there ever since."""
    return job.state is JobState.SENT and job.sent_in == connection
