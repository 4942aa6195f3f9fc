"""Files that vanish, cannot be deleted or cannot be reached while the gate counts and sweeps: others' requests and later sweeps go on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from policy.principal import TenantId
from proxy.config.limits import LimitSettings
from proxy.files import quota as module
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.files.directories import Directories
from proxy.files.quota import StorageQuota
from proxy.jobs.registry import JobRegistry
from tests.proxy.upstreams import GUARD_S

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
RETENTION = LimitSettings(retention=50.0)


def put_old(folder: Path, name: str, tenant: TenantId = ALICE) -> Path:
    file = folder / "output" / "tenants" / tenant / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * 100)
    os.utime(file, (1, 1))
    return file


class Listing:
    """As os.scandir gives it."""

    def __init__(self, entries: list[os.DirEntry[str]]) -> None:
        self._entries = iter(entries)

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Listing:
        return self

    def __next__(self) -> os.DirEntry[str]:
        return next(self._entries)


async def test_a_file_that_vanishes_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant deletes while it is counted; ComfyUI moves files as it likes."""
    disk, gone = ComfyUIFolders(Directories(tmp_path)), put_old(tmp_path, "a.png")
    put_old(tmp_path, "b.png")
    scandir = os.scandir

    def vanishing(path: Path) -> Listing:
        with scandir(path) as entries:
            listed = list(entries)
        gone.unlink(missing_ok=True)
        return Listing(listed)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert await disk.usage_bytes(ALICE) == 100
    put_old(tmp_path, "a.png")
    assert await disk.delete_older(ALICE, 500) == 1


def undeletable(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    unlink = Path.unlink

    def refused(self: Path, missing_ok: bool = False) -> None:
        if self.name in names:
            raise PermissionError(13, "Permission denied")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)


async def test_a_file_that_cannot_be_deleted_keeps_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [put_old(tmp_path, name) for name in ("a.png", "b.png", "c.png")]
    undeletable(monkeypatch, "b.png")
    with pytest.raises(PermissionError):
        await ComfyUIFolders(Directories(tmp_path)).delete_older(ALICE, 500)
    assert [file.exists() for file in files] == [False, True, False]


async def test_a_sweep_that_fails_for_one_tenant_goes_on_and_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_SWEEP_INTERVAL_S", 0.0)
    undeletable(monkeypatch, "stays.png")
    storage = StorageQuota(
        ComfyUIFolders(Directories(tmp_path)), JobRegistry(), lambda tenant: RETENTION, lambda: [ALICE, MALLORY]
    )
    stays = put_old(tmp_path, "stays.png")
    sweeping = asyncio.ensure_future(storage.sweep_forever())
    async with asyncio.timeout(GUARD_S):
        for number in range(3):
            file = put_old(tmp_path, f"{number}.png", MALLORY)
            while file.exists():
                assert not sweeping.done(), "it has ended"
                await asyncio.sleep(0)
    sweeping.cancel()
    assert stays.exists()
    assert "old files of tenant alice cannot be deleted: [Errno 13]" in caplog.text
