"""Answers with a file that a rule has found: from disk where the gate sees ComfyUI's folders, else as ComfyUI sends it; or with what was made of one."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

from policy.call import ClientReply, UpstreamPath
from policy.functions.conversion import name_of, type_of
from policy.namespace import Folder
from policy.v2.asset_files import DerivedFile, GivenFile, StoredFile, StoredText
from policy.violation import Reason, Violation
from proxy.conversion.conversions import Conversions
from proxy.files.comfyui_folders import serve_file, stamp_of
from proxy.files.quota import StorageQuota
from proxy.files.tenant_files import TenantFiles, place_of
from proxy.http import hdrs, headers
from proxy.http.errors import LimitExceeded, UpstreamTimeout, UpstreamUnavailable
from proxy.http.file_sending import range_of
from proxy.http.own_validators import ask_comfyui
from proxy.http.replies import FileReply, ObjectReply, Reply
from proxy.http.request import Request
from proxy.http.responses import CONTENT_SECURITY_POLICY, SANDBOX
from proxy.steps.forward import forwarded
from proxy.steps.held import Held
from proxy.steps.own_files import OwnFiles
from proxy.steps.permit import PermittedRequest
from proxy.upstream.client import Upstream, UpstreamStream
from proxy.v2.asset_files import GONE
from proxy.v2.stamps import stamp_of_etag

if TYPE_CHECKING:
    from proxy.copies.reader import CopyReader

TEXT: Final = "text/plain; charset=utf-8"
CONVERTED_S: Final = 30.0
"""How long a client waits for a file to be made; then it is told to come again, before an edge gives up."""


class NotMadeYet(LimitExceeded):
    """A file that is still being made."""

    def __init__(self) -> None:
        super().__init__(
            "This output is still being converted. Ask for it again in a moment.",
            limit=f"{CONVERTED_S:.0f} seconds",
            retry_after_s=CONVERTED_S / 3,
            reason="conversion-pending",
        )


class StoredFiles:
    """copies: None where nothing is copied."""

    def __init__(
        self,
        upstream: Upstream,
        storage: StorageQuota,
        files: TenantFiles,
        conversions: Conversions,
        copies: CopyReader | None,
    ) -> None:
        self._upstream = upstream
        self._storage = storage
        self._files = files
        self._own_files = OwnFiles(upstream, files)
        self._conversions = conversions
        self._copies = copies

    async def serve(self, permitted: PermittedRequest, found: GivenFile, held: Held) -> Reply:
        """held: has ComfyUI's answer, or what was made, until the client's has left.

        Raises Violation(not-found) where the file is gone or was overwritten, UpstreamUnavailable, UpstreamTimeout, and what Conversions.give raises.
        """
        if isinstance(found, StoredText):
            return _text(permitted.request, found, permitted.route.caching.value)
        if isinstance(found, DerivedFile):
            return await self._derived(permitted, found, held)
        try:
            return await self._stored(permitted, found, held)
        except (UpstreamUnavailable, UpstreamTimeout):
            copied = await self.find_instead(permitted, found.folder, found.path, found.stamp)
            if copied is None:
                raise
            return copied
        except Violation:
            copied = await self.find_left(permitted, found.folder, found.path, found.stamp)
            if copied is None:
                raise
            return copied

    async def _stored(self, permitted: PermittedRequest, found: StoredFile, held: Held) -> Reply:
        """Raises as `serve`."""
        disk, caching = self._storage.disk, permitted.route.caching.value
        copied = await self.find_copy(permitted, found.folder, found.path, found.stamp)
        if copied is not None:
            return copied
        file = await disk.find(found.folder, found.path) if disk is not None else None
        place = place_of(permitted.principal.tenant, found.folder, found.path)
        if file is not None:
            edits = await self._files.on_disk(place, file, held.callback)
            reply = serve_file(file, cache_control=caching, edits=edits)
            return replace(reply, is_same=partial(_has_stamp, found.stamp))
        copied = await self.find_at_once(permitted, found.folder, found.path, found.stamp)
        if copied is not None:
            return copied
        fields = headers.to_upstream(permitted.request.headers, with_body=False)
        fields[hdrs.ACCEPT_ENCODING] = "identity"  # ranges are of the bytes themselves
        if place is not None:
            ask_comfyui(fields)
        stream = await self._upstream.open(found.call, fields, time_limit_s=permitted.route.time_limit_s)
        held.callback(stream.close)
        await _check(found, stream)
        if place is not None:
            return await self._own_files.forwarded(
                permitted, place, found.call, fields, stream, held, partial(_check, found)
            )
        return await forwarded(permitted, stream)

    async def find_copy(
        self, permitted: PermittedRequest, folder: Folder, path: UpstreamPath, stamp: str = ""
    ) -> ObjectReply | None:
        """Of a file that the bucket alone has. stamp: of the file that is meant; "" for whichever has the name."""
        disk = self._storage.disk
        if self._copies is None or disk is None or folder is not Folder.OUTPUT or not disk.sees(folder, path):
            return None
        [there] = await disk.stamps([(folder, path)])
        is_emptied = there is not None and there.endswith("-0")  # of a wiped one the name alone may be there
        if there is not None and not is_emptied and stamp in ("", there):
            return None
        caching, tenant = permitted.route.caching.value, permitted.principal.tenant
        return await self._copies.find(tenant, folder, path, stamp or None, cache_control=caching)

    async def find_instead(
        self, permitted: PermittedRequest, folder: Folder, path: UpstreamPath, stamp: str = ""
    ) -> ObjectReply | None:
        """The copy of a file that its ComfyUI does not give. stamp: as in `find_copy`, and then it is not sure that there is none."""
        if self._copies is None:
            return None
        caching, tenant = permitted.route.caching.value, permitted.principal.tenant
        return await self._copies.find_instead(tenant, folder, path, stamp, cache_control=caching)

    async def find_at_once(
        self, permitted: PermittedRequest, folder: Folder, path: UpstreamPath, stamp: str = ""
    ) -> ObjectReply | None:
        """As `find_instead` where it is known that the ComfyUI says nothing: one that hangs is not waited for."""
        if self._copies is None or self._copies.meant.answers(folder, path):
            return None
        return await self.find_instead(permitted, folder, path, stamp)

    async def find_left(
        self, permitted: PermittedRequest, folder: Folder, path: UpstreamPath, stamp: str = ""
    ) -> ObjectReply | None:
        """The copy of a file that the first ComfyUI has not, and that one made which is configured no more."""
        if self._copies is None or not self._copies.meant.is_gone(path):
            return None
        return await self.find_instead(permitted, folder, path, stamp)

    async def _derived(self, permitted: PermittedRequest, found: DerivedFile, held: Held) -> FileReply:
        """Raises NotMadeYet where it is not made in time, and what Conversions.give raises."""
        try:
            async with asyncio.timeout(CONVERTED_S):
                file = await self._conversions.give(permitted.principal.tenant, found)
        except TimeoutError:
            raise NotMadeYet from None
        held.callback(file.release)
        fields = {
            "Content-Type": type_of(found.asset, found.recipe),
            "Content-Disposition": headers.disposition(name_of(found.asset, found.recipe)),
            "Cache-Control": permitted.route.caching.value,
            "X-Content-Type-Options": "nosniff",
            CONTENT_SECURITY_POLICY: SANDBOX,
        }
        return FileReply(file.path, CIMultiDict(fields))


def _has_stamp(stamp: str, found: os.stat_result) -> bool:
    """stamp: see policy.v2.assets.Asset; "" for any."""
    return stamp in ("", stamp_of(found))


async def _check(found: StoredFile, stream: UpstreamStream) -> None:
    stamp = stamp_of_etag(stream.headers)
    if stream.status in GONE or (stamp and found.stamp and stamp != found.stamp):
        raise Violation(
            Reason.NOT_FOUND, "The file of this asset is gone: upload it again.", error_type="asset_not_found"
        )
    if stream.status >= 500:
        raise UpstreamUnavailable


def _text(request: Request, text: StoredText, caching: str) -> ClientReply:
    """With its range, where one is asked for and nothing says that it may be of another text (RFC 9110, 13.1.5)."""
    size = len(text.body)
    is_part = request.method == "GET" and "If-Range" not in request.headers
    status, start, count = range_of(request.headers, size) if is_part else (200, 0, size)
    fields = [
        ("Content-Disposition", headers.disposition(text.name)),
        ("Cache-Control", caching),
        ("X-Content-Type-Options", "nosniff"),
        (CONTENT_SECURITY_POLICY, SANDBOX),
        ("Accept-Ranges", "bytes"),
    ]
    if status == 206:
        fields.append(("Content-Range", f"bytes {start}-{start + count - 1}/{size}"))
    elif status == 416:
        fields.append(("Content-Range", f"bytes */{size}"))
    return ClientReply(status, text.body[start : start + count], TEXT, tuple(fields))
