"""The tenants' own files on ComfyUI's disk, where the gate can see it (`upstream.directory`): listings for rules."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from policy.namespace import Folder, Namespace, path_to_client
from policy.principal import TenantId
from policy.rule_context import OwnFiles
from proxy.limits.keyed_semaphore import KeyedSemaphore

MAX_LISTED: Final = 10_000


class FileListing:
    """directory: ComfyUI's base folder; None when the gate cannot see it."""

    unknown = OwnFiles()

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._exclusive_runs = KeyedSemaphore()

    async def listing(self, tenant: TenantId) -> OwnFiles:
        if self._directory is None:
            return self.unknown
        # One at a time: a tenant with many files would take all threads, and everybody's pictures wait for one.
        async with self._exclusive_runs.of(tenant):
            return await asyncio.to_thread(self._list, tenant)

    def _list(self, tenant: TenantId) -> OwnFiles:
        return OwnFiles(input=self._names(Folder.INPUT, tenant), output=self._names(Folder.OUTPUT, tenant))

    def _names(self, folder: Folder, tenant: TenantId) -> tuple[str, ...]:
        assert self._directory is not None, "asked only where the folder is known"
        root = self._directory / folder.value / Namespace(tenant).root
        found: list[tuple[float, str]] = []
        for seen, (path, folders, files) in enumerate(os.walk(root)):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                shown = path_to_client((Path(path) / name).relative_to(root).as_posix())
                if not name.startswith(".") and shown is not None and len(found) < MAX_LISTED:
                    with suppress(FileNotFoundError):  # deleted meanwhile
                        found.append(((Path(path) / name).lstat().st_mtime, shown))
            if len(found) >= MAX_LISTED or seen >= MAX_LISTED:
                break
        return tuple(name for _, name in sorted(found, reverse=True))
