"""Files that a job reads, brought to the ComfyUI that is going to run it: once each, as long as both ends keep them as they are.

What is not there any more where it was made is left to ComfyUI, which says so of the node that names it, as it does without a gate.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from multidict import CIMultiDict

from policy.call import Opaque, UpstreamCall, UpstreamPath, UpstreamReply
from policy.namespace import ROOT, Folder, Namespace, split_path
from policy.needs import Needs
from policy.principal import TenantId
from policy.rules.files import view_of
from policy.violation import Reason, Violation
from proxy.files.brought import BroughtFiles
from proxy.files.comfyui_folders import regular_file, stamp_of
from proxy.files.comfyui_ranges import RangeReader, Unreadable
from proxy.files.directories import Directories
from proxy.files.makers import Makers
from proxy.http import hdrs
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, UpstreamUnreachable
from proxy.http.file_sending import open_file
from proxy.http.multipart_upload import begin_file, end_fields
from proxy.jobs.temp_folders import TempFolders
from proxy.limits.keyed_semaphore import KeyedSemaphore
from proxy.upstream.client import Upstream
from proxy.upstream.upstreams import Upstreams

PIECE_BYTES: Final = 1024**2
MAX_AT_ONCE: Final = 4
"""Of pictures that masks are for, of all tenants: each holds a piece in memory."""
_LOOK_LIMIT_S: Final = 30.0
_UPLOAD_LIMIT_S: Final = 120.0
_MAX_ANSWER_BYTES: Final = 64 * 1024
_GONE: Final = frozenset({400, 403, 404})
IsOwn = Callable[[TenantId, UpstreamPath, str, str], Awaitable[bool]]
_log = logging.getLogger("comfygate")


class CopiedFile(NamedTuple):
    """The copy of a file whose ComfyUI is away. stamp: as of a `_Found`. pieces: its bytes; raises UpstreamUnreachable where there are none just now."""

    size: int
    stamp: str
    pieces: Callable[[], AsyncIterator[bytes]]


async def _no_copy(tenant: TenantId, folder: Folder, path: UpstreamPath) -> CopiedFile | None:
    return None


class _Found(NamedTuple):
    """A file as it is. stamp: see policy.v2.assets.Asset, "" where nothing tells. on_disk: where the gate reads it; copied: where it is read from its copy;
    None for who asks its ComfyUI. comfyui: whose it is, "" for the first."""

    size: int
    stamp: str
    on_disk: Path | None = None
    comfyui: str = ""
    copied: CopiedFile | None = None


class NotBrought(Violation):
    """It cannot be brought: the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.NOT_FOUND, message)


