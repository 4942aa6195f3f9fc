"""Records of assets, asked of SQLite and of PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policy.call import JobExtras
from policy.namespace import Folder
from policy.v2.assets import Asset
from policy.violation import Reason, Violation
from proxy.jobs.store_operations import AssetGone, add_waiting, cancel_waiting, forget
from proxy.persistence.operations import Database, Operation, Statement
from proxy.persistence.sqlite import SqliteDatabase
from proxy.v2 import asset_operations as operations
from proxy.v2.asset_operations import (
    File,
    add_asset,
    delete_asset,
    delete_expired,
    delete_records,
    files_of,
    find_assets,
    has_expired,
    newest_over,
    read_text,
    reuse,
    uploads_before,
)
from proxy.v2.asset_rows import ASSET_COLUMNS, ASSET_PLACES, row_of
from tests.proxy.jobs.stored import SUBMITTED, row

DIGEST, OTHER = "blake3:" + "0a" * 32, "blake3:" + "0b" * 32
ALICE, MALLORY = "alice", "mallory"


def asset(name: str, **more: Any) -> Asset:
    made = Asset(
        name,
        f"{name}.png",
        "image/png",
        5,
        DIGEST,
        100.0,
        folder=Folder.INPUT,
        path="api-v2/1/x.png",
        stamp="1-5",
    )
    return replace(made, **more)


def over(made: Asset) -> File:
    return File("input" if made.folder is None else made.folder.value, made.path, made.stamp)


async def put(database: Database, *assets: Asset, tenant: str = ALICE) -> None:
    for each in assets:
        await database.run(add_asset, tenant, each)


async def ids(database: Database, *names: str, tenant: str = ALICE, now_s: float = 200.0) -> set[str]:
    return set(await database.read(find_assets, tenant, names, now_s))


def put_text(tenant: str, made: Asset, body: bytes) -> Operation[None]:
    yield Statement(
        f"INSERT INTO assets ({ASSET_COLUMNS}, body) VALUES ({ASSET_PLACES}, ?)", (*row_of(made, tenant), body)
    )


async def test_a_record_is_read_as_it_was_written(database: Database) -> None:
    plain = asset("1")
    full = asset("2", tags=("b", "a"), expires_at_s=300.5, kind="image", prompt_id="job", node_id="9", hash=None)
    text = asset("3", folder=None, path="", stamp="", tags=('"', "ü"))
    await put(database, plain, full, text)
    assert await database.read(find_assets, ALICE, ["1", "2", "3", "4"], 200.0) == {"1": plain, "2": full, "3": text}
    assert await database.read(find_assets, ALICE, [], 200.0) == {}
    await put(database, replace(plain, file_path="other.png"))
    assert await database.read(find_assets, ALICE, ["1"], 200.0) == {"1": plain}, "a second time changes nothing"


async def test_what_is_anothers_is_not_there(database: Database) -> None:
    made = asset("1")
    await put(database, made)
    await database.run(put_text, ALICE, asset("2", folder=None, path=""), b"words")
    assert await ids(database, "1", "2", tenant=MALLORY) == set()
    assert await database.read(read_text, MALLORY, "2", 200.0) is None
    assert await database.read(files_of, MALLORY, DIGEST, 200.0) == []
    assert await database.read(newest_over, MALLORY, DIGEST, over(made), 200.0) is None
    assert await database.run(reuse, MALLORY, over(made), asset("3"), 200.0) is None
    assert await database.run(delete_asset, MALLORY, "1", 200.0) is None
    assert await database.run(delete_expired, MALLORY, 1e9, 10) == []
    assert await database.read(uploads_before, MALLORY, 1e9, "", 10) == []
    await database.run(delete_records, MALLORY, ["1", "2"])
    assert await ids(database, "1", "2") == {"1", "2"}
    assert await ids(database, "3", tenant=MALLORY) == set()


async def test_a_text_is_read_with_its_time(database: Database) -> None:
    await database.run(put_text, ALICE, asset("1", folder=None, path="", expires_at_s=300.0), b"w\0rds")
    await put(database, asset("2"), asset("3", folder=None, path=""))
    assert await database.read(read_text, ALICE, "1", 299.0) == b"w\0rds"
    assert await database.read(read_text, ALICE, "1", 300.0) is None
    assert await database.read(read_text, ALICE, "2", 200.0) is None, "a file"
    assert await database.read(read_text, ALICE, "3", 200.0) is None, "one without a body"


async def test_files_of_a_hash(database: Database) -> None:
    """Each once, the one with the newest record first, and none that a start of ComfyUI takes away."""
    await put(
        database,
        asset("1"),
        asset("2", path="b", created_at_s=150.0),
        asset("3", created_at_s=180.0),
        asset("4", path="c", folder=Folder.OUTPUT, created_at_s=160.0, prompt_id="job"),
        asset("5", path="d", folder=Folder.TEMP, created_at_s=190.0, prompt_id="job"),
        asset("6", path="e", created_at_s=190.0, expires_at_s=199.0),
        asset("7", path="f", hash=OTHER, created_at_s=190.0),
        asset("8", folder=None, path="", stamp="", created_at_s=190.0),
    )
    files = await database.read(files_of, ALICE, DIGEST, 200.0)
    assert files == [File("input", "api-v2/1/x.png", "1-5"), File("output", "c", "1-5"), File("input", "b", "1-5")]
    newest = await database.read(newest_over, ALICE, DIGEST, files[0], 200.0)
    assert newest is not None
    assert newest.asset_id == "3"


@pytest.mark.parametrize(
    ("asked", "is_same"),
    [
        ({}, True),
        ({"file_path": ""}, True),
        ({"expires_at_s": 300.0}, True),
        ({"file_path": "other.png"}, False),
        ({"tags": ("a",)}, False),
        ({"content_type": "image/webp"}, True),
    ],
)
async def test_a_record_that_says_the_same_is_reused(database: Database, asked: dict[str, Any], is_same: bool) -> None:
    known = asset("known")
    await put(database, known)
    made = asset("new", **{"file_path": "known.png", "path": "", "folder": None, "stamp": "", **asked})
    reused = await database.run(reuse, ALICE, over(known), made, 200.0)
    assert reused is not None
    found, is_new = reused
    assert is_new is not is_same
    assert found.asset_id == ("known" if is_same else "new")
    assert (found.folder, found.path, found.stamp, found.size_bytes) == (known.folder, known.path, "1-5", 5)
    assert await ids(database, "new") == (set() if is_same else {"new"})


@pytest.mark.parametrize(("until_s", "is_same"), [(None, False), (400.0, False), (300.0, True), (299.0, True)])
async def test_a_record_that_ends_sooner_is_not_reused(
    database: Database, until_s: float | None, is_same: bool
) -> None:
    known = asset("known", expires_at_s=300.0)
    await put(database, known)
    reused = await database.run(
        reuse, ALICE, over(known), asset("new", file_path="known.png", expires_at_s=until_s), 200.0
    )
    assert reused is not None
    assert reused[1] is not is_same


async def test_an_output_has_a_record_of_its_own(database: Database) -> None:
    made = asset("output", prompt_id="job", folder=Folder.OUTPUT)
    await put(database, made)
    reused = await database.run(reuse, ALICE, over(made), asset("new", file_path="", content_type=""), 200.0)
    assert reused is not None
    assert (reused[0].asset_id, reused[0].prompt_id, reused[1]) == ("new", "", True)
    assert (reused[0].file_path, reused[0].content_type) == ("output.png", "image/png")
    assert await database.run(delete_asset, ALICE, "output", 200.0) == (made, False)


async def test_a_file_without_a_record_is_not_reused(database: Database) -> None:
    """Somebody has deleted the last one since it was looked at."""
    known = asset("known")
    await put(database, known)
    await database.run(delete_asset, ALICE, "known", 200.0)
    assert await database.run(reuse, ALICE, over(known), asset("new"), 200.0) is None
    assert await ids(database, "new") == set()


async def test_records_over_files_are_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "MAX_RECORDS", 2)
    known = asset("1")
    await put(database, known, asset("2"), tenant=ALICE)
    await put(database, asset("9"), tenant=MALLORY)
    with pytest.raises(Violation) as caught:
        await put(database, asset("3"))
    assert caught.value.reason is Reason.STORAGE_FULL
    with pytest.raises(Violation) as caught:
        await database.run(reuse, ALICE, over(known), asset("3", tags=("x",)), 200.0)
    assert caught.value.reason is Reason.STORAGE_FULL
    assert await ids(database, "3") == set()
    reused = await database.run(reuse, ALICE, over(known), asset("3", file_path="1.png"), 200.0)
    assert reused is not None
    assert reused[0].asset_id == "1", "the same again is no more"


async def test_the_last_record_of_a_file_is_told(database: Database) -> None:
    first, second = asset("1"), asset("2")
    elsewhere = [asset("3", path="y"), asset("4", folder=Folder.OUTPUT, prompt_id="job")]
    await put(database, first, second, *elsewhere)
    await put(database, asset("5"), tenant=MALLORY)
    assert await database.run(delete_asset, ALICE, "1", 200.0) == (first, False)
    assert await database.run(delete_asset, ALICE, "1", 200.0) is None
    assert await database.run(delete_asset, ALICE, "2", 200.0) == (second, True)
    assert await ids(database, "1", "2", "3", "4") == {"3", "4"}
    assert await ids(database, "5", tenant=MALLORY) == {"5"}


async def test_texts_are_no_records_of_one_file(database: Database) -> None:
    await database.run(put_text, ALICE, asset("1", folder=None, path=""), b"a")
    await database.run(put_text, ALICE, asset("2", folder=None, path=""), b"b")
    await uses(database, "job", "1")
    with pytest.raises(Violation):
        await database.run(delete_asset, ALICE, "1", 200.0)
    deleted = await database.run(delete_asset, ALICE, "2", 200.0)
    assert deleted is not None
    assert deleted.is_last


async def uses(database: Database, job: str, *assets: str, tenant: str = ALICE) -> None:
    await database.run(add_waiting, row(job, tenant), SUBMITTED, JobExtras({}, assets))


async def test_what_a_job_uses_is_not_deleted_until_it_ends(database: Database) -> None:
    await put(database, asset("1"), asset("2"), asset("3", path="y"))
    await uses(database, "job", "1")
    for name in ("1", "2"):
        with pytest.raises(Violation) as caught:
            await database.run(delete_asset, ALICE, name, 200.0)
        assert caught.value.reason is Reason.ASSET_IN_USE
    assert await database.run(delete_asset, ALICE, "3", 200.0) is not None
    assert await database.run(cancel_waiting, ALICE, ["job"], 150.0) == ["job"]
    assert await database.run(delete_asset, ALICE, "1", 200.0) is not None
    await uses(database, "other", "2")
    await database.run(forget, ALICE, ["other"])
    assert await database.run(delete_asset, ALICE, "2", 200.0) is not None


async def test_a_neighbours_job_keeps_nothing(database: Database) -> None:
    """Were her id among a neighbour's, whoever wrote it there."""
    await put(database, asset("1"))
    with pytest.raises(AssetGone):
        await uses(database, "job", "1", tenant=MALLORY)
    await uses(database, "job", tenant=MALLORY)
    await database.run(statement, Statement("INSERT INTO job_assets VALUES (?, ?)", ("job", "1")))
    assert await database.run(delete_asset, ALICE, "1", 200.0) is not None


