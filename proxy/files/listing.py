"""The tenants' own files on ComfyUI's disk, where the gate can see it (`upstream.directory`): listings for rules."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from policy.namespace import Folder, path_to_client
from policy.principal import TenantId
from policy.rule_context import OwnFiles
from proxy.files.directories import Directories, Home
from proxy.limits.keyed_semaphore import KeyedSemaphore

MAX_LISTED: Final = 10_000


class FileListing:
    unknown = OwnFiles()

    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        self._exclusive_runs = KeyedSemaphore()

    async def listing(self, tenant: TenantId) -> OwnFiles:
        if self._directories.first is None:
            return self.unknown
        # One at a time: a tenant with many files would take all threads, and everybody's pictures wait for one.
        async with self._exclusive_runs.of(tenant):
            return await asyncio.to_thread(self._list, tenant)

    def _list(self, tenant: TenantId) -> OwnFiles:
        return OwnFiles(input=self._names(Folder.INPUT, tenant), output=self._names(Folder.OUTPUT, tenant))

    def _names(self, folder: Folder, tenant: TenantId) -> tuple[str, ...]:
        found: list[tuple[float, str]] = []
        for home in self._directories.homes_of(tenant, folder):
            _find(home, found)
        return tuple(name for _, name in sorted(found, reverse=True))


def _find(home: Home, found: list[tuple[float, str]]) -> None:
    """Adds times and names."""
    for seen, (path, folders, files) in enumerate(os.walk(home.folder)):
        folders[:] = [
            name for name in folders if not name.startswith(".") and os.path.join(path, name) not in home.copies
        ]
        for name in files:
            shown = path_to_client((Path(path) / name).relative_to(home.root).as_posix())
            if not name.startswith(".") and shown is not None and len(found) < MAX_LISTED:
                with suppress(FileNotFoundError):  # deleted meanwhile
                    found.append(((Path(path) / name).lstat().st_mtime, shown))
        if len(found) >= MAX_LISTED or seen >= MAX_LISTED:
            break
