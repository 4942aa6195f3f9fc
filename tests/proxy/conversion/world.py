"""What makes results in another form, without a gate around it, and files that ComfyUI has made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from policy.functions.conversion import Recipe
from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from policy.v2.asset_files import DerivedFile, stored_file
from policy.v2.assets import Asset
from policy.violation import Violation
from proxy.conversion.conversions import Conversions
from proxy.conversion.kept_files import KeptFile, KeptFiles
from proxy.conversion.pool import COMMAND, ConverterPool
from proxy.conversion.sources import Sources
from proxy.files.directories import Directories
from proxy.files.tenant_files import TenantFiles
from proxy.limits.heavy_work import HeavyWork
from proxy.upstream.client import Upstream
from tests.proxy.conftest import Clock
from tests.proxy.conversion.orders import png, program

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
WEBP = Recipe("webp", 80)
MANY = 100
# What it writes is no picture, but a file like any other.
COUNT = "open(asked['target'], 'xb').write(b'made'); open({folder!r} + '/made', 'a').write('x'); "
TELL = COUNT + "answer(size_bytes=4, hash='blake3:' + '0a' * 32)"


class World:
    def __init__(self, folder: Path, url: str, directory: Path | None, command: Sequence[str], max_bytes: int) -> None:
        self.folder = folder
        self.clock = Clock()
        self.upstream = Upstream(url, 5.0)
        self.kept = KeptFiles(folder / "converted", lambda: max_bytes)
        self.max_pixels = 10**6
        self.conversions = Conversions(
            self.kept,
            ConverterPool(command),
            Sources(self.upstream, TenantFiles(self.upstream, HeavyWork()), Directories(directory)),
            lambda: self.max_pixels,
            self.clock,
        )

    @property
    def made(self) -> int:
        counted = self.folder / "made"
        return len(counted.read_text()) if counted.exists() else 0

    async def give(self, file: DerivedFile, tenant: TenantId = ALICE) -> KeptFile:
        found = await self.conversions.give(tenant, file)
        found.release()
        return found

    async def refusal(self, file: DerivedFile) -> Violation:
        with pytest.raises(Violation) as refused:
            await self.give(file)
        return refused.value


def written(
    base: Path, data: bytes | None = None, name: str = "a.png", tenant: TenantId = ALICE, **more: Any
) -> DerivedFile:
    """A file of ComfyUI's, as it was measured."""
    data = png() if data is None else data
    file = base / "output" / "tenants" / tenant / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    found = file.stat()
    fields: dict[str, Any] = {
        "file_path": name,
        "content_type": "image/png",
        "size_bytes": len(data),
        "asset_id": f"{tenant}-{name}",
        "hash": f"blake3:{blake3(data).hexdigest()}",
        "stamp": f"{found.st_mtime_ns:x}-{found.st_size:x}",
        "created_at_s": 1.0,
        "folder": Folder.OUTPUT,
        "path": name,
    }
    asset = Asset(**(fields | more))
    return DerivedFile(asset, WEBP, stored_file(asset, Namespace(tenant), lambda _: False, "GET"))


@asynccontextmanager
async def world_in(
    folder: Path,
    *,
    url: str = "http://127.0.0.1:9",
    directory: Path | None = None,
    command: Sequence[str] = COMMAND,
    max_bytes: int = 10**6,
) -> AsyncIterator[World]:
    found = World(folder, url, directory, command, max_bytes)
    try:
        yield found
    finally:
        await found.conversions.stop()
        await found.upstream.stop()


def counting(folder: Path, text: str = TELL) -> tuple[str, ...]:
    return program("for asked in orders: " + text.format(folder=str(folder)))
