"""How large files of ComfyUI's are, and their hashes, as their tenant gets them: from disk where the gate sees the folders, else as ComfyUI sends them."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from multidict import CIMultiDict

from policy.call import UpstreamPath
from policy.media.editing import apply
from policy.namespace import Folder
from policy.principal import TenantId
from policy.rules.files import view_of
from proxy.files.comfyui_folders import regular_file, stamp_of
from proxy.files.directories import Directories
from proxy.files.hashing import Blake3, blake3
from proxy.files.known_edits import Place
from proxy.files.tenant_files import TenantFiles, place_of
from proxy.http import hdrs
from proxy.http.errors import UpstreamUnavailable
from proxy.http.replies import FileEdits
from proxy.limits.keyed_semaphore import KeyedSemaphore
from proxy.upstream.client import Upstream
from proxy.v2.stamps import stamp_of_etag

THREADS: Final = 2
"""Of all tenants: hashing leaves the interpreter's lock, and takes a core."""
PIECE_BYTES: Final = 1024**2
_SILENCE_S: Final = 30.0
_ABSENT: Final = frozenset({400, 403, 404})
"""What ComfyUI answers for a file that is not there, or that it does not give."""


class Measured(NamedTuple):
    """hash: `blake3:` and 64 hexadecimal digits. stamp: see policy.v2.assets.Asset."""

    size_bytes: int
    hash: str
    stamp: str = ""


def measure_bytes(data: bytes) -> Measured:
    return Measured(len(data), _told(blake3(data)))


class FileMeasuring:
    """SECURITY: one file of a tenant at a time, tenants in turn: else the results of one keep those of all others (tests/proxy/v2/test_outputs.py)."""

    def __init__(self, upstream: Upstream, files: TenantFiles, directories: Directories) -> None:
        self._upstream = upstream
        self._files = files
        self._directories = directories
        self._threads = ThreadPoolExecutor(THREADS, "hashing")
        self._turns = KeyedSemaphore()

    def stop(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def measure(self, tenant: TenantId, folder: Folder, path: UpstreamPath) -> Measured | None:
        """None for a file that is not there. Raises UpstreamUnavailable and UpstreamTimeout where that is not known."""
        async with self._turns.of(tenant):
            found, place = None, place_of(tenant, folder, path)
            root = self._directories.root_of(folder, path)
            if root is not None:
                edits = partial(self._files.of_opened, place)
                found = await asyncio.get_running_loop().run_in_executor(self._threads, _read, root, path, edits)
            return found or await self._ask(folder, path, place, is_seen=root is not None)

    async def _ask(self, folder: Folder, path: UpstreamPath, place: Place | None, *, is_seen: bool) -> Measured | None:
        headers = CIMultiDict({hdrs.ACCEPT_ENCODING: "identity"})
        call = view_of("GET", folder, path)
        async with await self._upstream.open(call, headers, time_limit_s=_SILENCE_S) as stream:
            if stream.status in _ABSENT:
                return None
            if stream.status != 200:
                raise UpstreamUnavailable(status=503)
            hasher = _Hasher()
            await self._files.body_of(place, stream).pour(hasher)
            measured = hasher.measured()
            # Where the disk should have had it, the disk would never have what ComfyUI says of it.
            return measured if is_seen else measured._replace(stamp=stamp_of_etag(stream.headers))


class _Hasher:
    """Takes a body as it comes, see `Taker`; a piece takes less time than it took to be read."""

    __slots__ = ("_digest", "_size_bytes")

    def __init__(self) -> None:
        self._digest = blake3()
        self._size_bytes = 0

    def take(self, piece: bytes | memoryview) -> bool:
        self._size_bytes += len(piece)
        self._digest.update(piece)
        return True

    async def ready(self) -> None:
        return

    def measured(self) -> Measured:
        return Measured(self._size_bytes, _told(self._digest))


def _read(root: Path, path: UpstreamPath, edits_of: FileEdits) -> Measured | None:
    file = regular_file(root, path)
    if file is None:
        return None
    digest, size_bytes = blake3(), 0
    try:
        with file.open("rb") as opened:
            found = os.fstat(opened.fileno())
            stamp, edits = stamp_of(found), edits_of(opened.fileno(), found)
            while piece := opened.read(PIECE_BYTES):
                digest.update(apply(piece, edits, size_bytes))
                size_bytes += len(piece)
    except OSError:
        return None
    return Measured(size_bytes, _told(digest), stamp)


def _told(digest: Blake3) -> str:
    return f"blake3:{digest.hexdigest()}"
