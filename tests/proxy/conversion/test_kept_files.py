"""The folder of what was converted: bounded, whole, and the same after a restart."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from policy.principal import TenantId
from proxy.conversion import kept_files
from proxy.conversion.kept_files import DRAFT, LEFT_S, KeptFile, KeptFiles, Key

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
MAX = 1000


def kept_in(folder: Path, max_bytes: int = MAX) -> KeptFiles:
    return KeptFiles(folder, lambda: max_bytes)


def key(number: int, tenant: TenantId = ALICE, form: int = 0) -> Key:
    return Key(tenant, f"{number:032x}", f"{form or number:032x}")


async def put(kept: KeptFiles, place: Key, size: int = 100, changed_at_s: float = 1000.0) -> KeptFile:
    draft = await kept.draft(place.tenant)
    draft.write_bytes(b"x" * size)
    return await kept.keep(place, draft, size, "blake3:" + "0a" * 32, changed_at_s)


async def fill(kept: KeptFiles, *places: Key, size: int = 100) -> None:
    for place in places:
        (await put(kept, place, size)).release()


def names(folder: Path) -> list[str]:
    return sorted(file.parent.name + "/" + file.name[:32].lstrip("0") for file in folder.glob("*/*"))


async def test_what_was_kept_is_found(tmp_path: Path) -> None:
    kept = kept_in(tmp_path / "converted")
    await kept.open()
    assert await kept.find(key(1)) is None
    assert not (tmp_path / "converted").exists(), "made at the first use"
    made = await put(kept, key(1))
    assert made.path.read_bytes() == b"x" * 100
    assert made.path.parent.stat().st_mode & 0o077 == 0 or os.name == "nt"
    assert await kept.find(key(1)) is made
    assert await kept.find(key(1, MALLORY)) is None
    assert (kept.used_bytes, made.users) == (100, 2)


async def test_what_was_not_asked_for_the_longest_goes(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    await fill(kept, *(key(number) for number in range(1, 11)))
    for number in (1, 2):
        found = await kept.find(key(number))
        assert found is not None
        found.release()
    await fill(kept, key(11), key(12))
    assert names(tmp_path) == sorted(f"alice/{number:x}" for number in (1, 2, 5, 6, 7, 8, 9, 10, 11, 12))
    assert kept.used_bytes == MAX


async def test_one_tenant_does_not_push_out_the_others(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    await fill(kept, key(1), key(2))
    await fill(kept, *(key(number, MALLORY) for number in range(100, 150)))
    assert [name for name in names(tmp_path) if name.startswith("alice")] == ["alice/1", "alice/2"]
    assert kept.used_bytes == MAX


async def test_what_is_read_is_not_deleted(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    read = await put(kept, key(1))
    await fill(kept, *(key(number) for number in range(2, 30)))
    assert read.path.exists()
    read.release()
    await fill(kept, key(30))
    assert not read.path.exists()


async def test_a_folder_that_is_all_read_takes_more_for_a_while(tmp_path: Path) -> None:
    kept = kept_in(tmp_path, 250)
    files = [await put(kept, key(number)) for number in range(1, 5)]
    assert kept.used_bytes == 400
    for file in files:
        file.release()
    await fill(kept, key(9))
    assert kept.used_bytes == 200


async def test_so_many_files_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_files, "MAX_FILES", 3)
    kept = kept_in(tmp_path)
    await fill(kept, *(key(number) for number in range(1, 9)), size=1)
    assert names(tmp_path) == ["alice/6", "alice/7", "alice/8"]


async def test_many_small_files_do_not_push_out_the_large_ones_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_files, "MAX_FILES", 5)
    kept = kept_in(tmp_path)
    await fill(kept, key(1, MALLORY), size=900)
    await fill(kept, *(key(number) for number in range(1, 9)), size=1)
    assert names(tmp_path) == ["alice/5", "alice/6", "alice/7", "alice/8", "mallory/1"]


async def test_after_a_restart_it_is_the_same(tmp_path: Path) -> None:
    before = kept_in(tmp_path)
    await fill(before, key(1), key(2, MALLORY), key(3))
    after = kept_in(tmp_path)
    await after.open()
    await after.open()
    assert after.used_bytes == 300
    for place in (key(1), key(2, MALLORY), key(3)):
        old, new = before.look_at(place), await after.find(place)
        assert old is not None
        assert new is not None
        assert (new.path, new.size_bytes, new.hash) == (old.path, old.size_bytes, old.hash)
    # With a smaller bound, the one that was used the longest ago goes first.
    for number, file in enumerate(sorted(tmp_path.glob("*/*"), key=lambda file: file.name)):
        os.utime(file, (1000 + number, file.stat().st_mtime))
    smaller = kept_in(tmp_path, 250)
    await smaller.open()
    assert names(tmp_path) == ["alice/3", "mallory/2"]


async def test_two_gates_with_one_folder_count_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = kept_in(tmp_path), kept_in(tmp_path)
    await one.open()
    await two.open()
    await fill(one, *(key(number) for number in range(1, 7)))
    await fill(two, *(key(number) for number in range(7, 13)))
    await one.look_again()
    assert one.used_bytes == MAX
    assert len(names(tmp_path)) == 10
    assert (await two.find(key(12))) is not None
    assert (await one.find(key(12))) is not None
    await two.look_again()
    assert two.used_bytes == MAX
    for gate in (one, two):
        await fill(gate, key(20))
    await one.look_again()
    assert names(tmp_path).count("alice/14") == 2, "somebody may be about to read it"
    monkeypatch.setattr(kept_files, "LEFT_S", -1.0)
    await one.look_again()
    assert names(tmp_path).count("alice/14") == 1
    assert one.used_bytes == sum(file.stat().st_size for file in tmp_path.glob("*/*"))


async def test_what_is_kept_while_the_folder_is_looked_at_stays_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, read = kept_in(tmp_path), kept_files._read
    await fill(kept, key(1), key(2))
    [gone] = tmp_path.glob("*/*1-*1-*")
    gone.unlink()
    loop = asyncio.get_running_loop()

    def slowly(folder: Path) -> Any:
        found = list(read(folder))
        asyncio.run_coroutine_threadsafe(fill(kept, key(3)), loop).result()
        return found

    monkeypatch.setattr(kept_files, "_read", slowly)
    await kept.look_again()
    assert [kept.look_at(key(number)) is not None for number in (1, 2, 3)] == [False, True, True]
    assert kept.used_bytes == 200


async def test_what_is_found_as_it_is_kept_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, move = kept_in(tmp_path), kept_files._move
    is_moved, goes_on = threading.Event(), threading.Event()

    def slowly(draft: Path, path: Path, changed_ns: int) -> None:
        move(draft, path, changed_ns)
        is_moved.set()
        goes_on.wait()

    monkeypatch.setattr(kept_files, "_move", slowly)
    keeping = asyncio.create_task(put(kept, key(1)))
    await asyncio.to_thread(is_moved.wait)
    await kept.look_again()
    goes_on.set()
    made = await keeping
    assert made.path.read_bytes() == b"x" * 100
    assert (await kept.find(key(1)), kept.used_bytes) == (made, 100)


async def test_drafts_of_a_gate_that_was_killed_go_and_those_of_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "alice"
    folder.mkdir()
    old, new, other = folder / f"old{DRAFT}", folder / f"new{DRAFT}", folder / "other"
    for file in (old, new, other):
        file.write_bytes(b"half")
    os.utime(old, (0, time.time() - LEFT_S - 1))
    kept = kept_in(tmp_path)
    await kept.open()
    assert sorted(folder.iterdir()) == [new, other]
    assert kept.used_bytes == 0
    os.utime(new, (0, time.time() - LEFT_S - 1))
    await kept.sweep_drafts()
    assert list(folder.iterdir()) == [other]


async def test_one_that_is_made_twice_is_there_once(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    await fill(kept, key(1), key(1))
    assert (len(names(tmp_path)), kept.used_bytes) == (1, 100)
    # Two gates that share the folder.
    await fill(kept_in(tmp_path), key(1))
    assert len(names(tmp_path)) == 2
    again = kept_in(tmp_path)
    await again.open()
    assert (len(names(tmp_path)), again.used_bytes) == (1, 100)


async def test_what_somebody_has_tidied_up_is_not_found(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    made = await put(kept, key(1))
    made.path.unlink()
    assert await kept.find(key(1)) is None
    assert kept.used_bytes == 0


async def test_who_leaves_while_it_is_looked_for_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SECURITY: a file that somebody reads is not deleted, so a client that comes and leaves would fill the disk."""
    kept = kept_in(tmp_path)
    await fill(kept, key(1))
    looks, may_end = threading.Event(), threading.Event()

    def exists(_: Path) -> bool:
        looks.set()
        return may_end.wait()

    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", exists)
        finding = asyncio.create_task(kept.find(key(1)))
        await asyncio.to_thread(looks.wait)
        finding.cancel()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await finding
    found = await kept.find(key(1))
    assert found is not None
    assert found.users == 1


