"""ComfyUI's folders as the gate sees them on its own machine (`upstream.directory`): pictures straight from disk, what a tenant stores, what is old.

Every path comes from the namespace. Nothing outside a tenant's own folders is read or deleted, and no symbolic link is followed.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from multidict import CIMultiDict

from policy.call import UpstreamPath
from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from proxy.files.directories import Directories, Home
from proxy.http import headers
from proxy.http.replies import FileEdits, FileReply
from proxy.http.responses import CONTENT_SECURITY_POLICY, SANDBOX
from proxy.jobs.temp_files import Left
from proxy.limits.keyed_semaphore import KeyedSemaphore

# What browsers show without running anything in it, by the type that ComfyUI gives it (server.py, view_image; utils/mime_types.py); all else
# is left to ComfyUI, which knows how to defuse active types. Not the machine's table: a page reads the workflow out of a `image/webp`, and a
# new tab downloads what has no type.
PLAIN_TYPES: Final = {
    ".png": "image/png",
    ".apng": "image/apng",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jpe": "image/jpeg",
    ".jfif": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".avif": "image/avif",
    ".mp3": "audio/mpeg",
    ".wav": "audio/x-wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".avi": "video/x-msvideo",
    ".ogv": "video/ogg",
    ".mpg": "video/mpeg",
    ".mpeg": "video/mpeg",
}
_STORED: Final = (Folder.INPUT, Folder.OUTPUT)
USERDATA: Final = "user/default"
_USAGE_FRESH_S: Final = 10.0
# A reader has for each piece the time that the first one may take at the slowest speed.
_FIRST_PIECE_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 256 * 1024


@dataclass(slots=True)
class _Usage:
    used_bytes: int
    read_at_s: float


@dataclass(slots=True)
class ComfyUIFolders:
    """directories: of which the gate sees the first one's at least."""

    directories: Directories
    _usages: dict[TenantId, _Usage] = field(default_factory=dict)
    _exclusive_runs: KeyedSemaphore = field(default_factory=KeyedSemaphore)

    async def find(self, folder: Folder, path: UpstreamPath) -> Path | None:
        """The file, when it is a plain one that a browser only shows; None leaves the answer to ComfyUI."""
        # SECURITY: at once, since the caller has just seen that the name is its tenant's: in a moment it may be that of a neighbour's file
        # at another ComfyUI (tests/proxy/files/test_comfyui_folders.py).
        root = self.directories.root_of(folder, path)
        if content_type_of(path) is None or root is None:
            return None
        return await asyncio.to_thread(regular_file, root, path)

    def sees(self, folder: Folder, path: UpstreamPath) -> bool:
        """Whether the folder is seen that the file is in, if it is anywhere."""
        return self.directories.root_of(folder, path) is not None

    async def head(self, folder: Folder, path: UpstreamPath, size: int) -> bytes:
        """The first bytes of a file, none when it is not there."""

        def read() -> bytes:
            file = self._file(folder, path)
            if file is None:
                return b""
            with file.open("rb") as opened:
                return opened.read(size)

        try:
            return await asyncio.to_thread(read)
        except OSError:
            return b""

    async def stamps(self, files: Sequence[tuple[Folder, UpstreamPath]]) -> list[str | None]:
        """Of each file as it is now (policy.v2.assets.Asset), None where there is none, or it is not seen."""

        def look() -> list[str | None]:
            found = (self._file(folder, path) for folder, path in files)
            return [None if file is None else _stamp_of(file) for file in found]

        return await asyncio.to_thread(look)

    async def has_folders(self, files: Sequence[tuple[Folder, UpstreamPath]]) -> list[bool]:
        """Of each file, whether the folder is there that it would be in: one of another machine may not be, for a while."""
        roots = [self.directories.root_of(folder, path) for folder, path in files]
        return await asyncio.to_thread(lambda: [root is not None and root.is_dir() for root in roots])

    async def delete(self, tenant: TenantId, folder: Folder, path: UpstreamPath, stamp: str) -> None:
        """Deletes one file of the tenant's, where it is as its stamp says ("" for any), and its folder where nothing else is in it. Raises OSError.

        With what the gate has copied of it to another ComfyUI.
        """
        roots = self.directories.roots_of(tenant, folder)
        places = self.directories.elsewhere(folder, path) if folder in _STORED else []

        def unlink() -> int:
            file = self._file(folder, path)
            if file is None or (stamp and _stamp_of(file) != stamp):
                return 0
            size = _size_of(file)
            for each in (file, *(copy for place in places if (copy := regular_file(place, path)) is not None)):
                each.unlink(missing_ok=True)
                if any(root in each.parent.parents for root in roots):
                    with suppress(OSError):  # not empty
                        each.parent.rmdir()
            return size

        self.add(tenant, -await asyncio.to_thread(unlink))

    async def empty(self, tenant: TenantId, folder: Folder, path: UpstreamPath, stamp: str) -> None:
        """Takes the content of a file of the tenant's, where it is as its stamp says, and leaves its name and its time. Raises OSError."""

        def truncate() -> int:
            file = self._file(folder, path)
            if file is None:
                return 0
            # SECURITY: what a link leads to is nobody's; the folders were looked at before, and this one may have come since.
            descriptor = os.open(file, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = os.fstat(descriptor)
                if stamp_of(found) != stamp:
                    return 0
                os.ftruncate(descriptor, 0)
                os.utime(descriptor, ns=(found.st_atime_ns, found.st_mtime_ns))
                return found.st_size
            finally:
                os.close(descriptor)

        self.add(tenant, -await asyncio.to_thread(truncate))

    async def usage_bytes(
        self, tenant: TenantId, temp_files: Sequence[tuple[str, Left]] = (), *, is_fresh: bool = False
    ) -> int:
        """What the tenant's files take: uploads, outputs, saved workflows, and these of the temp folder.

        Counted at most every few seconds, or now; `add` keeps it true between.
        """
        # One count at a time: a tenant with many files would take all threads, and everybody's pictures wait for one.
        async with self._exclusive_runs.of(tenant):
            known = self._usages.get(tenant)
            if is_fresh or known is None or time.monotonic() - known.read_at_s > _USAGE_FRESH_S:
                used = await asyncio.to_thread(self._count, tenant, temp_files)
                known = self._usages[tenant] = _Usage(used, time.monotonic())
            return known.used_bytes

    def add(self, tenant: TenantId, amount_bytes: int) -> None:
        """Bytes that were just stored."""
        known = self._usages.get(tenant)
        if known is not None:
            known.used_bytes += amount_bytes

    async def delete_older(self, tenant: TenantId, age_s: float) -> int:
        """Deletes the tenant's inputs and outputs that were not changed for that long; says how many. Saved workflows stay.

        Raises OSError when one cannot be deleted, after the others.
        """
        return await asyncio.to_thread(self._delete_older, tenant, time.time() - age_s)

    async def delete_temp(self, files: Sequence[tuple[str, Left]]) -> None:
        """Deletes preview files, by the names that the registry knows. One that was written later stays.

        SECURITY: it is another one of that name, perhaps a neighbour's (tests/matrix/test_reuse.py). Raises OSError, but for files that are gone.
        """

        def delete() -> None:
            for name, left in files:
                file = self._temp_file(name, left)
                with suppress(FileNotFoundError):
                    if file is not None and file.lstat().st_mtime <= left.not_after_s:
                        file.unlink()

        await asyncio.to_thread(delete)

    def _file(self, folder: Folder, path: UpstreamPath) -> Path | None:
        root = self.directories.root_of(folder, path)
        return None if root is None else regular_file(root, path)

    def _temp_file(self, name: str, left: Left) -> Path | None:
        root = self.directories.temp_of(left.comfyui)
        return None if root is None else regular_file(root, UpstreamPath(name))

    def _count(self, tenant: TenantId, temp_files: Sequence[tuple[str, Left]]) -> int:
        previews = (self._temp_file(name, left) for name, left in temp_files)
        homes = [home for folder in _STORED for home in self.directories.homes_of(tenant, folder)]
        if (first := self.directories.first) is not None:
            root = first / USERDATA / Namespace(tenant).root
            homes.append(Home(root, root))
        stored = sum(found.st_size for home in homes for _, found in _files(home.folder, home.copies))
        return stored + sum(_size_of(file) for file in previews if file is not None)

    def _delete_older(self, tenant: TenantId, before_s: float) -> int:
        deleted, failure = 0, None
        for root in [root for folder in _STORED for root in self.directories.roots_of(tenant, folder)]:
            for path, found in _files(root):
                if found.st_mtime < before_s:
                    try:
                        path.unlink(missing_ok=True)
                        deleted += 1
                    except OSError as error:
                        failure = error
            _remove_empty(root)
        self._usages.pop(tenant, None)
        if failure is not None:
            raise failure
        return deleted


def serve_file(file: Path, *, cache_control: str, edits: FileEdits | None = None) -> FileReply:
    """The file as an answer, headed as ComfyUI heads it. edits: see FileReply."""
    fields = {
        "Content-Type": content_type_of(file.name) or "application/octet-stream",
        "Content-Disposition": headers.disposition(file.name),
        "Cache-Control": cache_control,
        "X-Content-Type-Options": "nosniff",
        CONTENT_SECURITY_POLICY: SANDBOX,
    }
    return FileReply(file, CIMultiDict(fields), edits)


def content_type_of(name: str) -> str | None:
    """The type of a plain file, None for what is left to ComfyUI."""
    return PLAIN_TYPES.get(PurePosixPath(name).suffix.lower())


def regular_file(root: Path, path: UpstreamPath) -> Path | None:
    """The file below the root, None when it is absent, special, or reached through a link (which an operator may have made)."""
    current, mode = root, 0
    try:
        for part in path.split("/"):
            current = current / part
            mode = current.lstat().st_mode
            if stat.S_ISLNK(mode):
                return None
    except (OSError, ValueError):
        return None
    return current if stat.S_ISREG(mode) else None


def _stamp_of(file: Path) -> str | None:
    try:
        return stamp_of(file.lstat())
    except OSError:
        return None  # deleted meanwhile


def stamp_of(found: os.stat_result) -> str:
    """See policy.v2.assets.Asset."""
    return f"{found.st_mtime_ns:x}-{found.st_size:x}"


def _size_of(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0  # deleted meanwhile


def _files(root: Path, without: Container[str] = ()) -> Iterator[tuple[Path, os.stat_result]]:
    """Regular files below a folder. without: folders that are passed over. A folder that vanishes meanwhile is empty, and a file that does is none."""
    waiting = [root]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path not in without:
                            waiting.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        with suppress(FileNotFoundError):
                            found = entry.stat(follow_symlinks=False)
                            yield Path(entry.path), found
        except OSError:
            continue


def _remove_empty(root: Path) -> None:
    """Removes empty folders below the root, deepest first; never the root."""
    for path, _, _ in os.walk(root, topdown=False, followlinks=False):
        if Path(path) != root:
            try:
                Path(path).rmdir()
            except OSError:
                continue  # not empty, or somebody writes there
