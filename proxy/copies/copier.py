"""Makes the copies that stand in the gate's database, wipes originals whose time is over, and deletes what nobody wants. No job waits for it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from policy.attempts import wait_after
from policy.copies import CopyState
from proxy.copies import copy_operations as records
from proxy.copies.copy_operations import Kept
from proxy.copies.work import CopyWork, Done
from proxy.jobs.copy_requests import Copy
from proxy.persistence.due_work import POLL_S, DueWork
from proxy.persistence.operations import Database, DatabaseUnavailable
from proxy.tasks import Tasks

AT_ONCE: Final = 2
"""From one gate: each holds a few megabytes."""
LEASE_S: Final = 60.0
RENEW_EACH_S: Final = 20.0
MAX_OF_TENANT: Final = 100_000
"""Records of each state. What is more is not remembered, the oldest first."""

_log = logging.getLogger("comfygate")


class Copier:
    """keep_local_s: of the configuration in force, None where nothing is wiped. history_s: how long ended jobs are kept. on_done: told of each attempt, with
    what has become of it. on_lost: of a tenant's copies that were forgotten before they were made. on_counted: now and then, of how many there are
    that are not as they should be yet, by tenant and state.
    """

    def __init__(
        self,
        database: Database,
        work: CopyWork,
        gate: str,
        keep_local_s: Callable[[], float | None],
        history_s: Callable[[], float],
        on_done: Callable[[Copy, str], None] = lambda copy, result: None,
        on_lost: Callable[[str, int], None] = lambda tenant, count: None,
        on_counted: Callable[[Mapping[tuple[str, str], int]], None] = lambda counts: None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._work = work
        self._gate = gate
        self._keep_local_s = keep_local_s
        self._history_s = history_s
        self._on_done = on_done
        self._on_lost = on_lost
        self._on_counted = on_counted
        self._clock = clock
        self._chance = chance
        self._tasks = Tasks()
        self._busy: Counter[str] = Counter()
        self._kept_local: tuple[float | None] | None = None
        self._due = DueWork(database, self._take_up_and_begin, self.trim, "copies")

    async def open(self) -> None:
        """Before the first job can end. Raises DatabaseUnavailable."""
        if not self._database.is_shared:  # whoever was working at anything is gone
            await self._database.run(records.release, None, self._clock())
        await self.take_up()

    async def take_up(self) -> None:
        """When originals are wiped is as the configuration says now. Raises DatabaseUnavailable."""
        keep_s = self._keep_local_s()
        if self._kept_local != (keep_s,):
            await self._database.run(records.set_keep_local, keep_s)
            self._kept_local = (keep_s,)

    def wake(self) -> None:
        """Something may be due, or be configured otherwise."""
        self._due.wake()

    async def run(self) -> None:
        await self._due.run()

    async def _take_up_and_begin(self) -> float:
        await self.take_up()
        return await self.begin_due()

    async def begin_due(self) -> float:
        """Begins what is due, as far as there is room: of the tenant first of whom the least is being done. Seconds until more is due.

        Raises DatabaseUnavailable.
        """
        while self._busy.total() < AT_ONCE:  # who has no room wakes this when there is some
            now_s = self._clock()
            due = await self._database.read(records.next_due)
            ready = [tenant for tenant, at_s in due.items() if at_s <= now_s]
            if not ready:
                return min((at_s - now_s for at_s in due.values()), default=POLL_S)
            tenant = min(ready, key=lambda each: (self._busy[each], due[each]))
            copy = await self._database.run(records.claim, tenant, self._gate, now_s, now_s + LEASE_S)
            if copy is not None:
                self._busy[tenant] += 1
                self._tasks.start(self._do(copy), "copy")
        return POLL_S

    async def finish(self) -> None:
        """Waits for what is being done."""
        await self._tasks.finish()

    async def trim(self) -> None:
        """Raises DatabaseUnavailable."""
        kept = Kept(self._clock() - self._history_s(), MAX_OF_TENANT)
        counted: dict[tuple[str, str], int] = {}
        for tenant in await self._database.read(records.tenants):
            lost = await self._database.run(records.trim, tenant, kept)
            if lost:
                _log.warning("%d copies of tenant %s were never made, and are not waited for any longer", lost, tenant)
                self._on_lost(tenant, lost)
            counted |= {(tenant, state): n for state, n in (await self._database.read(records.counts, tenant)).items()}
        self._on_counted(counted)

    async def stop(self) -> None:
        """What is being done is done once more by the next gate."""
        await self._tasks.stop()
        with suppress(DatabaseUnavailable):
            await self._database.run(records.release, self._gate, self._clock())

    async def _do(self, copy: Copy) -> None:
        renewing = self._tasks.start(self._keep(copy, asyncio.current_task()), "claim of a copy")
        try:
            done = await self._work.do(copy)
            settled = await self._settle(copy, done)
            if settled is not None:
                self._on_done(settled, done.result)
        except DatabaseUnavailable as error:  # it is done again when its claim is over
            _log.warning("what became of a copy of job %s is not kept: %s", copy.prompt_id, error)
        finally:
            renewing.cancel()
            self._busy[copy.tenant] -= 1
            self._busy += Counter()  # forgets those without any
            self.wake()

    async def _keep(self, copy: Copy, work: asyncio.Task[None] | None) -> None:
        """Renews the claim while the work goes on, and ends the work where it is another's by now."""
        while True:
            await asyncio.sleep(RENEW_EACH_S)
            with suppress(DatabaseUnavailable):
                if not await self._database.run(records.renew, copy, self._clock() + LEASE_S):
                    _log.info("a copy of job %s is not this gate's any more", copy.prompt_id)
                    if work is not None:
                        work.cancel()
                    return

    async def _settle(self, copy: Copy, done: Done) -> Copy | None:
        """What stands in the database of it from then on; None where that was done, or is another gate's. Raises DatabaseUnavailable."""
        if done.is_settled:
            return done.copy
        settled = done.copy._replace(gate="", tried_at_s=self._clock(), note=done.note)
        if done.has_failed:
            settled = self._after_failure(copy, done)
        elif settled.state == CopyState.COPIED and copy.state == CopyState.WAITING:
            settled = settled._replace(due_at_s=self._wiped_at_s(settled))
        if await self._database.run(records.settle, settled, copy):
            return settled
        await self._work.lost(copy)
        return None

    def _after_failure(self, copy: Copy, done: Done) -> Copy:
        attempts, now_s = copy.attempts + 1, self._clock()
        wait_s = wait_after(attempts, self._chance()) if done.may_be_tried_again else None
        if wait_s is None and copy.state != CopyState.WAITING:
            wait_s = (
                86_400.0  # an original that cannot be wiped, or a copy that cannot be deleted, is no loss: each day
            )
        state = copy.state if wait_s is not None else CopyState.FAILED
        due_at_s = None if wait_s is None else now_s + wait_s
        return copy._replace(
            state=state, due_at_s=due_at_s, gate="", attempts=attempts, tried_at_s=now_s, note=done.note
        )

    def _wiped_at_s(self, copy: Copy) -> float | None:
        keep_s = self._keep_local_s()
        return None if keep_s is None or not self._work.may_wipe(copy) else (copy.copied_at_s or 0.0) + keep_s
