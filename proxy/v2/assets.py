"""The tenants' assets: records in the gate's database over files that ComfyUI has."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

from policy.principal import TenantId
from policy.v2.assets import Asset, AssetDetails
from policy.v2.effects import Reused
from proxy.files.comfyui_folders import content_type_of
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.persistence.operations import Database, DatabaseUnavailable
from proxy.v2 import asset_operations as records
from proxy.v2.asset_files import AssetFiles, changed_at_s

ANY_TYPE: Final = "application/octet-stream"
_SWEPT_AT_ONCE: Final = 500
_SWEEP_EACH_S: Final = 60.0
_LOOK_EACH: Final = 60
"""Sweeps, until files are looked for whose records may be left over."""
_log = logging.getLogger("comfygate")


class Copies(Protocol):
    """What the operator's storage has of the tenants' files (proxy/copies/reader.py)."""

    async def wiped(self, tenant: TenantId, assets: Sequence[Asset]) -> set[str]:
        """Ids of those whose file it alone has. Raises DatabaseUnavailable."""
        ...

    async def with_link(self, tenant: TenantId, asset: Asset) -> Asset:
        """Raises DatabaseUnavailable."""
        ...


class Assets:
    """tenants: all there are. retention_s: how long a tenant's files are kept, None for always. clock: Unix time in seconds.

    Every method but `sweep_forever` raises DatabaseUnavailable.
    """

    def __init__(
        self,
        database: Database,
        files: AssetFiles,
        tenants: Callable[[], Iterable[TenantId]],
        retention_s: Callable[[TenantId], float | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._files = files
        self._tenants = tenants
        self._retention_s = retention_s
        self._clock = clock
        self.on_deleted: Callable[[TenantId, Asset], None] = lambda tenant, asset: None
        self.copies: Copies | None = None
        """Where there are any."""

    async def find(
        self, tenant: TenantId, asset_ids: Sequence[str], *, is_for_comfyui: bool = True
    ) -> Mapping[str, Asset]:
        """Those that there are, but for those whose files are known to be gone or overwritten. is_for_comfyui: see FindAssets."""
        found = await self._database.read(records.find_assets, tenant, asset_ids, self._clock())
        intact = {asset.asset_id: asset for asset in await self._files.intact(tenant, tuple(found.values()))}
        if is_for_comfyui or self.copies is None:
            return intact
        lost = [asset for asset in found.values() if asset.asset_id not in intact]
        wiped = await self.copies.wiped(tenant, lost) if lost else set()
        kept = {asset_id: asset for asset_id, asset in found.items() if asset_id in intact or asset_id in wiped}
        return {asset_id: await self.copies.with_link(tenant, asset) for asset_id, asset in kept.items()}

    async def find_hash(self, tenant: TenantId, digest: str) -> Asset | None:
        """The newest record of these bytes whose file has them. Raises UpstreamUnavailable, UpstreamTimeout where ComfyUI has to be asked for the file."""
        for file in await self._database.read(records.files_of, tenant, digest, self._clock()):
            asset = await self._database.read(records.newest_over, tenant, digest, file, self._clock())
            if asset is not None and self._is_lasting(tenant, asset) and await self._files.is_there(tenant, asset):
                return asset
        return None

    def _is_lasting(self, tenant: TenantId, asset: Asset) -> bool:
        """Whether its file is in the first half of its time: who is told that the bytes are there need not send them again soon."""
        retention_s = self._retention_s(tenant) if self._files.is_seen else None
        return retention_s is None or changed_at_s(asset) > self._clock() - retention_s / 2

    async def reuse(self, tenant: TenantId, digest: str, details: AssetDetails) -> Reused | None:
        """Raises as `find_hash`, and Violation(storage-full)."""
        # Between the look at the file and the record somebody may delete both: then there is another file, or none.
        for _ in range(records.MAX_FILES):
            known = await self.find_hash(tenant, digest)
            if known is None or known.folder is None:
                return None
            now_s = self._clock()
            made = Asset(
                asset_id=str(uuid.uuid4()),
                file_path=details.file_path,
                content_type=details.content_type,
                size_bytes=known.size_bytes,
                hash=digest,
                created_at_s=now_s,
                expires_at_s=_end(now_s, details.expires_in_s),
                tags=details.tags,
            )
            file = records.File(known.folder.value, known.path, known.stamp)
            reused = await self._database.run(records.reuse, tenant, file, made, now_s)
            if reused is not None:
                return Reused(*reused)
        return None

    async def add(self, tenant: TenantId, asset: Asset, expires_in_s: float | None) -> Asset:
        """A file that ComfyUI has just stored. Raises Violation(storage-full); then, as always when there is no record, the file goes."""
        now_s = self._clock()
        asset = replace(
            asset,
            content_type=asset.content_type or content_type_of(asset.file_path) or ANY_TYPE,
            created_at_s=now_s,
            expires_at_s=_end(now_s, expires_in_s),
        )
        try:
            asset = replace(asset, stamp=await self._stamp(tenant, asset))
            await self._database.run(records.add_asset, tenant, asset)
        except BaseException:
            await self._files.delete(tenant, asset)
            raise
        return asset

    async def delete(self, tenant: TenantId, asset_id: str) -> bool:
        """Whether there was one. Raises Violation(asset-in-use)."""
        deleted = await self._database.run(records.delete_asset, tenant, asset_id, self._clock())
        if deleted is None:
            return False
        self.on_deleted(tenant, deleted.asset)
        await self._end_file(tenant, deleted)
        return True

    async def text(self, tenant: TenantId, asset_id: str) -> bytes | None:
        return await self._database.read(records.read_text, tenant, asset_id, self._clock())

    async def sweep_forever(self) -> None:
        """Takes away what has expired, each minute, and each hour records of files that are gone."""
        count = 0
        while True:
            for tenant in list(self._tenants()):
                try:
                    await self.sweep(tenant)
                    if not count % _LOOK_EACH and (retention_s := self._retention_s(tenant)) is not None:
                        await self.sweep_old(tenant, retention_s)
                except DatabaseUnavailable as error:
                    _log.warning("assets of tenant %s that have expired cannot be deleted: %s", tenant, error)
            count += 1
            await asyncio.sleep(_SWEEP_EACH_S)

    async def sweep(self, tenant: TenantId) -> None:
        """What has expired, with the files that nothing else is a record of."""
        now_s = self._clock()
        while await self._database.read(records.has_expired, tenant, now_s):
            deleted = await self._database.run(records.delete_expired, tenant, now_s, _SWEPT_AT_ONCE)
            for each in deleted:
                await self._end_file(tenant, each)
            if len(deleted) < _SWEPT_AT_ONCE:
                return

    async def sweep_old(self, tenant: TenantId, age_s: float) -> None:
        """Records of uploads that are so old, and whose files are gone: those that the tenant's retention has deleted."""
        last, is_more = "", self._files.is_seen
        before_s = self._clock() - age_s
        while is_more:
            page = await self._database.read(records.uploads_before, tenant, before_s, last, _SWEPT_AT_ONCE)
            kept = {asset.asset_id for asset in await self._files.intact(tenant, page)}
            gone = [asset.asset_id for asset in page if asset.asset_id not in kept]
            await self._database.run(records.delete_records, tenant, gone)
            last, is_more = (page[-1].asset_id, True) if len(page) == _SWEPT_AT_ONCE else ("", False)

    async def _end_file(self, tenant: TenantId, deleted: records.Deleted) -> None:
        if deleted.is_last:
            await self._files.delete(tenant, deleted.asset)

    async def _stamp(self, tenant: TenantId, asset: Asset) -> str:
        try:
            return await self._files.stamp(tenant, asset) or ""
        except (UpstreamUnavailable, UpstreamTimeout):
            return ""  # ComfyUI has said that it has it


def _end(now_s: float, expires_in_s: float | None) -> float | None:
    return None if expires_in_s is None else now_s + expires_in_s
