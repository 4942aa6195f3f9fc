"""An output as its function gives it, for who copies it elsewhere: one that is given in another form. Others are files of ComfyUI's as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from policy.functions.conversion import misfit
from policy.functions.results import Result
from policy.namespace import Namespace
from policy.principal import TenantId
from policy.v2.asset_files import DerivedFile, stored_file
from policy.violation import Reason, Violation
from proxy.conversion.conversions import Conversions

PIECE_BYTES: Final = 256 * 1024


class OpenedOutput(NamedTuple):
    """hash: as an asset's."""

    name: str
    content_type: str
    size_bytes: int
    hash: str
    path: Path

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises OSError."""
        file = await asyncio.to_thread(self.path.open, "rb")
        try:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece
        finally:
            await asyncio.to_thread(file.close)


@asynccontextmanager
async def open_derived(
    conversions: Conversions, tenant: TenantId, result: Result, has_temp_file: Callable[[str], bool]
) -> AsyncIterator[OpenedOutput]:
    """result: with a recipe (policy.functions.results.results_of). has_temp_file: of the tenant's jobs. It is there until it is closed.

    Raises Violation(conversion-failed | not-found), UpstreamUnavailable, UpstreamTimeout.
    """
    assert result.recipe is not None, "it is given in another form"
    if why := misfit(result.asset, result.recipe):
        raise Violation(Reason.CONVERSION_FAILED, why)
    source = stored_file(result.asset, Namespace(tenant), has_temp_file, "GET")
    file = await conversions.give(tenant, DerivedFile(result.asset, result.recipe, source))
    try:
        yield OpenedOutput(result.file_name, result.content_type, file.size_bytes, file.hash, file.path)
    finally:
        file.release()
