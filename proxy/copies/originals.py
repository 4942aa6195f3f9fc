"""What is copied, as it is read: the file as its tenant gets it. The one seam between a file and its copy."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from policy.call import UpstreamPath
from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from policy.violation import Violation
from proxy.files.comfyui_ranges import Unreadable
from proxy.files.hashing import blake3
from proxy.files.tenant_files import TenantFiles
from proxy.jobs.copy_requests import Copy
from proxy.jobs.registry import JobRegistry

PIECE_BYTES: Final = 1024**2
_OVERWRITTEN: Final = "the original is another file by now"


class OriginalGone(Exception):
    """It is deleted, or was overwritten. The text says which."""


class Originals:
    def __init__(self, files: TenantFiles, registry: JobRegistry) -> None:
        self._files = files
        self._registry = registry

    async def read(self, copy: Copy) -> AsyncGenerator[bytes, None]:
        """Its bytes. Ends with an error instead of its last piece where they are not those that were measured: then nothing is stored of it.

        Raises OriginalGone, OSError, UpstreamUnavailable, UpstreamTimeout, LimitExceeded.
        """
        digest, path = blake3(), self.path_of(copy)
        try:
            async with self._files.open(TenantId(copy.tenant), Folder(copy.folder), path) as file:
                if file.size != copy.size_bytes or (copy.stamp and file.stamp and file.stamp != copy.stamp):
                    raise OriginalGone(_OVERWRITTEN)
                for start in range(0, file.size, PIECE_BYTES):
                    count = min(PIECE_BYTES, file.size - start)
                    piece = await file.read(start, count)
                    digest.update(piece)
                    if len(piece) != count:
                        raise OriginalGone(_OVERWRITTEN)
                    if start + count == file.size and f"blake3:{digest.hexdigest()}" != copy.hash:
                        raise OriginalGone(_OVERWRITTEN)
                    yield piece
        except FileNotFoundError:
            raise OriginalGone("the original is gone") from None
        except Unreadable:
            raise OriginalGone(_OVERWRITTEN) from None

    def path_of(self, copy: Copy) -> UpstreamPath:
        """Raises OriginalGone for a name that its tenant cannot have."""
        has_temp_file = self._registry.of(TenantId(copy.tenant)).has_temp_file
        try:
            names = Namespace(TenantId(copy.tenant))
            return names.readable_to_upstream(copy.path, Folder(copy.folder), (), has_temp_file)
        except Violation:
            raise OriginalGone("the original has no name that its tenant could have") from None