async def test_expired_ones_are_deleted_but_those_in_use(database: Database) -> None:
    expired = [asset(str(number), path=str(number % 3), expires_at_s=100.0 + number) for number in range(6)]
    await put(database, *expired, asset("lasting", path="0"), asset("later", path="9", expires_at_s=500.0))
    await uses(database, "job", "4")  # path 1, of 1 and 4
    assert await ids(database, *map(str, range(6))) == set()
    expiries = [await database.read(has_expired, tenant, now_s) for tenant, now_s in ((ALICE, 99.0), (ALICE, 100.0))]
    assert expiries == [False, True]
    assert not await database.read(has_expired, MALLORY, 1e9)
    first = await database.run(delete_expired, ALICE, 200.0, 2)
    assert [(each.asset.asset_id, each.is_last) for each in first] == [("0", False), ("2", False)]
    rest = await database.run(delete_expired, ALICE, 200.0, 10)
    assert [(each.asset.asset_id, each.is_last) for each in rest] == [("3", False), ("5", True)]
    assert await database.run(cancel_waiting, ALICE, ["job"], 150.0) == ["job"]
    assert len(await database.run(delete_expired, ALICE, 200.0, 10)) == 2
    assert await ids(database, "lasting", "later") == {"lasting", "later"}


async def test_many_that_are_in_use_do_not_keep_what_expired_after_them(database: Database) -> None:
    await put(database, *(asset(f"used-{number}", path="used", expires_at_s=100.0) for number in range(7)))
    await put(database, *(asset(f"{number}", path=str(number), expires_at_s=100.0 + number) for number in range(3)))
    await uses(database, "job", "used-3")
    assert [each.asset.asset_id for each in await database.run(delete_expired, ALICE, 200.0, 2)] == ["0", "1"]
    assert [each.asset.asset_id for each in await database.run(delete_expired, ALICE, 200.0, 2)] == ["2"]
    assert await database.run(delete_expired, ALICE, 200.0, 2) == []


