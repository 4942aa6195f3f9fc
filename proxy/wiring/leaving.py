"""What stands in the database of ComfyUIs that leave: a gate that is restarted meanwhile follows them on."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final

from pydantic import ValidationError

from proxy.config.comfyui import ComfyUISettings
from proxy.jobs.store_leaving import forget_leaving, leaving, note_leaving
from proxy.persistence.operations import Database, DatabaseUnavailable

_FOLLOWED_BY: Final = {"name", "url", "directory", "shared_directory", "gone_after"}

_log = logging.getLogger("comfygate")


class Leaving:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, settings: ComfyUISettings) -> bool:
        """Whether it stands there now."""
        text = settings.model_dump_json(include=_FOLLOWED_BY)
        try:
            await self._database.run(note_leaving, settings.name, text)
        except DatabaseUnavailable:
            return False
        return True

    async def forget(self, name: str) -> None:
        """It has gone, or stays. What is left there is of one that has no jobs, and goes soon after the next start."""
        with suppress(DatabaseUnavailable):
            await self._database.run(forget_leaving, name)

    async def read(self) -> list[ComfyUISettings]:
        """Raises DatabaseUnavailable."""
        found = []
        for name, text in (await self._database.read(leaving)).items():
            try:
                found.append(ComfyUISettings.model_validate_json(text))
            except ValidationError:
                _log.warning("ComfyUI %s was leaving, and is not followed: another version of the gate wrote how", name)
        return found
