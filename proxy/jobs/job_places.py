"""Where each waiting job may go, of several ComfyUIs: for estimates, which look at many jobs and may be a little late."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from proxy.jobs.job import Job
from proxy.jobs.placing import Placing
from proxy.jobs.store_reading import needs_of
from proxy.persistence.operations import Database

LEARNED_AT_ONCE: Final = 32
"""Jobs that are looked up for one estimate. What a job needs may be sixty kilobytes; who asks for estimates again and again reads each job once."""
MAX_KNOWN: Final = 20_000


class _Known(NamedTuple):
    """by: what it was found by. sources: by the name of each ComfyUI that has what the job needs, those that must be there too."""

    by: object
    sources: Mapping[str, frozenset[str]]


class JobPlaces:
    def __init__(self, placing: Placing) -> None:
        self._placing = placing
        self._known: dict[int, _Known] = {}

    def of(self, job: Job) -> frozenset[str] | None:
        """Names; None where it is not known yet, so that any is taken for one."""
        known = self._known.get(job.sequence)
        if known is None:
            return None
        return frozenset(name for name, sources in known.sources.items() if all(map(self._placing.is_there, sources)))

    def speeds(self) -> Mapping[str, float]:
        return self._placing.speeds()

    async def learn(self, database: Database, jobs: Iterable[Job]) -> None:
        """Of the first of these that are new, or of which it may be otherwise by now. Raises DatabaseUnavailable."""
        by = self._placing.basis()
        new = self._find_new(jobs, by)
        if not new:
            return
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        needs = await database.read(needs_of, [job.prompt_id for job in new.values()])

        def look() -> None:
            for sequence, job in new.items():
                places = self._placing.places_of(job.tenant, needs.get(job.prompt_id, b""))
                self._known[sequence] = _Known(by, places)

        await asyncio.to_thread(look)

    def _find_new(self, jobs: Iterable[Job], by: object) -> dict[int, Job]:
        """By sequence: an id may come again, for another job."""
        found: dict[int, Job] = {}
        for job in jobs:
            known = self._known.get(job.sequence)
            if known is None or known.by != by:
                found[job.sequence] = job
                if len(found) >= LEARNED_AT_ONCE:
                    break
        return found