async def test_old_records_of_uploads_come_in_pages(database: Database) -> None:
    await put(database, *(asset(f"{number}") for number in range(5)), asset("new", created_at_s=300.0))
    await put(database, asset("a", prompt_id="job"))
    first = await database.read(uploads_before, ALICE, 200.0, "", 3)
    assert [each.asset_id for each in first] == ["0", "1", "2"]
    assert [each.asset_id for each in await database.read(uploads_before, ALICE, 200.0, "2", 3)] == ["3", "4"]
    await database.run(delete_records, ALICE, ["0", "1"])
    await database.run(delete_records, ALICE, [])
    assert await ids(database, "0", "1", "2") == {"2"}


async def test_nothing_is_read_row_by_row(tmp_path: Path) -> None:
    """However many others have, what is asked for is found by an index (SQLite)."""
    database = SqliteDatabase(tmp_path / "state.sqlite")
    await database.open()
    try:
        found: list[tuple[str, str]] = []
        asked: list[Operation[Any]] = [
            find_assets(ALICE, ["1"], 1.0),
            files_of(ALICE, DIGEST, 1.0),
            newest_over(ALICE, DIGEST, File("input", "a", "1-1"), 1.0),
            _after_use(delete_expired(ALICE, 1.0, 5)),
            has_expired(ALICE, 1.0),
            uploads_before(ALICE, 1.0, "", 5),
            operations._check_count(ALICE),
            operations._places_in_use(ALICE),
        ]
        for operation in asked:
            statement = next(operation)
            if statement.sql.startswith("UPDATE store_state"):
                statement = _after_begin(operation)
            plan = await database.read(explained, statement)
            found += [(statement.sql, line) for line in plan if line.startswith("SCAN")]
        assert found == []
    finally:
        await database.close()


