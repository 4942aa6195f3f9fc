"""Jobs that were given to a ComfyUI and whose files are to be brought there first: those of one tenant stay in their order, those of others pass."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from proxy.jobs.job_rows import Given
from proxy.persistence.operations import DatabaseUnavailable
from proxy.tasks import Tasks

TRY_AGAIN_S: Final = 1.0

_log = logging.getLogger("comfygate")


class Aside:
    """is_far: whether files would have to be brought. send: prepares and sends one; False where that is not possible at the moment. give_back: has these
    wait again. forget: nobody knows what became of these. on_over: called when nothing of a tenant is here any more.
    """

    def __init__(
        self,
        is_far: Callable[[Given], bool],
        send: Callable[[Given], Awaitable[bool]],
        give_back: Callable[[Sequence[Given]], Awaitable[None]],
        forget: Callable[[Sequence[Given]], None],
        on_over: Callable[[], None] = lambda: None,
    ) -> None:
        self._is_far = is_far
        self._send = send
        self._give_back = give_back
        self._forget = forget
        self._on_over = on_over
        self._tasks = Tasks()
        self._lines: dict[str, deque[Given]] = {}
        """By tenant; the first one of each is being sent."""

    def take(self, given: Given) -> bool:
        """Whether it is sent from here: also what need not wait itself stays behind what its tenant sent before it."""
        tenant = given.job.tenant
        line = self._lines.get(tenant)
        if line is not None:
            line.append(given)
        elif self._is_far(given):
            self._lines[tenant] = deque((given,))
            self._tasks.start(self._work_off(tenant, self._lines[tenant]), "a job whose files are brought")
        else:
            return False
        return True

    @property
    def tenants(self) -> frozenset[str]:
        """Whose jobs are here."""
        return frozenset(self._lines)

    async def stop(self) -> None:
        await self._tasks.stop()

    async def _work_off(self, tenant: str, line: deque[Given]) -> None:
        held: list[Given] = []
        try:
            while line:
                held = [line.popleft()]
                if not await self._send(held[0]):
                    await self._return(held, line)
                    await asyncio.sleep(TRY_AGAIN_S)
                    await self._return(held, line)  # what came meanwhile would come before those
                held.clear()
        except DatabaseUnavailable as error:
            _log.warning("jobs wait until the database can be used again: %s", error)
            self._forget((*held, *line))
        except Exception:
            self._forget((*held, *line))
            raise
        finally:
            del self._lines[tenant]
            self._on_over()

    async def _return(self, held: list[Given], line: deque[Given]) -> None:
        """Raises DatabaseUnavailable; those that it was to give back are held then."""
        held[:] = line
        line.clear()
        await self._give_back(tuple(held))
        held.clear()
