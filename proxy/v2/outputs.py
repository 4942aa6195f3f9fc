"""What jobs made, measured once: size, type and hash of each file, and an id to ask for it by."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from policy.call import UpstreamPath
from policy.documents import Kind
from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from policy.v2.assets import Asset
from policy.v2.jobs import JobError
from policy.v2.outputs import Shown, asset_id_of, failure_of_entry, find_results
from policy.violation import Violation
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.job_documents import JobDocuments
from proxy.jobs.job_rows import JobRow, StoredState
from proxy.jobs.registry import JobRegistry
from proxy.persistence.operations import Database
from proxy.tasks import Tasks
from proxy.v2.asset_files import changed_at_s
from proxy.v2.failures import failure_of
from proxy.v2.file_measuring import FileMeasuring, measure_bytes
from proxy.v2.job_operations import Made, keep_outputs, keep_results, outputs_of
from proxy.v2.off_loop import off_loop

_log = logging.getLogger("comfygate")


class _Results(NamedTuple):
    """is_final: all of it is known for good."""

    made: list[Made]
    is_final: bool


class JobOutputs:
    """Every method raises DatabaseUnavailable."""

    def __init__(
        self,
        database: Database,
        documents: JobDocuments,
        registry: JobRegistry,
        files: FileMeasuring,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._documents = documents
        self._registry = registry
        self._files = files
        self._clock = clock
        self._tasks = Tasks(is_watched=True)
        self._measuring: dict[tuple[TenantId, str, int], asyncio.Task[tuple[tuple[Asset, ...], JobError | None]]] = {}

    async def stop(self) -> None:
        await self._tasks.stop()
        self._files.stop()

    async def measure(self, tenant: TenantId, row: JobRow) -> tuple[tuple[Asset, ...], JobError | None]:
        """Of a job that has ended, in the order in which its history lists it; once at a time, whoever asks. Kept when it is known for good.

        While ComfyUI is away, and it alone has the files, their sizes are 0 and their hashes None.
        """
        # SECURITY: an id may come again, as another job's, while what the one before made is still measured (test_outputs.py).
        key = (tenant, row.prompt_id, row.sequence)
        running = self._measuring.get(key)
        if running is None:
            running = self._measuring[key] = self._tasks.start(self._measure(tenant, row), "results of a job")
            running.add_done_callback(lambda _: self._measuring.pop(key, None))
        return await asyncio.shield(running)

    async def measure_shown(self, tenant: TenantId, prompt_id: str, shown: Sequence[Shown]) -> list[Asset]:
        """Of a node that has just run: what could be measured, and is kept."""
        results = await self._look_at(tenant, prompt_id, shown, {})
        measured = [each for each in results.made if each.asset.hash is not None]
        is_kept = await self._database.run(keep_outputs, prompt_id, tenant, measured)
        return [each.asset for each in measured] if is_kept else []

    async def _measure(self, tenant: TenantId, row: JobRow) -> tuple[tuple[Asset, ...], JobError | None]:
        entry = await self._entry(tenant, row.prompt_id)
        error = failure_of_entry(entry, row.error) if row.state == StoredState.FAILED else None
        known = await self._database.read(outputs_of, tenant, row.prompt_id)
        shown = find_results(entry.get("outputs")) if entry is not None else []
        results = await self._look_at(tenant, row.prompt_id, shown, {asset.asset_id: asset for asset in known})
        if results.is_final:
            await self._database.run(keep_results, row.prompt_id, tenant, results.made, failure_of(error))
        elif results.made:
            await self._database.run(keep_outputs, row.prompt_id, tenant, results.made)
        return tuple(each.asset for each in results.made), error

    async def _entry(self, tenant: TenantId, prompt_id: str) -> Mapping[str, Any] | None:
        """None where none is kept, as of what was too large to be read."""
        read = await self._documents.read(tenant, Kind.ENTRY, (prompt_id,))
        document = read.documents.get(prompt_id)
        if document is None:
            return None
        found: Mapping[str, Any] = await off_loop(lambda: orjson.loads(document.numbered(0)), size=document.size)
        return found

    async def _look_at(
        self, tenant: TenantId, prompt_id: str, listed: Sequence[Shown], known: Mapping[str, Asset]
    ) -> _Results:
        made: list[Made] = []
        is_final = True
        for shown in listed:
            asset_id = asset_id_of(tenant, prompt_id, shown)
            if (before := known.get(asset_id)) is not None and before.hash is not None:
                made.append(Made(before))
                continue
            asset = self._asset(asset_id, prompt_id, shown)
            if shown.folder is None:
                body = shown.text.encode()
                made.append(Made(_sized(asset, *measure_bytes(body)), body))
                continue
            path = self._path(tenant, shown)
            try:
                # One that could not be asked for stands for all: ComfyUI is away.
                measured = await self._files.measure(tenant, shown.folder, path) if path and is_final else None
            except (UpstreamUnavailable, UpstreamTimeout) as error:
                _log.info("what job %s made is not measured: %s", prompt_id, str(error) or type(error).__name__)
                is_final, measured = False, None
            if measured is not None:
                found = _sized(asset, *measured)
                made += [Made(found)] if self._is_its_own(found, path) else []
            elif not is_final and path:
                made.append(Made(asset))
        return _Results(made, is_final)

    def _is_its_own(self, found: Asset, path: UpstreamPath | None) -> bool:
        """SECURITY: where the gate does not see ComfyUI's folders, the file itself tells that it is a neighbour's of that name (tests/matrix/test_reuse.py)."""
        is_temp = found.folder is Folder.TEMP and path is not None and bool(found.stamp)
        return not is_temp or not self._registry.temp_files.is_another(str(path), changed_at_s(found))

    def _path(self, tenant: TenantId, shown: Shown) -> UpstreamPath | None:
        """None for a name that the tenant cannot have."""
        assert shown.folder is not None, "a file"
        has_temp_file = self._registry.of(tenant).has_temp_file
        try:
            return Namespace(tenant).readable_to_upstream(shown.path, shown.folder, (), has_temp_file)
        except Violation:
            return None

    def _asset(self, asset_id: str, prompt_id: str, shown: Shown) -> Asset:
        return Asset(
            asset_id=asset_id,
            file_path=shown.name,
            content_type=shown.content_type,
            size_bytes=0,
            hash=None,
            created_at_s=self._clock(),
            folder=shown.folder,
            path=shown.path,
            kind=shown.kind,
            prompt_id=prompt_id,
            node_id=shown.node_id,
        )


def _sized(asset: Asset, size_bytes: int, digest: str, stamp: str) -> Asset:
    return replace(asset, size_bytes=size_bytes, hash=digest, stamp=stamp)
