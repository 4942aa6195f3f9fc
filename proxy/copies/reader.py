"""What is answered from copies: links to them, and the bytes of files that the bucket alone has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from multidict import CIMultiDict

from policy.call import UpstreamPath
from policy.functions.conversion import Derived, Recipe, name_of, type_of
from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from policy.v2.asset_files import DerivedFile
from policy.v2.assets import Asset, CopiedForm, SignedLink
from policy.v2.jobs import JobView
from proxy.copies import copy_operations as records
from proxy.copies.bucket import Bucket, BucketFailed
from proxy.copies.meant import MeantCopies
from proxy.files.comfyui_folders import content_type_of
from proxy.http import headers
from proxy.http.errors import Refusal, TurnedAway
from proxy.http.own_validators import own_etag
from proxy.http.replies import ObjectReply
from proxy.http.responses import CONTENT_SECURITY_POLICY, SANDBOX
from proxy.jobs.copy_requests import Copy
from proxy.persistence.operations import Database, DatabaseUnavailable

LINK_LIMIT_S: Final = 5.0
"""Where signing takes the cloud's own help and that does not come, the answer has no links."""
MAX_WIPED: Final = 1000
"""Files that are looked for at once."""
READ_LIMIT_S: Final = 30.0
PIECE_BYTES: Final = 1024**2
_AWAY: Final = Refusal(
    503,
    "storage-unavailable",
    "This file lies in the operator's storage, which does not give it at the moment. Try again later.",
    headers=(("Retry-After", "10"),),
)
_log = logging.getLogger("comfygate")