async def test_bytes_are_found_by_their_hash(tmp_path: Path) -> None:
    """And not among all files that a tenant ever had; of many records the newest are looked at."""
    database = SqliteDatabase(tmp_path / "state.sqlite")
    await database.open()
    try:
        plan = await database.read(explained, next(files_of(ALICE, DIGEST, 1.0)))
        assert plan == ["SEARCH assets USING INDEX assets_by_hash (tenant=? AND hash=?)"]
    finally:
        await database.close()


async def test_what_is_in_use_is_found_from_the_jobs_that_have_not_ended(tmp_path: Path) -> None:
    """SECURITY: from a file with many records, each with each job of the tenant's history, one DELETE kept the writing thread for minutes (SQLite)."""
    database = SqliteDatabase(tmp_path / "state.sqlite")
    await database.open()
    try:
        plan = await database.read(explained, next(operations._places_in_use(ALICE)))
        order = [line.partition(" (")[0] for line in plan if line.startswith("SEARCH")]
        assert order == [
            "SEARCH jobs USING INDEX jobs_by_order",
            "SEARCH job_assets USING COVERING INDEX sqlite_autoindex_job_assets_1",
            "SEARCH assets USING INDEX sqlite_autoindex_assets_1",
        ]
    finally:
        await database.close()


def _after_use(operation: Operation[Any]) -> Operation[Any]:
    """From the statement on that comes after `begin` and `_places_in_use`."""
    next(operation)
    _after_begin(operation)
    yield operation.send([])


def _after_begin(operation: Operation[Any]) -> Statement:
    """What comes when the first of the two statements of `begin` was said."""
    operation.send([])
    return operation.send([(1, 0.0, 0)])


def statement(asked: Statement) -> Operation[None]:
    yield asked


def explained(statement: Statement) -> Operation[list[str]]:
    rows = yield Statement(f"EXPLAIN QUERY PLAN {statement.sql}", statement.parameters)
    return [row[-1] for row in rows]
