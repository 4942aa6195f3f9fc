"""What is kept of submissions with a key: a day, bounded by number and bytes for each owner, whatever the others have."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.jobs import idempotency_db as module
from proxy.jobs.idempotency_db import KEPT_S, LOOK_EACH, MAX_KEYS, ROW_BYTES, Kept, KeptSubmissions, Place
from proxy.persistence.operations import Operation, Statement
from tests.proxy.conftest import opened

NOW_S = 1_000_000.0


def place(number: int, owner: str = "alice") -> Place:
    return Place(owner, number.to_bytes(32, "big"))


def kept(created_s: float = NOW_S, body: bytes = b"{}") -> Kept:
    return Kept(b"f" * 32, "an-id", created_s, 200, "application/json", body)


async def test_what_was_put_is_found_for_a_day_also_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path / "state.sqlite3") as state:
        await KeptSubmissions(state).put(place(1), kept(), NOW_S)
    async with opened(tmp_path / "state.sqlite3") as state:
        submissions = KeptSubmissions(state)
        assert await submissions.find(place(1), NOW_S + KEPT_S - 1) == kept()
        assert await submissions.find(place(1), NOW_S + KEPT_S) is None
        assert await submissions.find(place(1, "mallory"), NOW_S) is None
        assert await submissions.find(place(2), NOW_S) is None
        await submissions.forget(place(1, "mallory"), kept())
        await submissions.forget(place(1), kept(NOW_S + 1))
        assert await submissions.find(place(1), NOW_S) == kept()
        await submissions.forget(place(1), kept())
        assert await submissions.find(place(1), NOW_S) is None


def count() -> Operation[int]:
    [(number,)] = yield Statement("SELECT COUNT(*) FROM idempotent_submissions")
    return int(number)


def size() -> Operation[int]:
    [(total,)] = yield Statement("SELECT SUM(size) FROM idempotent_submissions")
    return int(total)


async def test_old_ones_of_everybody_are_deleted_as_new_ones_come(tmp_path: Path) -> None:
    async with opened(tmp_path / "state.sqlite3") as state:
        submissions = KeptSubmissions(state)
        for number in range(5):
            await submissions.put(place(number, "mallory"), kept(NOW_S + number), NOW_S)
        await submissions.put(place(9), kept(NOW_S + KEPT_S + 4), NOW_S + KEPT_S + 4)
        assert await state.run(count) == 1


async def test_ten_thousand_keys_push_out_their_owners_oldest_and_nobody_elses(tmp_path: Path) -> None:
    def fill() -> Operation[None]:
        for number in range(MAX_KEYS):
            row = (*place(number), *kept(NOW_S + number), ROW_BYTES)
            yield Statement(f"INSERT INTO idempotent_submissions VALUES ({'?, ' * 8}?)", row)

    async with opened(tmp_path / "state.sqlite3") as state:
        submissions = KeptSubmissions(state)
        await submissions.put(place(0, "mallory"), kept(NOW_S - 1), NOW_S)
        await state.run(fill)
        for number in range(MAX_KEYS, MAX_KEYS + 10):
            await submissions.put(place(number), kept(NOW_S + number), NOW_S)
            assert await state.run(count) <= MAX_KEYS + 1
        assert await submissions.find(place(LOOK_EACH), NOW_S) is None
        assert await submissions.find(place(LOOK_EACH + 1), NOW_S) == kept(NOW_S + LOOK_EACH + 1)
        assert await submissions.find(place(MAX_KEYS + 9), NOW_S) == kept(NOW_S + MAX_KEYS + 9)
        assert await submissions.find(place(0, "mallory"), NOW_S) == kept(NOW_S - 1)


async def test_bytes_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EACH_BYTES", ROW_BYTES + 1000)
    monkeypatch.setattr(module, "MAX_BYTES", 4 * (ROW_BYTES + 1000))
    async with opened(tmp_path / "state.sqlite3") as state:
        submissions = KeptSubmissions(state)
        for number in range(5):
            await submissions.put(place(number), kept(NOW_S + number, b"x" * 1000), NOW_S)
            assert await state.run(size) <= module.MAX_BYTES
        found = [await submissions.find(place(number), NOW_S) is not None for number in range(5)]
        assert found == [False, False, True, True, True]


async def test_a_key_that_comes_again_stands_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "state.sqlite3") as state:
        submissions = KeptSubmissions(state)
        first = Kept(b"f" * 32, "an-id", NOW_S)
        assert await submissions.put(place(1), first, NOW_S)
        assert not await submissions.put(place(1), kept(NOW_S + 1), NOW_S)
        assert not await submissions.put(place(1), kept(NOW_S + 1), NOW_S, kept(NOW_S + 2))
        assert await submissions.put(place(1), kept(NOW_S + 1), NOW_S, first)
        assert await state.run(count) == 1
        assert await submissions.find(place(1), NOW_S) == kept(NOW_S + 1)


async def test_a_key_of_before_a_day_is_as_one_that_was_never_used(tmp_path: Path) -> None:
    async with opened(tmp_path / "state.sqlite3") as state:
        submissions = KeptSubmissions(state)
        await submissions.put(place(2), kept(), NOW_S)  # behind the first one nobody looks for old ones
        assert await submissions.put(place(1), kept(), NOW_S)
        assert not await submissions.put(place(1), kept(NOW_S + KEPT_S - 1), NOW_S + KEPT_S - 1)
        assert await submissions.put(place(1), kept(NOW_S + KEPT_S), NOW_S + KEPT_S)
        assert await state.run(count) == 2
        assert await submissions.find(place(1), NOW_S + KEPT_S) == kept(NOW_S + KEPT_S)
