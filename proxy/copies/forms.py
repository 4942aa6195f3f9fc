"""What is copied in another form than the job made it: read as its function gives it."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from policy.functions.conversion import Recipe
from policy.functions.results import Result
from policy.namespace import Folder
from policy.principal import TenantId
from policy.v2.assets import Asset
from policy.violation import Reason, Violation
from proxy.conversion.conversions import Conversions, NotConvertible
from proxy.conversion.opened import OpenedOutput, open_derived
from proxy.copies.originals import OriginalGone
from proxy.files.hashing import blake3
from proxy.jobs.copy_requests import Copy
from proxy.jobs.registry import JobRegistry


class FormRefused(Exception):
    """The original cannot be given so. The text says why."""


class Forms:
    def __init__(self, conversions: Conversions, registry: JobRegistry) -> None:
        self._conversions = conversions
        self._registry = registry

    @asynccontextmanager
    async def open(self, copy: Copy) -> AsyncIterator[OpenedOutput]:
        """Of a copy that has a form; made, where it is not there.

        Raises OriginalGone, FormRefused, ConversionFailed, UpstreamUnavailable, UpstreamTimeout.
        """
        try:
            async with self._converted(copy) as output:
                yield output
        except NotConvertible as error:
            raise FormRefused(error.message) from None
        except Violation as error:
            if error.reason is Reason.CONVERSION_FAILED:
                raise ConversionFailed(error.message) from None
            raise OriginalGone("the original is gone") from None

    def _converted(self, copy: Copy) -> AbstractAsyncContextManager[OpenedOutput]:
        tenant = TenantId(copy.tenant)
        result = Result(_original_of(copy), "", 0, Recipe.from_mark(copy.form))
        return open_derived(self._conversions, tenant, result, self._registry.of(tenant).has_temp_file)


class ConversionFailed(Exception):
    """Of the gate's fault, or of one that may pass. The text is for the client; the log has more."""


async def verified(output: OpenedOutput) -> AsyncGenerator[bytes, None]:
    """Its bytes. Ends with OSError instead of its last piece where they are not those that were made: then nothing is stored of it."""
    digest, left = blake3(), output.size_bytes
    async for piece in output.chunks():
        digest.update(piece)
        left -= len(piece)
        if left < 0 or (left == 0 and f"blake3:{digest.hexdigest()}" != output.hash):
            break
        yield piece
        if left == 0:
            return
    raise OSError(errno.EIO, "the converted file is damaged")


def _original_of(copy: Copy) -> Asset:
    return Asset(
        asset_id=copy.asset_id,
        file_path=copy.path.rpartition("/")[2],
        content_type=copy.content_type,
        size_bytes=copy.size_bytes,
        hash=copy.hash,
        created_at_s=copy.ended_at_s,
        folder=Folder(copy.folder),
        path=copy.path,
        prompt_id=copy.prompt_id,
        stamp=copy.stamp,
    )
