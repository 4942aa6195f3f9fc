"""How many jobs wait and are with ComfyUI, and what they will cost: counted as they change, so that no submission looks through those that wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from policy.principal import TenantId
from proxy.jobs.job import GIVEN, Job, JobState

MAX_CHANGED: Final = 10_000
"""Of more it is not told which they are."""


@dataclass(slots=True)
class _Counted:
    tenant: TenantId
    is_waiting: bool = False
    cost_s: float = 0.0


class Tally:
    """Of the jobs that have not ended. given: those with ComfyUI, or on their way there, by id. waiting: how many are on disk, and not with ComfyUI."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Counted] = {}
        self._costs_s: dict[TenantId, float] = {}
        self.given: dict[str, Job] = {}
        self.waiting = 0
        self._changed: set[str] | None = None

    def note(self, job: Job) -> None:
        """It is new, or has changed."""
        prompt_id, tenant, cost_s, state = job.prompt_id, job.tenant, job.cost_s, job.state
        is_waiting, known = state is JobState.WAITING, self._jobs.get(prompt_id)
        if known is None:
            known = self._jobs[prompt_id] = _Counted(tenant)
            self._costs_s.setdefault(tenant, 0.0)
        if known.is_waiting is not is_waiting:
            self.waiting += 1 if is_waiting else -1
            known.is_waiting = is_waiting
        if known.cost_s != cost_s:
            self._costs_s[tenant] += cost_s - known.cost_s
            known.cost_s = cost_s
        if state in GIVEN:
            self.given[prompt_id] = job
        elif prompt_id in self.given:
            del self.given[prompt_id]
        self._note_change(prompt_id)

    def drop(self, job: Job) -> None:
        """It has ended, or is gone."""
        self._note_change(job.prompt_id)
        counted = self._jobs.pop(job.prompt_id, None)
        if counted is not None:
            self.given.pop(job.prompt_id, None)
            self.waiting -= counted.is_waiting
            self._costs_s[counted.tenant] -= counted.cost_s

    def _note_change(self, prompt_id: str) -> None:
        changed = self._changed
        if changed is not None:
            changed.add(prompt_id)
            if len(changed) > MAX_CHANGED:
                self._changed = None

    def take_changed(self) -> set[str] | None:
        """Ids of jobs that are new, have changed, have ended or are gone since it was asked last; None the first time, and when there are too many."""
        changed, self._changed = self._changed, set()
        return changed

    def cost_s(self, tenant: TenantId) -> float:
        """GPU seconds that the tenant's unfinished jobs will probably take."""
        return self._costs_s.get(tenant, 0.0)
