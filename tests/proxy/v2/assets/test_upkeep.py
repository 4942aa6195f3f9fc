"""What becomes of records and files with time: expiry, retention, folders that are not there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from policy.call import JobExtras
from policy.namespace import Folder
from policy.principal import TenantId
from policy.v2.assets import Asset, AssetDetails
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.files.directories import Directories
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_operations import add_waiting, cancel_waiting
from proxy.persistence.operations import Database, DatabaseUnavailable
from proxy.upstream.client import Upstream
from proxy.v2.asset_files import AssetFiles
from proxy.v2.asset_operations import add_asset, find_assets
from proxy.v2.assets import Assets
from tests.proxy.jobs.stored import SUBMITTED, row
from tests.proxy.v2.assets.sdk import hash_of

ALICE, BOB = TenantId("alice"), TenantId("bob")
NOWHERE = "http://127.0.0.1:9"
DAY_S = 86_400.0


@dataclass
class Kept:
    """A tenant's assets over files in a folder, with a clock of the test's. tenants: with their retention."""

    database: Database
    folder: Path
    registry: JobRegistry
    tenants: dict[TenantId, float | None]
    now_s: float

    def assets(self, *, is_seen: bool = True) -> Assets:
        disk = ComfyUIFolders(Directories(self.folder)) if is_seen else None
        files = AssetFiles(disk, Upstream(NOWHERE, 1.0), self.registry)
        return Assets(
            self.database, files, lambda: self.tenants, lambda tenant: self.tenants[tenant], lambda: self.now_s
        )

    def write(self, name: str, data: bytes = b"data", tenant: str = "alice", folder: str = "input") -> Path:
        file = self.folder / folder / "tenants" / tenant / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        os.utime(file, (self.now_s, self.now_s))
        return file

    async def add(
        self, name: str, expires_in_s: float | None = None, tenant: TenantId = ALICE, data: bytes = b"data"
    ) -> tuple[Asset, Path]:
        path = f"api-v2/{name}/x.png"
        file = self.write(path, data, tenant)
        made = Asset(name, "x.png", "", len(data), hash_of(data), 0.0, folder=Folder.INPUT, path=path)
        return await self.assets().add(tenant, made, expires_in_s), file

    async def names(self, *names: str, tenant: TenantId = ALICE) -> set[str]:
        """Of the records that stand there, whatever became of the files."""
        return set(await self.database.read(find_assets, tenant, names, 0.0))


@pytest.fixture
def kept(database: Database, tmp_path: Path) -> Kept:
    return Kept(database, tmp_path / "comfyui", JobRegistry(), {ALICE: None, BOB: None}, 1_000_000.0)


async def test_a_new_one_is_stamped(kept: Kept) -> None:
    asset, file = await kept.add("1", 60.0)
    found = file.stat()
    assert asset.stamp == f"{found.st_mtime_ns:x}-{found.st_size:x}"
    assert (asset.content_type, asset.created_at_s, asset.expires_at_s) == ("image/png", kept.now_s, kept.now_s + 60)
    assert await kept.assets().find(ALICE, ["1"]) == {"1": asset}
    assert await kept.assets().find_hash(ALICE, hash_of(b"data")) == asset


async def test_the_file_of_what_has_expired_goes_with_its_last_record(kept: Kept) -> None:
    _, gone = await kept.add("gone", 60.0)
    _, shared = await kept.add("shared", 60.0, data=b"shared")
    _, lasting = await kept.add("lasting")
    _, neighbours = await kept.add("neighbours", 60.0, BOB)
    reused = await kept.assets().reuse(ALICE, hash_of(b"shared"), AssetDetails(file_path="other.png"))
    assert reused is not None
    kept.now_s += 60
    await kept.assets().sweep(ALICE)
    assert [file.exists() for file in (gone, shared, lasting, neighbours)] == [False, True, True, True]
    assert not gone.parent.exists()
    assert await kept.names("gone", "shared", "lasting") == {"lasting"}


async def test_what_a_waiting_job_uses_outlasts_its_time(kept: Kept) -> None:
    _, file = await kept.add("1", 60.0)
    await kept.database.run(add_waiting, row("job"), SUBMITTED, JobExtras({}, ("1",)))
    kept.now_s += 61
    await kept.assets().sweep(ALICE)
    assert file.exists()
    assert await kept.assets().find(ALICE, ["1"]) == {}, "as if it were not there"
    assert await kept.database.run(cancel_waiting, ALICE, ["job"], 1.0) == ["job"]
    await kept.assets().sweep(ALICE)
    assert not file.exists()


async def test_many_are_swept_in_turns(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.v2.assets._SWEPT_AT_ONCE", 3)
    for number in range(7):
        await kept.add(str(number), 60.0, data=bytes(number))
    kept.now_s += 61
    await kept.assets().sweep(ALICE)
    assert await kept.names(*map(str, range(7))) == set()
    assert list((kept.folder / "input/tenants/alice").rglob("*.png")) == []


async def test_what_was_put_in_its_place_stays(kept: Kept) -> None:
    _, file = await kept.add("1")
    file.write_bytes(b"another")
    assert await kept.assets().find(ALICE, ["1"]) == {}
    assert await kept.assets().delete(ALICE, "1")
    assert file.read_bytes() == b"another"


async def test_records_of_what_retention_has_deleted_go(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.v2.assets._SWEPT_AT_ONCE", 2)
    kept.tenants[ALICE] = DAY_S
    files = [(await kept.add(str(number), data=bytes(number)))[1] for number in range(5)]
    kept.now_s += DAY_S + 1
    _, new = await kept.add("new")
    for file in (*files[:4], new):
        file.unlink()
    await kept.assets().sweep_old(ALICE, DAY_S)
    assert await kept.names(*map(str, range(5)), "new") == {"4", "new"}
    await kept.assets(is_seen=False).sweep_old(ALICE, 0.0)
    assert await kept.names("new") == {"new"}, "what is not seen is not known to be gone"


async def test_bytes_whose_time_is_half_over_are_sent_again(kept: Kept) -> None:
    """Else the retention would delete what somebody has just uploaded."""
    kept.tenants[ALICE] = DAY_S
    await kept.add("1")
    kept.now_s += DAY_S / 2 - 1
    assert await kept.assets().find_hash(ALICE, hash_of(b"data")) is not None
    kept.now_s += 2
    assert await kept.assets().find_hash(ALICE, hash_of(b"data")) is None
    assert await kept.assets().find(ALICE, ["1"]) != {}, "it is there all the same"
    kept.tenants[ALICE] = None
    assert await kept.assets().find_hash(ALICE, hash_of(b"data")) is not None


async def test_sweeps_at_the_start_and_again(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also after a time without a database, and whatever becomes of one tenant's."""
    monkeypatch.setattr("proxy.v2.assets._SWEEP_EACH_S", 0.0)
    monkeypatch.setattr("proxy.v2.assets._LOOK_EACH", 1)
    kept.tenants = {BOB: None, ALICE: DAY_S}
    assets, swept, failures = kept.assets(), asyncio.Event(), 2
    sweep = assets.sweep_old

    async def counted(tenant: TenantId, age_s: float) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise DatabaseUnavailable("this test's")
        await sweep(tenant, age_s)
        assert (tenant, age_s) == (ALICE, DAY_S)
        swept.set()

    monkeypatch.setattr(assets, "sweep_old", counted)
    sweeping = asyncio.ensure_future(assets.sweep_forever())
    async with asyncio.timeout(240):
        await swept.wait()
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping
    assert caplog.text.count("assets of tenant alice") == 2