class Transfers:
    """upstream: all ComfyUIs. makers, directories: which one has a file, and where. temp_files: whose those among everybody's are; is_own: whether one that
    has this stamp, or as it is now, and is at this ComfyUI, still is (proxy/steps/temp_file_owners.py)."""

    def __init__(
        self,
        upstream: Upstreams,
        makers: Makers,
        directories: Directories,
        temp_files: TempFolders,
        is_own: IsOwn,
        first: str,
    ) -> None:
        """first: the name of the first one."""
        self._upstream = upstream
        self._first = first
        self._makers = makers
        self._directories = directories
        self._temp_files = temp_files
        self._is_own = is_own
        self._turns = KeyedSemaphore()
        self._masks = KeyedSemaphore()
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self.brought = BroughtFiles(makers)
        self.instead: Callable[[TenantId, Folder, UpstreamPath], Awaitable[CopiedFile | None]] = _no_copy
        """The copy of a file whose ComfyUI is away."""

    def far_files(self, needs: Needs, comfyui: str) -> list[tuple[Folder, UpstreamPath]]:
        """What would have to be brought to it."""
        return [file for file in needs.files if self._source_of(*file, comfyui) is not None]

    def sources(self, needs: Needs, comfyui: str) -> Mapping[str, list[tuple[Folder, UpstreamPath]]]:
        """Who must be there for that, with what is to be read there."""
        found: dict[str, list[tuple[Folder, UpstreamPath]]] = {}
        for folder, path in needs.files:
            source = self._source_of(folder, path, comfyui)
            if source is not None and self._directories.root_of(folder, path) is None:
                found.setdefault(source or self._first, []).append((folder, path))
        return found

    def _source_of(self, folder: Folder, path: UpstreamPath, comfyui: str) -> str | None:
        """Who has it, None where the ComfyUI itself has."""
        source = self._makers.of_file(folder, path)
        return None if source == self._makers.place_of(folder, comfyui) else source

    async def bring(self, tenant: TenantId, needs: Needs, comfyui: str) -> UpstreamReply | None:
        """None when the ComfyUI has what the job reads, else the refusal of the job, as one of ComfyUI's. comfyui: its name.

        SECURITY: nothing else that goes wrong comes again: a file could be named, or changed all the time, so that it does for ever, and those behind
        the job would wait for it (tests/several/test_bringing.py).

        Raises UpstreamUnreachable where one of both is away, UpstreamUnavailable and UpstreamTimeout of the one that is to run it.
        """
        try:
            for folder, path in needs.files:
                await self._bring_file(tenant, folder, path, comfyui)
        except NotBrought as refused:
            message = refused.message
            _log.warning("a job of tenant %s does not run at ComfyUI %s: %s", tenant, comfyui, message)
            error = {"type": "input_not_brought", "message": message, "details": "", "extra_info": {}}
            return UpstreamReply(400, {"error": error, "node_errors": {}})
        return None

    async def bring_to_first(self, tenant: TenantId, folder: Folder, path: UpstreamPath) -> None:
        """The picture that a mask is for. Raises NotBrought, UpstreamUnavailable, UpstreamTimeout.

        SECURITY: one of a tenant at a time, and no job waits for any of them: it would keep its ComfyUI waiting, and all others' jobs with it
        (tests/several/test_transfers.py::test_masks_keep_no_job_waiting).
        """
        if self._makers.of_file(folder, path):
            async with self._masks.of(tenant), self._places:
                await self._bring_file(tenant, folder, path, self._first)

    async def _bring_file(self, tenant: TenantId, folder: Folder, path: UpstreamPath, comfyui: str) -> None:
        target = self._makers.place_of(folder, comfyui)
        if folder is not Folder.INPUT and not _is_in_root(path) and not self._temp_files.has(tenant, path):
            raise _not_its_own(path)
        if target != self._makers.of_file(folder, path):
            async with self._turns.of((target, folder, path)):
                await self._bring(tenant, folder, path, target)

    async def _bring(self, tenant: TenantId, folder: Folder, path: UpstreamPath, target: str) -> None:
        shown = Namespace(tenant).path_to_client(path) or path
        there = await self._look_at(folder, path, target)
        if there is not None and folder is Folder.INPUT and not _is_in_root(path):
            return  # a shared input is the operator's own, at each ComfyUI
        found = await self._find(tenant, folder, path)
        if found is None:
            if there is not None:
                raise NotBrought(f"The file {shown} is gone.")
            return
        if folder is Folder.TEMP and not _is_in_root(path):  # names among everybody's outputs do not come again
            await self._check_owner(tenant, path, found)
        copied = there.stamp if there is not None else ""
        if copied and self.brought.is_known(target, folder, path, (found.stamp, copied)):
            return
        await self._copy(folder, path, target, shown, found, there)
        there = await self._look_at(folder, path, target)
        if there is None or there.size != found.size:
            raise NotBrought(f"The file {shown} changed while it was brought to where the job was to run.")
        self.brought.note(target, folder, path, (found.stamp, there.stamp), found.size)

    async def _check_owner(self, tenant: TenantId, path: UpstreamPath, found: _Found) -> None:
        """SECURITY: a name among everybody's may be a neighbour's by now, also before the gate has heard of that (tests/several/test_transfers.py)."""
        with _of_the_source():
            stamp = found.stamp if found.on_disk is not None else ""
            is_own = await self._is_own(tenant, path, stamp, found.comfyui)
        if not is_own:
            raise _not_its_own(path)

    async def _copy(
        self, folder: Folder, path: UpstreamPath, target: str, shown: str, found: _Found, there: _Found | None
    ) -> None:
        """ComfyUI leaves a file that has these very bytes as it is, also while a job reads it, unless it is told to overwrite it."""
        told: str | None = None
        if there is None or there.size == found.size:
            told = await self._upload(folder, path, target, found)
        if told not in ("", path) and _is_in_root(path):
            told = await self._upload(folder, path, target, found, overwrites=True)
        if told == "":
            raise NotBrought(
                f"The file {shown} could not be brought to where the job was to run: ComfyUI did not take it. "
                "A large one may need a larger --max-upload-size there."
            )
        if told != path:
            raise NotBrought(f"There is another file {shown} where the job was to run.")

    async def _find(self, tenant: TenantId, folder: Folder, path: UpstreamPath) -> _Found | None:
        """Where it was made; its copy where that is away."""
        source, root = self._makers.of_file(folder, path), self._directories.root_of(folder, path)
        found = None if root is None else await asyncio.to_thread(_find_on_disk, root, path)
        if found is not None:
            return found._replace(comfyui=source)
        copied = await self.instead(tenant, folder, path) if folder is Folder.OUTPUT and _is_in_root(path) else None
        if copied is not None:
            return _Found(copied.size, copied.stamp, comfyui=source, copied=copied)
        with _of_the_source():
            return await self._ask(self._upstream, view_of("HEAD", folder, path))

    async def _look_at(self, folder: Folder, path: UpstreamPath, target: str) -> _Found | None:
        """Where it is to be read."""
        call = replace(view_of("HEAD", folder, path), file=None)  # which would lead to who made it
        return await self._ask(self._of(target), call)

    def _of(self, comfyui: str) -> Upstream:
        return self._upstream.others.get(comfyui, self._upstream)

    async def _ask(self, upstream: Upstream, call: UpstreamCall) -> _Found | None:
        fields = CIMultiDict({hdrs.ACCEPT_ENCODING: "identity"})
        async with await upstream.open(call, fields, time_limit_s=_LOOK_LIMIT_S) as stream:
            size = stream.connection.answer.content_length
            if stream.status in _GONE:
                return None
            if stream.status != 200 or size is None:
                raise UpstreamUnavailable(status=503)
            return _Found(size, stream.headers.get(hdrs.ETAG, "").strip('"'), comfyui=stream.comfyui)

    async def _upload(
        self, folder: Folder, path: UpstreamPath, target: str, found: _Found, *, overwrites: bool = False
    ) -> str:
        """Where ComfyUI has put it, "" where it has not taken it. Raises UpstreamUnreachable, UpstreamTimeout, NotBrought."""
        where, name = split_path(path)
        boundary = f"comfygate-{secrets.token_hex(16)}"
        fields = [("subfolder", where), ("type", folder.value), *([("overwrite", "true")] if overwrites else [])]
        head, end = begin_file(boundary, name), b"\r\n" + end_fields(boundary, fields)

        async def body() -> AsyncIterator[bytes]:
            yield head
            async for piece in self._pieces(folder, path, found):
                yield piece
            yield end

        headers = CIMultiDict(
            {
                hdrs.ACCEPT_ENCODING: "identity",
                hdrs.CONTENT_TYPE: f"multipart/form-data; boundary={boundary}",
                hdrs.CONTENT_LENGTH: str(len(head) + found.size + len(end)),
            }
        )
        call, upstream = UpstreamCall("POST", (Opaque("upload"), Opaque("image"))), self._of(target)
        try:
            async with await upstream.open(call, headers, body(), time_limit_s=_UPLOAD_LIMIT_S) as stream:
                return _path_in(await stream.whole(_MAX_ANSWER_BYTES)) if stream.status == 200 else ""
        except UpstreamUnreachable:
            raise
        except UpstreamUnavailable:  # it may break off what is too large, without an answer
            return ""

    async def _pieces(self, folder: Folder, path: UpstreamPath, found: _Found) -> AsyncIterator[bytes]:
        """All of it. Raises NotBrought where it has become another one meanwhile, so that nothing is stored; UpstreamUnreachable."""
        if found.on_disk is not None:
            pieces = _read_disk(found.on_disk, found)
        elif found.copied is not None:
            pieces = found.copied.pieces()
        else:
            pieces = _read_comfyui(RangeReader(self._upstream, folder, path, f'"{found.stamp}"'), found.size)
        with _of_the_source():
            async for piece in pieces:
                yield piece


