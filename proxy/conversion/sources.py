"""The file that is converted: on disk where the gate sees ComfyUI's folders, else fetched, from ComfyUI or from its copy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol

from multidict import CIMultiDict

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.principal import TenantId
from policy.v2.asset_files import DerivedFile
from policy.v2.assets import Asset
from policy.violation import Reason, Violation
from proxy.files.comfyui_folders import regular_file, stamp_of
from proxy.files.directories import Directories
from proxy.files.hashing import blake3
from proxy.files.tenant_files import TenantFiles, place_of
from proxy.http import hdrs
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.upstream.client import Upstream
from proxy.v2.asset_files import GONE

_SILENCE_S: Final = 30.0


class Source(NamedTuple):
    """stamp: which the file must have (policy.v2.assets.Asset), "" for any."""

    path: Path
    stamp: str = ""


class Meant(Protocol):
    """See proxy/copies/meant.py."""

    @property
    def answers(self) -> Callable[[Folder, UpstreamPath], bool]: ...


class Copies(Protocol):
    """See proxy/copies/reader.py. Both give None where there is none, and raise DatabaseUnavailable."""

    @property
    def meant(self) -> Meant: ...
    async def read_wiped(self, tenant: TenantId, asset: Asset) -> AsyncIterator[bytes] | None: ...
    async def read_instead(self, tenant: TenantId, asset: Asset) -> AsyncIterator[bytes] | None: ...


class Sources:
    def __init__(self, upstream: Upstream, files: TenantFiles, directories: Directories) -> None:
        self._upstream = upstream
        self._files = files
        self._directories = directories
        self.copies: Copies | None = None
        """Where there are any."""

    @asynccontextmanager
    async def opened(self, tenant: TenantId, file: DerivedFile, draft: Path, max_bytes: int) -> AsyncIterator[Source]:
        """draft: where it may be written meanwhile.

        Raises Violation(not-found | conversion-failed), UpstreamUnavailable, UpstreamTimeout, TurnedAway, DatabaseUnavailable, OSError.
        """
        found = await asyncio.to_thread(self._on_disk, file)
        is_it = found is not None and _has_stamp(found, file.asset.stamp)
        copied = None if is_it or self.copies is None else await self._copied(self.copies, tenant, file)
        if found is not None and copied is None:
            yield Source(found, file.asset.stamp)
            return
        try:
            if copied is None:
                copied = await self._fetched(tenant, file, draft, max_bytes)
            if copied is not None:
                await _write(copied, file, draft, max_bytes)
            yield Source(draft)
        finally:
            await asyncio.to_thread(draft.unlink, missing_ok=True)

    def _on_disk(self, file: DerivedFile) -> Path | None:
        root = self._directories.root_of(file.source.folder, file.source.path)
        return None if root is None else regular_file(root, file.source.path)

    async def _copied(self, copies: Copies, tenant: TenantId, file: DerivedFile) -> AsyncIterator[bytes] | None:
        """The copy of what ComfyUI has no more, or cannot be asked for: one that hangs is not waited for."""
        copied = await copies.read_wiped(tenant, file.asset)
        if copied is None and not copies.meant.answers(file.source.folder, file.source.path):
            copied = await copies.read_instead(tenant, file.asset)
        return copied

    async def _fetched(
        self, tenant: TenantId, file: DerivedFile, draft: Path, max_bytes: int
    ) -> AsyncIterator[bytes] | None:
        """None where ComfyUI has given it, else its copy."""
        try:
            await self._fetch(tenant, file, draft, max_bytes)
            return None
        except (UpstreamUnavailable, UpstreamTimeout):
            copied = None if self.copies is None else await self.copies.read_instead(tenant, file.asset)
            if copied is None:
                raise
            await asyncio.to_thread(draft.unlink, missing_ok=True)
            return copied

    async def _fetch(self, tenant: TenantId, file: DerivedFile, draft: Path, max_bytes: int) -> None:
        fields, source = CIMultiDict({hdrs.ACCEPT_ENCODING: "identity"}), file.source
        async with await self._upstream.open(source.call, fields, time_limit_s=_SILENCE_S) as stream:
            if stream.status in GONE:
                raise gone()
            if stream.status != 200:
                raise UpstreamUnavailable(status=503)
            with await asyncio.to_thread(draft.open, "xb") as target:
                writer = _Writer(target, max_bytes)
                await self._files.body_of(place_of(tenant, source.folder, source.path), stream).pour(writer)
                await writer.ready()
        _check(writer, file)


async def _write(pieces: AsyncIterator[bytes], file: DerivedFile, draft: Path, max_bytes: int) -> None:
    with await asyncio.to_thread(draft.open, "xb") as target:
        writer = _Writer(target, max_bytes)
        async for piece in pieces:
            writer.take(piece)
            await writer.ready()
    _check(writer, file)


def _has_stamp(found: Path, stamp: str) -> bool:
    try:
        return stamp in ("", stamp_of(found.lstat()))
    except OSError:
        return False  # deleted meanwhile


def _check(writer: _Writer, file: DerivedFile) -> None:
    # SECURITY: a preview's name may come again, as a neighbour's (tests/matrix/test_reuse.py): what is converted is what was recorded.
    if writer.hash != file.asset.hash:
        raise gone()


class _Writer:
    """Takes a body as it comes, see `Taker`; nothing of it is held for longer than it takes to be written. Raises Violation(conversion-failed), OSError."""

    def __init__(self, target: BinaryIO, max_bytes: int) -> None:
        self._target = target
        self._room = max_bytes
        self._digest = blake3()
        self._waiting: list[bytes] = []

    @property
    def hash(self) -> str:
        return f"blake3:{self._digest.hexdigest()}"

    def take(self, piece: bytes | memoryview) -> bool:
        self._room -= len(piece)
        if self._room < 0:
            raise Violation(Reason.CONVERSION_FAILED, "This output is too large to be converted.")
        self._digest.update(piece)
        self._waiting.append(bytes(piece))
        return False

    async def ready(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            await asyncio.to_thread(self._target.writelines, waiting)


def gone() -> Violation:
    return Violation(Reason.NOT_FOUND, "The file of this output is not there any more: run the function again.")
