"""Quota and retention as each tenant's limits say, and the gate's answer when the storage is full."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from policy.principal import TenantId
from policy.violation import Reason, Violation
from proxy.config.limits import LimitSettings
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.files.directories import Directories
from proxy.files.quota import StorageQuota
from proxy.jobs.registry import JobRegistry
from standin import StandIn
from tests.harness import running_gate

ALICE, BOB = TenantId("alice"), TenantId("bob")


def storage_of(base: Path | None, alice: Mapping[str, object], registry: JobRegistry | None = None) -> StorageQuota:
    limits = {ALICE: LimitSettings.model_validate(alice), BOB: LimitSettings()}
    return StorageQuota(
        ComfyUIFolders(Directories(base)) if base is not None else None,
        registry or JobRegistry(),
        limits.__getitem__,
        lambda: limits,
    )


def put(file: Path, size: int, *, is_old: bool = False) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    if is_old:
        os.utime(file, (1, 1))
    return file


async def test_room_is_what_the_quota_leaves(tmp_path: Path) -> None:
    put(tmp_path / "input/tenants/alice/a.png", 300)
    storage = storage_of(tmp_path, {"storage": 1000})
    assert await storage.remaining_bytes(ALICE, 1000) == 700
    storage.add_usage(ALICE, 699)
    assert await storage.remaining_bytes(ALICE, 1000) == 1
    storage.add_usage(ALICE, 1)
    with pytest.raises(Violation) as caught:
        await storage.remaining_bytes(ALICE, 1000)
    assert caught.value.reason is Reason.STORAGE_FULL
    assert "1000 bytes" in str(vars(storage.quota_exceeded(1000)))
    assert await storage.remaining_bytes(BOB, None) is None


async def test_there_is_no_quota_where_the_folders_are_not_seen() -> None:
    storage = storage_of(None, {"storage": 1, "retention": "1s"})
    storage.add_usage(ALICE, 5)
    assert await storage.remaining_bytes(ALICE, 1000) is None
    await storage.sweep()


async def test_the_sweep_heeds_each_tenants_retention(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "comfygate")
    clock_s = 1000.0
    registry = JobRegistry(lambda: clock_s)
    job = registry.claim(ALICE, None)
    registry.add_temp_files(job.prompt_id, ("preview.png",))
    hers = put(tmp_path / "input/tenants/alice/a.png", 3, is_old=True)
    his = put(tmp_path / "input/tenants/bob/a.png", 3, is_old=True)
    await storage_of(tmp_path, {"retention": "1d"}, registry).sweep()
    assert (hers.exists(), his.exists()) == (False, True)
    assert "deleted 1 old files of tenant alice" in caplog.text
    caplog.clear()
    await storage_of(tmp_path, {"retention": "1d"}, registry).sweep()
    assert caplog.text == "", "nothing to tell"


async def test_sweeps_at_the_start_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.files.quota._SWEEP_INTERVAL_S", 0.0)
    file = put(tmp_path / "input/tenants/alice/a.png", 3, is_old=True)
    sweeping = asyncio.ensure_future(storage_of(tmp_path, {"retention": "1d"}).sweep_forever())
    for _ in range(2):
        async with asyncio.timeout(240):
            while file.exists():
                await asyncio.sleep(0)
        put(file, 3, is_old=True)
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping


async def test_a_full_storage_is_507_for_its_tenant_alone(tmp_path: Path, comfy: StandIn) -> None:
    base = tmp_path / "comfyui"
    more = 'storage = "1KiB"'
    put(base / "input/tenants/mallory/a.png", 2000)
    async with running_gate(tmp_path, comfy.url, upstream_more=f'directory = "{base}"', more=more) as gate:
        for path in ("/prompt", "/userdata/a.json"):
            async with gate.call("POST", path, "mallory", data=b"{}") as answer:
                assert answer.status == 507, path
                assert (await answer.json())["error"]["type"] == "storage_full"
        assert await gate.status("POST", "/userdata/a.json", "alice", data=b"{}") == 200
        assert await gate.status("GET", "/queue", "mallory") == 200
