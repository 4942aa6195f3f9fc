"""The folder of what was converted: so many bytes at most, the rest is made anew when somebody asks for it.

A file's name tells all that is known of it, so that nothing else has to be kept: its folder is the tenant's, then come which asset it was made of, in which
form, its hash, and what makes the name another one each time. What is there is whole: it was written under another name.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from policy.principal import TenantId

DRAFT: Final = ".draft"
MAX_FILES: Final = 100_000
"""Each is known in memory."""
_SHARE: Final = 4
"""A single file takes at most this part of the folder."""
LEFT_S: Final = 900.0
"""A draft that was not written for so long is of a gate that was killed: nothing that is fetched, waits or is converted rests that long. Another gate may run
beside this.
"""
_NAME: Final = re.compile(r"([0-9a-f]{32})-([0-9a-f]{32})-([0-9a-f]{64})-[0-9a-f]{16}")


class Key(NamedTuple):
    """of: of which asset. form: in which form it is. Both are 32 hexadecimal digits."""

    tenant: TenantId
    of: str
    form: str


@dataclass(slots=True)
class KeptFile:
    """users: who read it now. changed_at_s: when its original was. hash: as an asset's."""

    path: Path
    size_bytes: int
    hash: str
    changed_at_s: float
    users: int = 0

    def release(self) -> None:
        self.users -= 1


@dataclass(slots=True)
class _Shelf:
    """One tenant's files: the one that was not asked for the longest comes first."""

    files: OrderedDict[Key, KeptFile] = field(default_factory=OrderedDict)
    used_bytes: int = 0

    def first_unused(self) -> Key | None:
        return next((key for key, file in self.files.items() if not file.users), None)


