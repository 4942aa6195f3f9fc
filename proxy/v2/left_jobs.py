"""Jobs whose clients have left, and wanted no result any more."""

from __future__ import annotations

import logging

from policy.principal import Principal
from policy.v2.effects import CancelJob
from proxy.persistence.operations import DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.v2.door import V2Door

_log = logging.getLogger("comfygate")


class LeftJobs:
    def __init__(self, door: V2Door) -> None:
        self._door = door
        self._tasks = Tasks()

    async def stop(self) -> None:
        """When what was begun has ended."""
        await self._tasks.finish()

    def cancel(self, principal: Principal, prompt_id: str) -> None:
        """As its tenant would; one that has ended stays as it ended."""
        self._tasks.start(self._cancel(principal, prompt_id), "cancel of a job whose client has left")

    async def _cancel(self, principal: Principal, prompt_id: str) -> None:
        try:
            await self._door.perform(principal, CancelJob(prompt_id))
        except DatabaseUnavailable as error:
            _log.warning("job %s, whose client has left, goes on: %s", prompt_id, error)
