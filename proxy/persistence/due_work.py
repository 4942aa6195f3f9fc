"""Works off what stands in the database as due, for as long as the gate runs: at once when something is written, and when its time has come."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from proxy.persistence.operations import Database, DatabaseUnavailable

POLL_S: Final = 30.0
"""Something is announced whenever it becomes due; this is for what was not."""
DATABASE_PAUSE_S: Final = 1.0
TRIM_EACH_S: Final = 60.0

_log = logging.getLogger("comfygate")


class DueWork:
    """begin: begins what is due, and gives the seconds until more is. trim: forgets what is too much, each minute. Both may raise DatabaseUnavailable.

    name: what waits then, for the log.
    """

    def __init__(
        self,
        database: Database,
        begin: Callable[[], Awaitable[float]],
        trim: Callable[[], Awaitable[object]],
        name: str,
    ) -> None:
        self._database = database
        self._begin = begin
        self._trim = trim
        self._name = name
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something may be due, or be configured otherwise."""
        self._wake.set()

    async def run(self) -> None:
        ends_hearing = self._database.on_change(self.wake)
        trimmed_s = -TRIM_EACH_S
        try:
            while True:
                self._wake.clear()
                try:
                    due_in_s = await self._begin()
                    if time.monotonic() - trimmed_s >= TRIM_EACH_S:
                        await self._trim()
                        trimmed_s = time.monotonic()
                except DatabaseUnavailable as error:
                    _log.warning("%s wait for the gate's database: %s", self._name, error)
                    await asyncio.sleep(DATABASE_PAUSE_S)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(due_in_s, POLL_S)):
                        await self._wake.wait()
        finally:
            ends_hearing()