class KeptFiles:
    """folder: made at the first use. max_bytes: of all of it."""

    def __init__(self, folder: Path, max_bytes: Callable[[], int]) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._shelves: dict[TenantId, _Shelf] = {}
        self._count = 0
        self.used_bytes = 0
        self._is_read = False
        self._reading = asyncio.Lock()

    @property
    def max_file_bytes(self) -> int:
        return self._max_bytes() // _SHARE

    async def open(self) -> None:
        """Looks at what is there, once. Raises OSError."""
        if self._is_read:
            return
        async with self._reading:
            if not self._is_read:
                await self.sweep_drafts()
                for key, file in await asyncio.to_thread(lambda: list(_read(self._folder))):
                    await self._delete([key])  # one that was made twice
                    self._add(key, file)
                self._is_read = True
                await self._make_room()

    async def look_again(self) -> None:
        """What another gate has kept here or deleted since: two have one folder while one takes the other's place. Raises OSError."""
        before = [(key, file) for shelf in self._shelves.values() for key, file in shelf.files.items()]
        found = await asyncio.to_thread(lambda: list(_read(self._folder)))
        there, twice = {file.path for _, file in found}, []
        for key, file in before:
            if file.path not in there and self._of(key.tenant).get(key) is file:
                self._drop(key)
        for key, file in found:
            known = self._of(key.tenant).get(key)
            if known is None:
                self._add(key, file)
            elif known.path != file.path:
                twice.append(file.path)
        await asyncio.to_thread(_unlink_old, twice)
        await self._make_room()

    async def sweep_drafts(self) -> None:
        """Deletes what gates left that were killed while they made it. Raises OSError."""
        await asyncio.to_thread(_sweep, self._folder)

    async def find(self, key: Key) -> KeptFile | None:
        """It is not deleted until who found it calls its `release`."""
        file = self.look_at(key)
        if file is None:
            return None
        file.users += 1
        try:
            is_there = await asyncio.to_thread(file.path.exists)
        except BaseException:
            file.release()  # SECURITY: it would stay for ever, of a client that left just now (test_kept_files.py)
            raise
        if is_there:
            return file
        self._drop(key)  # somebody has tidied up
        return None

    def look_at(self, key: Key) -> KeptFile | None:
        shelf = self._shelves.get(key.tenant)
        file = None if shelf is None else shelf.files.get(key)
        if shelf is not None and file is not None:
            shelf.files.move_to_end(key)
        return file

    async def draft(self, tenant: TenantId) -> Path:
        """Where a file is to be written: there is none, and nobody else writes there. Raises OSError."""
        folder = self._folder / tenant
        await asyncio.to_thread(lambda: folder.mkdir(mode=0o700, parents=True, exist_ok=True))
        return folder / f"{secrets.token_hex(16)}{DRAFT}"

    async def keep(self, key: Key, draft: Path, size_bytes: int, digest: str, changed_at_s: float) -> KeptFile:
        """A whole draft. It is as one that was found. Raises OSError."""
        name = f"{key.of}-{key.form}-{digest.removeprefix('blake3:')}-{secrets.token_hex(8)}"
        path = self._folder / key.tenant / name
        # Its validators (RFC 9110, 8.8) are the same when it is made anew, and others for another form of the same picture.
        changed_ns = int(changed_at_s * 1e3) * 10**6 + int(key.form, 16) % 10**6
        await asyncio.to_thread(_move, draft, path, changed_ns)
        replaced = self._drop(key)
        file = KeptFile(path, size_bytes, digest, changed_at_s, users=1)
        self._add(key, file)
        if replaced is not None and replaced.path != path:  # else `look_again` has just found this one
            await asyncio.to_thread(_unlink, [replaced.path])
        await self._make_room()
        return file

    async def forget(self, tenant: TenantId, of: str) -> None:
        """All that was made of an asset."""
        await self._delete([key for key in self._of(tenant) if key.of == of])

    async def forget_older(self, tenant: TenantId, age_s: float) -> None:
        """What was made of originals that were not changed for so long: they are deleted by then."""
        before_s = time.time() - age_s
        await self._delete([key for key, file in self._of(tenant).items() if file.changed_at_s < before_s])

    def _of(self, tenant: TenantId) -> Mapping[Key, KeptFile]:
        shelf = self._shelves.get(tenant)
        return {} if shelf is None else shelf.files

    def _add(self, key: Key, file: KeptFile) -> None:
        shelf = self._shelves.setdefault(key.tenant, _Shelf())
        shelf.files[key] = file
        shelf.used_bytes += file.size_bytes
        self.used_bytes += file.size_bytes
        self._count += 1

    def _drop(self, key: Key) -> KeptFile | None:
        shelf = self._shelves.get(key.tenant)
        file = None if shelf is None else shelf.files.pop(key, None)
        if shelf is None or file is None:
            return None
        shelf.used_bytes -= file.size_bytes
        self.used_bytes -= file.size_bytes
        self._count -= 1
        if not shelf.files:
            del self._shelves[key.tenant]
        return file

    async def _make_room(self) -> None:
        """What was not asked for the longest goes, of the tenant that takes the most, in bytes or in files.

        SECURITY: one tenant would push out the files of all others, which cost time to be made anew (tests/proxy/conversion/test_kept_files.py).
        """
        while self.used_bytes > self._max_bytes() or self._count > MAX_FILES:
            is_many = self._count > MAX_FILES
            shelves = sorted(
                self._shelves.values(), key=lambda shelf: -(len(shelf.files) if is_many else shelf.used_bytes)
            )
            key = next((key for shelf in shelves if (key := shelf.first_unused()) is not None), None)
            if key is None:
                return
            await self._delete([key])

    async def _delete(self, keys: list[Key]) -> None:
        files = [file.path for key in keys if (file := self._drop(key)) is not None]
        if files:
            await asyncio.to_thread(_unlink, files)


def _read(folder: Path) -> Iterator[tuple[Key, KeptFile]]:
    """What is there, that was used the longest ago first."""
    found: list[tuple[float, Key, KeptFile]] = []
    for path in folder.glob("*/*"):
        with suppress(OSError):
            looks = path.lstat()
            if (match := _NAME.fullmatch(path.name)) is not None:
                key = Key(TenantId(path.parent.name), match[1], match[2])
                found.append((looks.st_atime, key, KeptFile(path, looks.st_size, f"blake3:{match[3]}", looks.st_mtime)))
    found.sort(key=lambda each: each[0])
    for _, key, file in found:
        yield key, file


def _sweep(folder: Path) -> None:
    before_s = time.time() - LEFT_S
    for path in folder.glob(f"*/*{DRAFT}"):
        with suppress(OSError):  # whole, or deleted meanwhile
            if path.lstat().st_mtime < before_s:
                path.unlink()


def _unlink_old(files: list[Path]) -> None:
    """Without those that another gate may just have made for somebody."""
    before_s = time.time() - LEFT_S
    for path in files:
        with suppress(OSError):
            if path.lstat().st_ctime < before_s:
                path.unlink()


def _move(draft: Path, path: Path, changed_ns: int) -> None:
    os.utime(draft, ns=(time.time_ns(), changed_ns))
    draft.replace(path)


def _unlink(files: list[Path]) -> None:
    for path in files:
        with suppress(OSError):  # gone already; or read by somebody, on a system that deletes no such files
            path.unlink()
