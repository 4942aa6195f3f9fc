"""Copies in the gate's database, in each of the two that it may be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policy.copies import CopyState
from policy.namespace import Folder
from policy.v2.assets import Asset
from proxy.copies import copy_operations as records
from proxy.copies.copy_operations import Kept, Split
from proxy.jobs.copy_requests import ADD_COPY, Copy, disown_copies
from proxy.jobs.job_rows import StoredState
from proxy.jobs.store_operations import adopt, forget
from proxy.jobs.store_upkeep import retry
from proxy.persistence.operations import Database, Operation, Statement
from proxy.v2.asset_operations import delete_asset
from proxy.v2.job_operations import Made, keep_outputs
from tests.proxy.jobs.stored import end, ended, put, row

GATE, OTHER = "gate/1", "gate/2"
NOW_S, UNTIL_S = 300.0, 360.0
_UNFINISHED = ("dispatched", "running", "waiting")


def copy(name: str, tenant: str = "alice", **more: Any) -> Copy:
    made = Copy(
        name, tenant, "a-job", f"asset-{name}", CopyState.WAITING, "output", f"{name}.png", "1-2", "blake3:0", 2
    )
    return made._replace(**{"object_key": f"{tenant}/{name}", "ended_at_s": 100.0, "due_at_s": 100.0, **more})


def _add(rows: tuple[Copy, ...]) -> Operation[None]:
    for each in rows:
        yield Statement(ADD_COPY, each)


async def kept(database: Database, *rows: Copy) -> None:
    await database.run(_add, rows)


async def everything(database: Database) -> dict[str, Copy]:
    return {each.copy_id: each for each in await database.read(records.listing, None, [], 1000)}


async def claimed(database: Database, tenant: str = "alice", gate: str = GATE, now_s: float = NOW_S) -> Copy | None:
    return await database.run(records.claim, tenant, gate, now_s, now_s + 60)


async def test_the_end_of_a_job_asks_for_its_copies_where_it_is_to_be_copied(database: Database) -> None:
    await put(database, "plain", window=9)
    await end(database, "plain")
    assert await everything(database) == {}
    await put(database, "copied", window=9)
    done = await end(database, "copied", is_copied=True)
    [asked] = (await everything(database)).values()
    assert asked.is_whole_job
    assert (asked.tenant, asked.prompt_id, asked.ended_at_s, asked.due_at_s) == ("alice", "copied", 200.0, 100.0)
    assert done.ended_at_s == asked.ended_at_s
    await end(database, "copied", is_copied=True)
    assert len(await everything(database)) == 1


async def test_what_left_nothing_asks_for_no_copies(database: Database) -> None:
    await put(database, "canceled", window=9)
    await end(database, "canceled", StoredState.CANCELED, is_copied=True, entry=None)
    assert await everything(database) == {}


async def test_a_job_that_ended_without_the_gate_is_copied_too(database: Database) -> None:
    past = row("past", state=StoredState.SUCCEEDED, ended_at_s=200.0)
    await database.run(adopt, past, None, b"entry", b"row", is_copied=True)
    await database.run(adopt, past._replace(prompt_id="other"), None, b"entry", b"row")
    assert [each.prompt_id for each in (await everything(database)).values()] == ["past"]


async def test_each_end_of_a_job_that_is_tried_again_is_copied(database: Database) -> None:
    await put(database, "twice", window=9)
    await end(database, "twice", StoredState.FAILED, is_copied=True)
    assert await database.run(retry, "twice") is not None
    await end(database, "twice", at_s=250.0, is_copied=True)
    assert {each.ended_at_s for each in (await everything(database)).values()} == {200.0, 250.0}


async def test_a_copy_is_made_by_one_gate_at_a_time(database: Database) -> None:
    await kept(database, copy("a"), copy("b", due_at_s=90.0), copy("later", due_at_s=999.0), copy("m", "mallory"))
    assert await database.read(records.next_due) == {"alice": 90.0, "mallory": 100.0}
    first, second = await claimed(database), await claimed(database, gate=OTHER)
    assert first is not None
    assert second is not None
    assert (first.copy_id, first.gate, second.copy_id, second.gate) == ("b", GATE, "a", OTHER)
    assert await claimed(database) is None
    # Its claim is over: another gate takes it, and what the first one says of it counts no more.
    third = await claimed(database, gate=OTHER, now_s=UNTIL_S)
    assert third is not None
    assert {third.copy_id, third.gate} == {"a", OTHER} or third.copy_id == "b"
    taken = await claimed(database, gate=OTHER, now_s=UNTIL_S) or third
    assert {third.copy_id, taken.copy_id} == {"a", "b"}
    assert not await database.run(records.renew, first, UNTIL_S + 60)
    assert not await database.run(records.settle, first._replace(state=CopyState.COPIED), first)
    mine = third if third.copy_id == "b" else taken
    assert await database.run(records.renew, mine, UNTIL_S + 60)
    done = mine._replace(state=CopyState.COPIED, copied_at_s=UNTIL_S, due_at_s=None, gate="")
    assert await database.run(records.settle, done, mine)
    assert (await everything(database))["b"] == done


async def test_what_a_job_made_takes_the_place_of_the_job_once(database: Database) -> None:
    await kept(database, copy("job", asset_id=""))
    job = await claimed(database)
    assert job is not None
    files = [copy("one"), copy("two")]
    assert await database.run(records.split, job, files) is Split.FOUND
    assert await database.run(records.split, job, [*files, copy("three")]) is Split.FOREIGN
    assert set(await everything(database)) == {"one", "two"}


async def test_links_are_of_ones_own_copies_that_are_there(database: Database) -> None:
    await kept(
        database,
        copy("a", state=CopyState.COPIED),
        copy("b", state=CopyState.WIPED),
        copy("c"),
        copy("d", state=CopyState.FAILED),
        copy("e", "mallory", state=CopyState.COPIED, asset_id="asset-a"),
    )
    assert {each.copy_id for each in await database.read(records.copies_of_job, "alice", "a-job")} == {"a", "b"}
    assert [each.copy_id for each in await database.read(records.copies_of_asset, "alice", "asset-a")] == ["a"]
    assert [each.copy_id for each in await database.read(records.copies_of_asset, "mallory", "asset-a")] == ["e"]


async def test_a_wiped_file_is_found_by_its_owner_name_and_stamp(database: Database) -> None:
    await kept(
        database,
        copy("old", path="x.png", stamp="1-2", state=CopyState.WIPED, copied_at_s=1.0),
        copy("new", path="x.png", stamp="9-2", state=CopyState.WIPED, copied_at_s=2.0),
        copy("there", path="y.png", state=CopyState.COPIED),
    )

    async def found(tenant: str, path: str, stamp: str | None) -> str | None:
        copy = await database.read(records.wiped, tenant, Folder.OUTPUT.value, path, stamp)
        return None if copy is None else copy.copy_id

    assert await found("alice", "x.png", None) == "new"
    assert await found("alice", "x.png", "1-2") == "old"
    assert await found("alice", "x.png", "5-5") is None
    assert await found("alice", "y.png", None) is None
    assert await found("mallory", "x.png", None) is None


async def test_deleting_the_last_record_of_a_file_takes_its_copies_and_no_others(database: Database) -> None:
    await put(database, "a-job", window=9)
    await end(database, "a-job")
    made = Asset("asset-a", "a.png", "image/png", 2, "blake3:0", 1.0, folder=Folder.OUTPUT, path="a.png", stamp="1-2")
    await database.run(keep_outputs, "a-job", "alice", [Made(made)])
    await kept(
        database,
        copy("a", state=CopyState.COPIED, due_at_s=None),
        copy("b", path="a.png", stamp="7-7"),
        copy("m", "mallory", path="a.png"),
    )
    assert await database.run(delete_asset, "alice", "asset-a", NOW_S) is not None
    states = {name: each.state for name, each in (await everything(database)).items()}
    assert states == {"a": CopyState.UNWANTED, "b": CopyState.WAITING, "m": CopyState.WAITING}
    unwanted = await claimed(database)
    assert unwanted is not None
    await database.run(records.remove, unwanted)
    assert await database.read(records.find_copy, "a") is None


async def test_what_was_written_in_the_place_of_a_file_keeps_no_copy_of_it(database: Database) -> None:
    for name, stamp in (("first", "1-2"), ("again", "1-2"), ("later", "7-7")):
        await put(database, name, window=9)
        await end(database, name)
        asset = Asset(f"asset-{name}", "a.png", "image/png", 2, "blake3:0", 1.0, folder=Folder.OUTPUT, path="a.png")
        asset = replace(asset, prompt_id=name, stamp=stamp)
        await database.run(keep_outputs, name, "alice", [Made(asset)])
    await kept(
        database,
        copy("a", state=CopyState.WIPED, due_at_s=None),
        copy("b", state=CopyState.COPIED, path="a.png", stamp="7-7"),
    )
    await database.run(delete_asset, "alice", "asset-first", NOW_S)
    assert (await everything(database))["a"].state == CopyState.WIPED, "another record is of the same file"
    await database.run(delete_asset, "alice", "asset-again", NOW_S)
    states = {name: each.state for name, each in (await everything(database)).items()}
    assert states == {"a": CopyState.UNWANTED, "b": CopyState.COPIED}
    assert await database.read(records.wiped, "alice", "output", "a.png", None) is None


async def test_forgetting_a_job_leaves_its_copies(database: Database) -> None:
    await put(database, "a-job", window=9)
    await end(database, "a-job")
    await kept(database, copy("a", state=CopyState.COPIED))
    await database.run(forget, "alice", ["a-job"])
    assert set(await everything(database)) == {"a"}


async def test_what_is_worked_at_while_it_is_deleted_is_not_settled(database: Database) -> None:
    await kept(database, copy("a"))
    mine = await claimed(database)
    assert mine is not None
    await database.run(disown_copies, "alice", "output", "a.png", "1-2")
    assert not await database.run(records.settle, mine._replace(state=CopyState.COPIED, gate=""), mine)
    assert (await everything(database))["a"].state == CopyState.UNWANTED
    assert await claimed(database, gate=OTHER, now_s=UNTIL_S - 1) is None, "what is put there meanwhile would stay"
    assert await claimed(database, gate=OTHER, now_s=UNTIL_S) is not None


async def test_when_originals_go_follows_the_configuration(database: Database) -> None:
    await kept(
        database,
        copy("a", state=CopyState.COPIED, copied_at_s=200.0, due_at_s=None),
        copy("temp", state=CopyState.COPIED, folder="temp", copied_at_s=200.0, due_at_s=None),
        copy("busy", state=CopyState.COPIED, copied_at_s=200.0, due_at_s=5.0, gate=OTHER),
        copy("waiting"),
    )
    for keep_s, due_at_s in ((60.0, 260.0), (None, None)):
        await database.run(records.set_keep_local, keep_s)
        found = await everything(database)
        assert [found[name].due_at_s for name in ("a", "temp", "busy", "waiting")] == [due_at_s, None, 5.0, 100.0]


async def test_what_a_gate_leaves_is_due_at_once(database: Database) -> None:
    await kept(database, copy("a", gate=GATE), copy("b", gate=OTHER), copy("c", due_at_s=999.0))
    await database.run(records.release, GATE, 7.0)
    found = await everything(database)
    assert [(found[name].gate, found[name].due_at_s) for name in "abc"] == [("", 7.0), (OTHER, 100.0), ("", 999.0)]
    await database.run(records.release, None, 8.0)
    assert (await everything(database))["b"].due_at_s == 8.0


async def test_the_operator_has_copies_made_again(database: Database) -> None:
    await kept(
        database,
        copy("failed", state=CopyState.FAILED, due_at_s=None, attempts=10),
        copy("waiting", due_at_s=999.0),
        copy("done", state=CopyState.COPIED, due_at_s=None),
    )
    assert await database.read(records.failed_ids) == ["failed"]
    again = await database.run(records.resend, ["failed", "waiting", "done", "none"], NOW_S)
    assert [(each.copy_id, each.state, each.due_at_s, each.attempts) for each in again] == [
        ("failed", CopyState.WAITING, NOW_S, 0),
        ("waiting", CopyState.WAITING, NOW_S, 0),
    ]


async def test_what_is_remembered_is_bounded_for_each_tenant_and_the_only_way_to_a_file_stays(
    database: Database,
) -> None:
    await put(database, "a-job", window=9)
    gone: dict[str, Any] = {"prompt_id": "gone", "due_at_s": None}
    await kept(
        database,
        copy("copied-of-a-job", state=CopyState.COPIED, due_at_s=None),
        copy("copied-of-none", state=CopyState.COPIED, **gone),
        copy("to-be-wiped", state=CopyState.COPIED, prompt_id="gone"),
        copy("wiped", state=CopyState.WIPED, **gone),
        copy("failed", state=CopyState.FAILED, **gone),
        copy("m", "mallory", state=CopyState.FAILED, **gone),
    )
    assert await database.run(records.trim, "alice", Kept(200.0, 10)) == 0
    assert set(await everything(database)) == {"copied-of-a-job", "to-be-wiped", "wiped", "m"}
    await kept(database, *(copy(f"w{number}", ended_at_s=float(number)) for number in range(5)))
    assert await database.run(records.trim, "alice", Kept(0.0, 3)) == 2
    assert {"w2", "w3", "w4"} == {name for name in await everything(database) if name[1:].isdecimal()}


async def test_counts_and_tenants(database: Database) -> None:
    await kept(database, copy("a"), copy("b"), copy("c", state=CopyState.FAILED), copy("d", state=CopyState.COPIED))
    await kept(database, copy("m", "mallory", state=CopyState.UNWANTED))
    assert await database.read(records.tenants) == ["alice", "mallory"]
    assert await database.read(records.counts, "alice") == {"waiting": 2, "failed": 1}
    assert await database.read(records.counts, "mallory") == {"unwanted": 1}
    assert len(await database.read(records.listing, "alice", ["waiting"], 1)) == 1


@pytest.mark.parametrize("state", _UNFINISHED)
async def test_what_a_job_uses_that_has_not_ended_is_in_use(database: Database, state: str) -> None:
    assert ended(StoredState.SUCCEEDED).state not in _UNFINISHED
    await put(database, "made", window=9)
    made = Asset("asset-a", "a.png", "image/png", 2, "blake3:0", 1.0, folder=Folder.OUTPUT, path="a.png", stamp="1-2")
    await database.run(keep_outputs, "made", "alice", [Made(made)])
    assert not await database.read(records.is_in_use, copy("a"), [state])

    def use() -> Operation[None]:
        yield Statement("INSERT INTO job_assets VALUES (?, ?)", ("user", "asset-a"))
        yield Statement("UPDATE jobs SET state = ? WHERE prompt_id = ?", (state, "user"))

    await put(database, "user", window=9)
    await database.run(use)
    assert await database.read(records.is_in_use, copy("a"), [state])
    assert not await database.read(records.is_in_use, copy("b"), [state])
    assert not await database.read(records.is_in_use, copy("a", "mallory"), [state])


async def test_copies_of_files_and_of_their_forms_are_told_apart(database: Database) -> None:
    form: dict[str, Any] = {"asset_id": "asset-a", "path": "a.png", "form": "webp-80", "due_at_s": None}
    await kept(
        database,
        copy("a", state=CopyState.COPIED, due_at_s=None),
        copy("f", state=CopyState.COPIED, form_hash="blake3:1", form_bytes=1, **form),
        copy("w", state=CopyState.WAITING, **form),
        copy("m", "mallory", state=CopyState.COPIED, **form),
    )
    assert [each.copy_id for each in await database.read(records.copies_of_job, "alice", "a-job")] == ["a", "f"]
    assert [each.copy_id for each in await database.read(records.copies_of_asset, "alice", "asset-a")] == ["a"]
    [found] = await database.read(records.forms_of_job, "alice", "a-job")
    assert (found.copy_id, found.form, found.form_hash, found.stored_bytes) == ("f", "webp-80", "blake3:1", 1)
    await database.run(records.set_keep_local, 60.0)
    assert (await everything(database))["f"].due_at_s is None, "nothing of it is wiped"


async def test_what_came_of_a_form_is_kept_with_it(database: Database) -> None:
    await kept(database, copy("f", form="-0", gate=GATE))
    was = (await everything(database))["f"]
    done = was._replace(state=CopyState.COPIED, form_hash="blake3:2", form_bytes=7, gate="")
    assert await database.run(records.settle, done, was)
    assert (await everything(database))["f"] == done


@pytest.mark.parametrize(
    ("other", "is_read"),
    [
        ({"form": "webp-80"}, True),
        ({"form": "webp-80", "state": CopyState.FAILED}, True),
        ({"prompt_id": "another-job"}, True),
        ({"form": "webp-80", "state": CopyState.COPIED}, False),
        ({"form": "webp-80", "state": CopyState.UNWANTED}, False),
        ({"path": "b.png"}, False),
        ({"stamp": "3-4"}, False),
        ({"folder": "temp"}, False),
        ({"tenant": "mallory"}, False),
    ],
)
async def test_an_original_is_read_while_a_copy_of_it_is_not_made(
    database: Database, other: dict[str, Any], is_read: bool
) -> None:
    waiting = {"state": CopyState.WAITING, "path": "a.png"} | other
    await kept(database, copy("a", state=CopyState.COPIED), copy("o", **waiting))
    assert await database.read(records.is_still_read, copy("a")) is is_read