async def test_a_reuse_that_loses_its_file_finds_another(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the record somebody deletes it."""
    first, _ = await kept.add("1")
    kept.now_s += 1
    second, _ = await kept.add("2")
    assets, find = kept.assets(), kept.assets().find_hash

    async def find_and_lose(tenant: TenantId, digest: str) -> Asset | None:
        found = await find(tenant, digest)
        if found is not None and found.asset_id == "2":
            await kept.assets().delete(tenant, "2")
        return found

    monkeypatch.setattr(assets, "find_hash", find_and_lose)
    reused = await assets.reuse(ALICE, hash_of(b"data"), AssetDetails(file_path="y.png"))
    assert reused is not None
    assert (reused.asset.path, reused.is_new_record) == (first.path, True)
    assert second.path != first.path


async def test_a_folder_that_is_another_one_hides_nothing(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """`upstream.directory` is wrong: ComfyUI has the file, and the gate's disk never had it."""
    made = Asset("1", "x.bin", "", 4, hash_of(b"data"), 0.0, folder=Folder.INPUT, path="api-v2/1/x.bin")
    asset = await kept.assets().add(ALICE, made, None)
    assert (asset.stamp, asset.content_type) == ("", "application/octet-stream")
    assert await kept.assets().find(ALICE, ["1"]) == {"1": asset}


async def test_a_temp_file_is_deleted_where_it_is_known_to_be_the_one(kept: Kept) -> None:
    job = kept.registry.claim(ALICE, None)
    kept.registry.add_temp_files(job.prompt_id, ("made.png", "other.png"))
    files = AssetFiles(ComfyUIFolders(Directories(kept.folder)), Upstream(NOWHERE, 1.0), kept.registry)
    for name, is_stamped in (("made.png", True), ("other.png", False), ("foreign.png", True)):
        file = kept.folder / "temp" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"data")
        stamp = f"{file.stat().st_mtime_ns:x}-4" if is_stamped else ""
        asset = Asset("1", name, "", 4, None, 0.0, folder=Folder.TEMP, path=name, stamp=stamp)
        await files.delete(ALICE, asset)
        assert file.exists() is (name != "made.png"), name


async def test_what_cannot_be_deleted_is_told(
    kept: Kept, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file = await kept.add("1")
    monkeypatch.setattr(Path, "unlink", raising(PermissionError("no")))
    assert await kept.assets().delete(ALICE, "1")
    assert "cannot be deleted" in caplog.text
    assert file.exists()


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


async def test_deleted_files_are_room_again(kept: Kept) -> None:
    disk = ComfyUIFolders(Directories(kept.folder))
    _, file = await kept.add("1", data=b"x" * 1000)
    assert await disk.usage_bytes(ALICE) == 1000
    files = AssetFiles(disk, Upstream(NOWHERE, 1.0), kept.registry)
    asset = (await kept.assets().find(ALICE, ["1"]))["1"]
    await files.delete(ALICE, asset)
    assert not file.exists()
    assert await disk.usage_bytes(ALICE) == 0
    await files.delete(ALICE, replace(asset, folder=None))
    await kept.database.run(add_asset, ALICE, replace(asset, asset_id="2", stamp=""))
    await files.delete(ALICE, replace(asset, stamp=""))
    assert await disk.usage_bytes(ALICE) == 0
