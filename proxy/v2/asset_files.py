"""The files that assets are records of: whether they are there and what they were, and their end. On disk where the gate sees ComfyUI's folders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from multidict import CIMultiDict

from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from policy.v2.asset_files import StoredFile, stored_file
from policy.v2.assets import Asset
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.http import hdrs
from proxy.http.errors import UpstreamUnavailable
from proxy.jobs.registry import JobRegistry
from proxy.upstream.client import Upstream
from proxy.v2.stamps import stamp_of_etag, time_of

_LIMIT_S: Final = 30.0
GONE: Final = frozenset({400, 403, 404})
"""What ComfyUI's /view answers for a file that is not there, or that it shows nobody."""
_log = logging.getLogger("comfygate")


class AssetFiles:
    """disk: None where the gate does not see ComfyUI's folders; then ComfyUI is asked, where it matters."""

    def __init__(self, disk: ComfyUIFolders | None, upstream: Upstream, registry: JobRegistry) -> None:
        self._disk = disk
        self._upstream = upstream
        self._registry = registry

    @property
    def is_seen(self) -> bool:
        return self._disk is not None

    async def intact(self, tenant: TenantId, assets: Sequence[Asset]) -> list[Asset]:
        """Those whose bytes are not known to be gone or overwritten: without ComfyUI, so all of them where the folders are not seen."""
        disk = self._disk
        known = [asset for asset in assets if asset.folder is not None and asset.stamp]
        if disk is None or not known:
            return list(assets)
        files = [(asset, self._file_of(tenant, asset)) for asset in known]
        seen = [(asset, file) for asset, file in files if disk.sees(file.folder, file.path)]
        stamps = await disk.stamps([(file.folder, file.path) for _, file in seen])
        gone = [each for each, stamp in zip(seen, stamps, strict=True) if stamp != each[0].stamp]
        there = await disk.has_folders([(file.folder, file.path) for _, file in gone]) if gone else []
        lost = {asset.asset_id for (asset, _), is_there in zip(gone, there, strict=True) if is_there}
        return [asset for asset in assets if asset.asset_id not in lost]

    async def is_there(self, tenant: TenantId, asset: Asset) -> bool:
        """Whether the file has the bytes that it had when it was recorded. Raises UpstreamUnavailable, UpstreamTimeout where ComfyUI has to be asked."""
        stamp = await self.stamp(tenant, asset)
        return stamp is not None and (not asset.stamp or not stamp or stamp == asset.stamp)

    async def stamp(self, tenant: TenantId, asset: Asset) -> str | None:
        """Of the file as it is now; "" where it is there and nothing says more, None where it is gone. Raises as `is_there`."""
        file, disk = self._file_of(tenant, asset), self._disk
        is_seen = disk is not None and disk.sees(file.folder, file.path)
        if disk is not None and is_seen:
            [stamp] = await disk.stamps([(file.folder, file.path)])
            if stamp is not None or asset.stamp:
                return stamp
        fields = CIMultiDict({hdrs.ACCEPT_ENCODING: "identity"})
        async with await self._upstream.open(file.call, fields, time_limit_s=_LIMIT_S) as stream:
            if stream.status in GONE:
                return None
            if stream.status >= 400:
                raise UpstreamUnavailable
            # What ComfyUI has and the disk has not is in another folder than the configuration says: the disk would never have it.
            return "" if is_seen else stamp_of_etag(stream.headers)

    async def delete(self, tenant: TenantId, asset: Asset) -> None:
        """Where the gate sees it, and it is what was recorded. What cannot be deleted is told to the operator: it stays among the tenant's files."""
        if self._disk is None or asset.folder is None or (asset.folder is Folder.TEMP and not asset.stamp):
            return
        file = self._file_of(tenant, asset)
        try:
            await self._disk.delete(tenant, file.folder, file.path, asset.stamp)
        except OSError as error:
            _log.error("the file of a deleted asset of tenant %s cannot be deleted: %s", tenant, error)

    def _file_of(self, tenant: TenantId, asset: Asset) -> StoredFile:
        return stored_file(asset, Namespace(tenant), self._registry.of(tenant).has_temp_file, "HEAD")


def changed_at_s(asset: Asset) -> float:
    """When its file was changed last, as far as is known. Unix time."""
    return time_of(asset.stamp) if asset.stamp else asset.created_at_s
