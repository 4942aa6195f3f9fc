"""Results of a job in the form in which a function gives them, for a rule that tells of them or has them within its answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from policy.functions.conversion import Derived, NotDerived
from policy.v2.asset_files import DerivedFile, StoredFile
from policy.v2.effects import DeriveOutputs, ReadOutputs
from policy.violation import Violation
from proxy.dependencies import Dependencies
from proxy.files.comfyui_ranges import Unreadable
from proxy.http.errors import TurnedAway, UpstreamTimeout, UpstreamUnavailable
from proxy.steps.held import Held
from proxy.steps.permit import PermittedRequest
from proxy.v2.file_measuring import measure_bytes

_COPIES: Final = 3
"""A file within an answer is there as it is, in base64, and in the answer."""


class GivenOutputs:
    """held: what the request keeps until its answer has left; the room of files within the answer is among it."""

    def __init__(self, dependencies: Dependencies, permitted: PermittedRequest, held: Held) -> None:
        self._dependencies = dependencies
        self._tenant = permitted.principal.tenant
        self._held = held

    async def derive(self, step: DeriveOutputs) -> list[Derived | NotDerived]:
        copies, files = self._dependencies.copies, step.files
        copied = [None] * len(files) if copies is None else await copies.forms(self._tenant, files)
        others = [file for file, copy in zip(files, copied, strict=True) if copy is None]
        made = iter(await self._dependencies.conversions.look(self._tenant, others, is_awaited=step.is_awaited))
        return [next(made) if copy is None else copy for copy in copied]

    async def read(self, step: ReadOutputs) -> list[bytes | None]:
        """SECURITY: answers with files in them would fill the gate's memory (tests/proxy/functions/test_inline.py). Raises LimitExceeded(bodies-full)."""
        place = self._held.enter_context(self._dependencies.bodies.place(self._tenant))
        await place.hold(_COPIES * sum(step.sizes))
        found = []
        for file, size, digest in zip(step.files, step.sizes, step.hashes, strict=True):
            data = await (self._derived(file, size) if isinstance(file, DerivedFile) else self._stored(file, size))
            # SECURITY: a preview's name may come again, as a neighbour's: what is told is what was measured.
            found.append(data if data is not None and measure_bytes(data).hash == digest else None)
        return found

    async def _derived(self, file: DerivedFile, size: int) -> bytes | None:
        try:
            made = await self._dependencies.conversions.give(self._tenant, file)
        except (Violation, UpstreamUnavailable, UpstreamTimeout, TurnedAway):
            return None
        try:
            return await asyncio.to_thread(_read, made.path, size)
        finally:
            made.release()

    async def _stored(self, file: StoredFile, size: int) -> bytes | None:
        try:
            async with self._dependencies.tenant_files.open(self._tenant, file.folder, file.path) as opened:
                return await opened.read(0, size) if opened.size == size else None
        except (OSError, Unreadable, UpstreamUnavailable, UpstreamTimeout):
            return None


def _read(path: Path, size: int) -> bytes | None:
    try:
        with path.open("rb") as opened:
            return opened.read(size + 1)
    except OSError:
        return None