@contextmanager
def _of_the_source() -> Iterator[None]:
    """Raises NotBrought for what goes wrong where a file is read, but for a ComfyUI that is away."""
    try:
        yield
    except UpstreamUnreachable:
        raise
    except (OSError, Unreadable) as error:
        raise NotBrought("A file changed while it was brought to where the job was to run.") from error
    except (UpstreamUnavailable, UpstreamTimeout) as error:
        raise NotBrought("A file could not be read from the ComfyUI that has it.") from error


async def _read_disk(file: Path, found: _Found) -> AsyncIterator[bytes]:
    with closing(await asyncio.to_thread(open_file, file)) as opened:
        left = found.size
        while left:
            piece = await asyncio.to_thread(opened.read, min(left, PIECE_BYTES))
            if not piece:
                raise Unreadable
            left -= len(piece)
            yield piece


async def _read_comfyui(reader: RangeReader, size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, PIECE_BYTES):
        count = min(PIECE_BYTES, size - start)
        piece = await reader.read(start, count)
        if len(piece) != count:
            raise Unreadable
        yield piece


def _find_on_disk(root: Path, path: UpstreamPath) -> _Found | None:
    file = regular_file(root, path)
    try:
        found = None if file is None else file.lstat()
    except OSError:
        return None  # deleted meanwhile
    return None if found is None else _Found(found.st_size, stamp_of(found), file)


def _not_its_own(path: UpstreamPath) -> NotBrought:
    return NotBrought(f"{path} is none of this tenant's files any more.")


def _is_in_root(path: str) -> bool:
    """Whether it lies in a tenant's own folder, and not among everybody's."""
    return path.startswith(f"{ROOT}/")


def _path_in(reply: UpstreamReply) -> str:
    told: Any = reply.value if isinstance(reply.value, dict) else {}
    folder, name = told.get("subfolder"), told.get("name")
    return f"{folder}/{name}" if folder else str(name)