class CopyReader:
    """meant: which copy stands for a file. links_s: how long a link works, by the configuration in force. clock: Unix time in seconds."""

    def __init__(
        self,
        database: Database,
        bucket: Bucket,
        meant: MeantCopies,
        links_s: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._bucket = bucket
        self.meant = meant
        self._links_s = links_s
        self._clock = clock

    async def with_links(self, tenant: TenantId, job: JobView) -> JobView:
        """A job of the tenant's, with links to what is copied of it. Where there can be none just now, without. Raises DatabaseUnavailable."""
        if job.ended_at_s is None or not job.outputs or not self._bucket.has_links:
            return job
        copies = await self._database.read(records.copies_of_job, tenant, job.prompt_id)
        return replace(job, outputs=tuple(await self._linked(job.outputs, copies)))

    async def with_link(self, tenant: TenantId, asset: Asset) -> Asset:
        """An asset of the tenant's; as `with_links`."""
        if not asset.prompt_id or not self._bucket.has_links:
            return asset
        copies = await self._database.read(records.copies_of_asset, tenant, asset.asset_id)
        return (await self._linked((asset,), copies))[0]

    async def _linked(self, assets: Sequence[Asset], copies: Sequence[Copy]) -> list[Asset]:
        # By the bytes too: what an earlier end of the job left is no copy of what it made since.
        known = {(asset.asset_id, asset.hash): asset for asset in assets}
        found = [
            copy
            for copy in copies
            if (copy.asset_id, copy.hash) in known and (not copy.form or Recipe.is_given(copy.form))
        ]
        links: dict[str, SignedLink] = {}
        forms: dict[str, list[CopiedForm]] = {}
        for copy, link in zip(found, await self._signed([copy.object_key for copy in found]), strict=True):
            if link is not None and copy.form:
                form = _form_of(copy, known[copy.asset_id, copy.hash], link)
                forms.setdefault(copy.asset_id, []).append(form)
            elif link is not None:
                links[copy.asset_id] = link
        return [
            replace(asset, link=links.get(asset.asset_id), forms=tuple(forms.get(asset.asset_id, ())))
            for asset in assets
        ]

    async def _signed(self, keys: Sequence[str]) -> list[SignedLink | None]:
        """None where there can be none just now."""
        if not self._bucket.has_links:
            return [None] * len(keys)
        lasts_s, now_s = self._links_s(), self._clock()
        try:
            async with asyncio.timeout(LINK_LIMIT_S):
                urls = await self._bucket.sign(keys, lasts_s)
        except (BucketFailed, TimeoutError) as error:
            _log.warning("links to copies cannot be signed: %s", str(error) or "it takes too long")
            return [None] * len(keys)
        return [SignedLink(url, float(int(now_s + lasts_s))) for url in urls]

    async def forms(self, tenant: TenantId, files: Sequence[DerivedFile]) -> list[Derived | None]:
        """What is copied of these, in their forms; None for those that are not."""
        copies: dict[tuple[str, str, str], Copy] = {}
        try:
            for prompt_id in {file.asset.prompt_id for file in files}:
                found = await self._database.read(records.forms_of_job, tenant, prompt_id)
                copies |= {(copy.asset_id, copy.hash, copy.form): copy for copy in found}
        except DatabaseUnavailable:
            return [None] * len(files)  # they are made, or told without
        known = [copies.get((file.asset.asset_id, file.asset.hash or "", file.recipe.mark)) for file in files]
        there = [copy for copy in known if copy is not None]
        links = dict(
            zip((copy.copy_id for copy in there), await self._signed([copy.object_key for copy in there]), strict=True)
        )
        return [
            None if copy is None else Derived(copy.form_bytes, copy.form_hash, links[copy.copy_id]) for copy in known
        ]

    async def wiped(self, tenant: TenantId, assets: Sequence[Asset]) -> set[str]:
        """Ids of those whose file the bucket alone has: ComfyUI has it no more, or is configured no more. Raises DatabaseUnavailable."""
        found: set[str] = set()
        for asset in assets[:MAX_WIPED]:
            if asset.folder is not Folder.OUTPUT:
                continue
            copy = await self._wiped(tenant, asset.path, asset.stamp)
            if copy is None and self.meant.is_gone(Namespace(tenant).path_to_upstream(asset.path)):
                copy = await self._copy_of(tenant, asset)
            if copy is not None:
                found.add(asset.asset_id)
        return found

    async def find(
        self, tenant: TenantId, folder: Folder, upstream_path: str, stamp: str | None, *, cache_control: str
    ) -> ObjectReply | None:
        """A file of the tenant's that the bucket alone has, as an answer. stamp: see Asset; None for the newest one of that name."""
        path = Namespace(tenant).path_to_client(upstream_path) if folder is Folder.OUTPUT else None
        try:
            copy = await self._wiped(tenant, path, stamp) if path else None
        except DatabaseUnavailable:
            return None  # as if there were none: ComfyUI is asked
        return None if copy is None else _reply(copy, upstream_path, cache_control, partial(self._read, copy))

    async def find_instead(
        self, tenant: TenantId, folder: Folder, path: UpstreamPath, stamp: str, *, cache_control: str
    ) -> ObjectReply | None:
        """Of a file of the tenant's that its ComfyUI does not give. stamp: see MeantCopies.find."""
        copy = await self.find_copy_instead(tenant, folder, path, stamp)
        return None if copy is None else _reply(copy, path, cache_control, partial(self._read, copy))

    async def find_copy_instead(
        self, tenant: TenantId, folder: Folder, path: UpstreamPath, stamp: str = ""
    ) -> Copy | None:
        """As `find_instead`, for `pieces`."""
        try:
            return await self.meant.find(tenant, folder, path, stamp)
        except DatabaseUnavailable:
            return None

    async def read_wiped(self, tenant: TenantId, asset: Asset) -> AsyncIterator[bytes] | None:
        """The bytes of an asset whose file the bucket alone has, which raise TurnedAway where it does not give them; None for any other.

        Raises DatabaseUnavailable.
        """
        copy = await self._wiped(tenant, asset.path, asset.stamp) if asset.folder is Folder.OUTPUT else None
        return None if copy is None else self.pieces(copy)

    async def read_instead(self, tenant: TenantId, asset: Asset) -> AsyncIterator[bytes] | None:
        """As `read_wiped`, of an asset whose file its ComfyUI does not give."""
        copy = await self._copy_of(tenant, asset)
        return None if copy is None else self.pieces(copy)

    async def _copy_of(self, tenant: TenantId, asset: Asset) -> Copy | None:
        copies = await self._database.read(records.copies_of_asset, tenant, asset.asset_id)
        return next((copy for copy in copies if copy.hash == asset.hash), None)

    async def pieces(self, copy: Copy) -> AsyncIterator[bytes]:
        """Its bytes. Raises TurnedAway."""
        for start in range(0, copy.size_bytes, PIECE_BYTES):
            yield await self._read(copy, start, min(PIECE_BYTES, copy.size_bytes - start))

    async def _wiped(self, tenant: TenantId, path: str, stamp: str | None) -> Copy | None:
        return await self._database.read(records.wiped, tenant, Folder.OUTPUT.value, path, stamp)

    async def _read(self, copy: Copy, start: int, count: int) -> bytes:
        """Raises TurnedAway."""
        try:
            async with asyncio.timeout(READ_LIMIT_S):
                piece = await self._bucket.read(copy.object_key, start, count, copy.size_bytes)
        except (BucketFailed, TimeoutError) as error:
            _log.warning("a copy cannot be read from %s: %s", self._bucket.place, str(error) or "it takes too long")
            raise TurnedAway(_AWAY) from None
        if len(piece) != count:
            _log.warning("a copy in %s has not the size that it had", self._bucket.place)
            raise TurnedAway(_AWAY)
        return piece


def _form_of(copy: Copy, asset: Asset, link: SignedLink) -> CopiedForm:
    recipe = Recipe.from_mark(copy.form)
    return CopiedForm(name_of(asset, recipe), type_of(asset, recipe), copy.form_bytes, copy.form_hash, link)


def _reply(
    copy: Copy, upstream_path: str, cache_control: str, read: Callable[[int, int], Awaitable[bytes]]
) -> ObjectReply:
    name = upstream_path.rpartition("/")[2]
    content_type = content_type_of(name)
    shown = headers.disposition(name)
    fields = {
        # SECURITY: what could run something is only saved; ComfyUI, which defuses it, has it no more (tests/proxy/copies/test_wiping.py).
        "Content-Type": content_type or "application/octet-stream",
        "Content-Disposition": shown if content_type is not None else f"attachment; {shown}",
        "Cache-Control": cache_control,
        "X-Content-Type-Options": "nosniff",
        CONTENT_SECURITY_POLICY: SANDBOX,
    }
    etag = own_etag(f'"{copy.stamp or copy.hash}"')
    changed_s = int(copy.stamp.partition("-")[0], 16) / 1e9 if copy.stamp else copy.ended_at_s
    return ObjectReply(copy.size_bytes, etag, changed_s, read, CIMultiDict(fields))