async def test_an_asset_that_is_deleted_takes_its_forms_along(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    await fill(kept, key(1, form=8), key(1, form=9), key(2), key(1, MALLORY))
    await kept.forget(ALICE, key(1).of)
    await kept.forget(TenantId("nobody"), key(1).of)
    assert names(tmp_path) == ["alice/2", "mallory/1"]


async def test_what_is_older_than_the_tenants_files_may_be_goes(tmp_path: Path) -> None:
    now_s = time.time()
    kept = kept_in(tmp_path)
    for place, age_s in ((key(1), 100.0), (key(2), 10.0), (key(3, MALLORY), 100.0)):
        (await put(kept, place, changed_at_s=now_s - age_s)).release()
    again = kept_in(tmp_path)
    await again.open()
    for each in (again, kept):
        await each.forget_older(ALICE, 50.0)
    assert names(tmp_path) == ["alice/2", "mallory/3"]


async def test_its_time_is_that_of_the_original_and_another_one_for_another_form(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    first, again, other = [await put(kept, place) for place in (key(1), key(1), key(1, form=7))]
    times: list[Any] = [file.path.stat().st_mtime_ns for file in (again, other)]
    assert [changed // 10**6 for changed in times] == [10**6, 10**6]
    assert times[0] != times[1]
    assert not first.path.exists()
