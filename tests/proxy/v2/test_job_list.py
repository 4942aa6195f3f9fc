"""The list of a tenant's jobs, asked of SQLite and of PostgreSQL: in which order, from where on, and which of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policy.v2.effects import After
from proxy.jobs.job_rows import CANCEL, COLUMNS, PLACES, StoredState
from proxy.jobs.store_operations import forget, give_back, start
from proxy.jobs.store_upkeep import wish
from proxy.persistence.operations import Database, Operation, Statement
from proxy.persistence.sqlite import SqliteDatabase
from proxy.v2 import job_operations
from proxy.v2.job_operations import CANCELING, list_rows, list_some
from tests.proxy.jobs.stored import end, put, row
from tests.proxy.v2.stored import (
    ENDS,
    labelled,
    listed,
    names,
)


async def test_the_newest_come_first_and_equal_times_in_one_order(database: Database) -> None:
    times = {"a": 100.0, "b": 300.0, "c": 200.0, "d": 200.0, "e": 200.0}
    for name, created_at_s in times.items():
        await put(database, name, created_at_s=created_at_s)
    await put(database, "m", "mallory", created_at_s=250.0)
    assert await listed(database) == ["b", "e", "d", "c", "a"]
    assert await listed(database, "mallory") == ["m"]
    assert await listed(database, "nobody") == []


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_pages_are_the_list_whatever_their_size(database: Database, size: int) -> None:
    for number in range(7):
        await put(database, str(number), created_at_s=100.0 + number // 3)
    whole, paged, after = await listed(database), [], None
    while rows := await database.read(list_rows, "alice", (), {}, size, after):
        assert len(rows) <= size
        paged += names(rows)
        after = After(rows[-1][0].created_at_s, rows[-1][0].prompt_id)
    assert paged == whole == ["6", "5", "4", "3", "2", "1", "0"]


async def test_a_place_in_the_list_is_one_also_where_its_job_is_gone(database: Database) -> None:
    for name in "abc":
        await put(database, name)
    await database.run(forget, "alice", ["b"])
    assert await listed(database, after=After(100.0, "b")) == ["a"]
    assert await listed(database, "mallory", after=After(100.0, "b")) == []


async def test_a_list_of_states(database: Database) -> None:
    for name in ("given", "wished", "runs", "stopping", *ENDS, "waits"):
        await put(database, name, window=0 if name == "waits" else 100)
    for name in ("runs", "stopping"):
        await database.run(start, name, 160.0)
    for name in ("wished", "stopping"):
        assert await database.run(wish, name, CANCEL)
    for state in ENDS:
        await end(database, state, state)
    found = {state: set(await listed(database, "alice", state)) for state in (*StoredState, CANCELING)}
    assert found == {
        "waiting": {"waits"},
        "dispatched": {"given"},
        "running": {"runs"},
        "succeeded": {"succeeded"},
        "failed": {"failed"},
        "canceled": {"canceled"},
        "canceling": {"wished", "stopping"},
    }
    assert set(await listed(database, "alice", "running", CANCELING, "failed")) == {
        *("runs", "wished", "stopping", "failed"),
    }
    assert len(await listed(database, "alice", *StoredState, CANCELING)) == len(await listed(database)) == 8


async def test_a_job_that_comes_back_unwanted_is_canceled_in_the_list_too(database: Database) -> None:
    """ComfyUI went away while it was to be stopped."""
    await put(database, "1", window=1)
    await database.run(wish, "1", CANCEL)
    await database.run(give_back, "1", 170.0, "comfyui-gone")
    assert await listed(database, "alice", "canceled") == ["1"]
    assert await listed(database, "alice", CANCELING, "waiting", "dispatched") == []


async def test_a_list_by_labels(database: Database) -> None:
    await labelled(database, "1", a="x", b="y")
    await labelled(database, "2", a="x")
    await labelled(database, "3", a="X", b="y")
    await labelled(database, "4", "mallory", a="x", b="y")
    await labelled(database, "5", a="'; DROP TABLE jobs; --")
    assert await listed(database, labels={"a": "x"}) == ["2", "1"]
    assert await listed(database, labels={"a": "x", "b": "y"}) == ["1"]
    assert await listed(database, labels={"a": "y"}) == []
    assert await listed(database, labels={"c": "x"}) == []
    assert await listed(database, labels={"a": "'; DROP TABLE jobs; --"}) == ["5"]
    assert await listed(database, "mallory", labels={"a": "x"}) == ["4"]
    rows = await database.read(list_rows, "alice", (), {"b": "y"}, 100, None)
    assert {found.prompt_id: labels for found, labels in rows} == {"1": {"a": "x", "b": "y"}, "3": {"a": "X", "b": "y"}}


@pytest.mark.parametrize("looked_at", [1, 2, 3, 9])
async def test_parts_of_a_search_are_the_search(
    database: Database, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_operations, "LOOKED_AT", looked_at)
    for number in range(9):
        await labelled(database, str(number), a="x" if number % 2 else "y")
    found, place = [], None
    while True:
        part = await database.read(list_some, "alice", (), {"a": "x"}, 100, place)
        found += names(part.rows)
        if (place := part.rest) is None:
            break
    assert found == await listed(database, labels={"a": "x"}) == ["7", "5", "3", "1"]


async def many(database: Database) -> None:
    """10,000 jobs of alice's, one in a hundred with a label, between as many of mallory's."""

    def put_all() -> Operation[None]:
        for number in range(20_000):
            tenant = ("alice", "mallory")[number % 2]
            job = row(f"{number:05}", tenant, created_at_s=float(number // 10), state=list(ENDS)[number % 3])
            yield Statement(f"INSERT INTO jobs ({COLUMNS}) VALUES ({PLACES})", job)
            if number % 200 < 2:
                yield Statement("INSERT INTO job_labels VALUES (?, ?, ?, ?)", (job.prompt_id, tenant, "run", "7"))

    await database.run(put_all)


def plan_of(*asked: Any) -> Operation[list[str]]:
    """How SQLite finds a page."""
    statement = next(list_rows(*asked))
    rows = yield Statement(f"EXPLAIN QUERY PLAN {statement.sql}", statement.parameters)
    return [str(found[3]) for found in rows]


async def test_a_page_of_ten_thousand_jobs_is_read_by_an_index(tmp_path: Path) -> None:
    """No more rows are looked at than are told: nothing is sorted, and `jobs` is never read from end to end."""
    database = SqliteDatabase(tmp_path / "jobs.sqlite3")
    await database.open()
    try:
        await many(database)
        after = After(500.0, "05001")
        for states, labels, place in (
            ((), {}, None),
            ((), {}, after),
            (("succeeded",), {}, after),
            ((CANCELING, "running"), {}, None),
            ((), {"run": "7"}, after),
            (("failed",), {"run": "7"}, None),
        ):
            steps = await database.read(plan_of, "alice", states, labels, 51, place)
            assert any("jobs_by_creation" in step or "job_labels" in step for step in steps), steps
            assert not [step for step in steps if step.startswith("SCAN")], steps
            assert "USE TEMP B-TREE FOR ORDER BY" not in steps, steps
        rows = await database.read(list_rows, "alice", (), {"run": "7"}, 1000, None)
        assert len(rows) == 100
        assert {found.tenant for found, _ in rows} == {"alice"}
    finally:
        await database.close()
