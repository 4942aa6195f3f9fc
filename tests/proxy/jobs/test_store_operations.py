"""What is done with jobs in the gate's database, asked of SQLite and of PostgreSQL: who is recorded how, who goes next, and how each ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest

from proxy.jobs.job_rows import Given, JobRow, StoredState
from proxy.jobs.store_giving import give
from proxy.jobs.store_operations import (
    JobIdTaken,
    add_next,
    adopt,
    cancel_waiting,
    confirm,
    finish,
    forget,
    give_back,
    start,
    stop_after,
)
from proxy.jobs.store_reading import documents, find, submissions, submitted_of
from proxy.persistence.operations import Database, Operation, Statement
from tests.proxy.jobs.stored import COMFYUI, GATE, OTHER_GATE, SUBMITTED, end, ended, put, row

MANY_BYTES = 10**6


async def given(
    database: Database, window: int = 1, gate: str = GATE, weights: Mapping[str, float] | None = None
) -> list[Given]:
    return await database.run(give, COMFYUI, window, gate, 150.0, 1000.0, weights or {})


def names(jobs: list[Given]) -> list[str]:
    return [each.job.prompt_id for each in jobs]


async def known(database: Database, name: str) -> JobRow:
    found = await database.read(find, name)
    assert found is not None
    return found


def tags() -> Operation[dict[str, float]]:
    rows = yield Statement("SELECT tenant, finish_tag FROM fair_tags")
    return dict(rows)


def count_of(table: str) -> Operation[int]:
    [(count,)] = yield Statement(f"SELECT COUNT(*) FROM {table}")
    return int(count)


async def test_a_job_goes_to_comfyui_at_once_while_there_is_room_and_nobody_waits(database: Database) -> None:
    placed = [await put(database, str(number), window=2) for number in range(4)]
    assert [job.state for job in placed] == ["dispatched", "dispatched", "waiting", "waiting"]
    assert [job.gate for job in placed] == [GATE, GATE, "", ""], "who waits is followed by nobody"
    assert [job.lease_until_s for job in placed[2:]] == [0.0, 0.0]
    assert [job.sequence for job in placed] == sorted({job.sequence for job in placed})
    assert placed[0].number < placed[1].number
    await end(database, "0")
    late = await put(database, "late", window=2)
    assert late.state == StoredState.WAITING, "others wait for the room"
    assert await known(database, "late") == late


async def test_what_is_wanted_only_next_is_not_recorded_where_it_would_wait(database: Database) -> None:
    assert await database.run(add_next, row("1"), SUBMITTED, 1, 1.0) is not None
    assert await database.run(add_next, row("2"), SUBMITTED, 1, 1.0) is None
    assert await database.read(find, "2") is None
    assert await database.read(submissions, "alice", ["2"], MANY_BYTES) == ({}, [])
    assert (await put(database, "2", window=1)).state == StoredState.WAITING


async def test_the_documents_of_a_job_are_there_with_it(database: Database) -> None:
    placed = await put(database, "1")
    assert await database.read(submitted_of, "1") == SUBMITTED
    assert placed.size == sum(map(len, SUBMITTED))
    with pytest.raises(LookupError):
        await database.read(submitted_of, "2")


@pytest.mark.parametrize("tenant", ["alice", "mallory"])
async def test_an_id_belongs_to_one_job(database: Database, tenant: str) -> None:
    first = await put(database, "1")
    with pytest.raises(JobIdTaken):
        await put(database, "1", tenant, client_id="other")
    assert await known(database, "1") == first
    assert await database.read(count_of, "jobs") == 1


async def test_an_id_of_a_job_that_is_gone_is_its_tenants_alone(database: Database) -> None:
    await put(database, "1")
    await database.run(forget, "alice", ["1"])
    with pytest.raises(JobIdTaken):
        await put(database, "1", "mallory")
    assert (await put(database, "1")).tenant == "alice"


async def test_an_id_of_a_job_that_was_canceled_while_it_waited_is_its_tenants_again(database: Database) -> None:
    await put(database, "1")
    assert await database.run(cancel_waiting, "alice", ["1"], 150.0) == ["1"]
    with pytest.raises(JobIdTaken):
        await put(database, "1", "mallory")
    assert (await put(database, "1")).state == StoredState.WAITING
    assert await database.read(submitted_of, "1") == SUBMITTED


@pytest.mark.parametrize("state", [StoredState.SUCCEEDED, StoredState.FAILED])
async def test_an_id_of_a_job_that_ended_is_taken(database: Database, state: StoredState) -> None:
    await put(database, "1", window=1)
    await end(database, "1", state)
    with pytest.raises(JobIdTaken):
        await put(database, "1")


async def test_the_window_is_never_exceeded_however_many_ask_at_once(database: Database) -> None:
    for number in range(12):
        await put(database, str(number))
    gates = [given(database, 3, gate) for gate in (GATE, OTHER_GATE) for _ in range(4)]
    found = [name for jobs in await asyncio.gather(*gates) for name in names(jobs)]
    assert found == ["0", "1", "2"]
    assert await given(database, 3) == []
    await end(database, "1")
    assert names(await given(database, 3)) == ["3"]
    assert await given(database, 2) == [], "a window that was made smaller"


async def test_another_comfyui_has_a_window_of_its_own(database: Database) -> None:
    for number in range(3):
        await put(database, str(number))
    assert names(await given(database, 1)) == ["0"]
    others = await database.run(give, "second", 1, GATE, 150.0, 1000.0, {})
    assert [(each.job.prompt_id, each.job.comfyui) for each in others] == [("1", "second")]


async def test_a_job_that_is_given_says_to_whom_and_comes_with_its_documents(database: Database) -> None:
    assert (await put(database, "1")).told_attempts() == [], "it was at no ComfyUI yet"
    [(job, submitted, *_)] = await given(database, gate=OTHER_GATE)
    assert submitted == SUBMITTED
    assert (job.state, job.gate, job.comfyui, job.lease_until_s) == ("dispatched", OTHER_GATE, COMFYUI, 1000.0)
    assert job.told_attempts() == [{"at": 150.0, "comfyui": COMFYUI}]
    assert await known(database, "1") == job


async def test_each_that_is_given_has_a_number_of_its_own_in_the_order_of_giving(database: Database) -> None:
    for number in range(6):
        await put(database, str(number))
    jobs = [each.job for window in (4, 6) for each in await given(database, window)]
    numbers = [job.number for job in jobs]
    assert [job.prompt_id for job in jobs] == [str(number) for number in range(6)]
    assert numbers == sorted(set(numbers))
    await end(database, "0")
    await put(database, "7")
    [(last, *_)] = await given(database, 6)
    assert last.number > max(numbers)


async def test_ones_own_order_is_by_priority_and_then_by_submission(database: Database) -> None:
    for name, rank in (("a", 0.0), ("b", 0.0), ("urgent", -1.0), ("late", 5.0), ("c", 0.0)):
        await put(database, name, rank=rank)
    assert names(await given(database, 5)) == ["urgent", "a", "b", "c", "late"]


async def test_a_neighbour_is_delayed_by_one_job_however_many_there_are(database: Database) -> None:
    for number in range(50):
        await put(database, f"m{number}", "mallory", rank=-9.0)
    assert names(await given(database, 3)) == ["m0", "m1", "m2"]
    await put(database, "own")
    await end(database, "m0")
    assert names(await given(database, 3)) == ["own"]


async def test_tenants_share_by_weight(database: Database) -> None:
    for number in range(40):
        for tenant in ("alice", "mallory"):
            await put(database, f"{tenant}{number}", tenant)
    weights = {"alice": 3.0, "mallory": 1.0}
    shares = Counter(each.job.tenant for each in await given(database, 40, weights=weights))
    assert abs(shares["alice"] - 30) <= 1, shares


async def test_tenants_share_by_what_their_jobs_cost(database: Database) -> None:
    for number in range(40):
        await put(database, f"a{number}", cost_s=5.0)
        await put(database, f"m{number}", "mallory", cost_s=20.0)
    shares = Counter(each.job.tenant for each in await given(database, 25))
    assert abs(shares["alice"] - 20) <= 1, shares


async def test_who_was_idle_has_saved_nothing_up(database: Database) -> None:
    for number in range(20):
        await put(database, f"m{number}", "mallory")
    await given(database, 10)
    for number in range(20):
        await put(database, f"a{number}")
    shares = Counter(each.job.tenant for each in await given(database, 20))
    assert abs(shares["alice"] - 5) <= 1, shares


async def test_a_job_that_cost_more_than_was_thought_is_paid_by_its_tenant(database: Database) -> None:
    for tenant in ("alice", "mallory"):
        for number in range(5):
            await put(database, f"{tenant}{number}", tenant)
    await given(database, 2)
    before = await database.read(tags)
    await end(database, "alice0", correction=25.0)
    await end(database, "mallory0")
    after = await database.read(tags)
    assert after == {"alice": before["alice"] + 25.0, "mallory": before["mallory"]}
    assert names(await given(database, 3)) == ["mallory1", "mallory2", "mallory3"]


async def test_a_job_that_comes_back_waits_where_it_stood_and_costs_nothing(database: Database) -> None:
    await put(database, "0")
    await put(database, "1")
    assert await database.read(tags) == {}
    [(first, *_)] = await given(database)
    await database.run(start, "0", 160.0)
    back = await database.run(give_back, "0", 170.0, "comfyui-gone")
    assert back is not None
    assert (back.state, back.gate, back.lease_until_s, back.started_at_s, back.span) == ("waiting", "", 0.0, None, 0.0)
    assert back.told_attempts()[-1] == {"at": 150.0, "comfyui": COMFYUI, "ended": 170.0, "reason": "comfyui-gone"}
    assert await database.read(tags) == {"alice": 0.0}
    [(again, submitted, *_)] = await given(database)
    assert (again.prompt_id, submitted, again.number > first.number) == ("0", SUBMITTED, True)
    assert len(again.told_attempts()) == 2


@pytest.mark.parametrize(
    ("reason", "is_alone"), [("comfyui-gone", True), ("comfyui-gone-perhaps", True), ("comfyui-restarted", False)]
)
async def test_a_job_that_comfyui_may_have_run_when_it_went_away_goes_alone(
    database: Database, reason: str, is_alone: bool
) -> None:
    for number in range(2):
        await put(database, str(number))
    assert names(await given(database, 1)) == ["0"]
    await database.run(give_back, "0", 170.0, reason)
    assert names(await given(database, 2)) == (["0"] if is_alone else ["0", "1"])
    assert names(await given(database, 2)) == []


@pytest.mark.parametrize("state", [StoredState.WAITING, StoredState.SUCCEEDED])
async def test_only_what_comfyui_has_comes_back(database: Database, state: StoredState) -> None:
    job = await put(database, "1", window=0 if state is StoredState.WAITING else 1)
    if state is not StoredState.WAITING:
        job = await end(database, "1")
    tag = await database.read(tags)
    assert await database.run(give_back, "1", 170.0, "late") == job
    assert (await known(database, "1"), await database.read(tags)) == (job, tag)
    assert await database.run(give_back, "absent", 170.0, "late") is None


async def test_a_job_starts_once(database: Database) -> None:
    await put(database, "1")
    assert await database.run(start, "1", 160.0) is None, "ComfyUI has not got it"
    await given(database)
    running = await database.run(start, "1", 160.0)
    assert running is not None
    assert (running.state, running.started_at_s) == ("running", 160.0)
    assert await database.run(start, "1", 161.0) is None
    assert await known(database, "1") == running


@pytest.mark.parametrize("state", [StoredState.SUCCEEDED, StoredState.FAILED, StoredState.CANCELED])
async def test_a_job_ends_once_with_all_that_is_known_of_it(database: Database, state: StoredState) -> None:
    await put(database, "1", window=1)
    await database.run(stop_after, "1", 60)
    done = await end(database, "1", state, error="node", failing_class="KSampler")
    assert (done.state, done.started_at_s, done.ended_at_s, done.gpu_s) == (state, 190.0, 200.0, 10.0)
    assert (done.error, done.failing_class, done.stopped_after_s, done.wish) == ("node", "KSampler", 60, "")
    assert done.told_attempts() == [{"at": 100.0, "comfyui": COMFYUI, "ended": 200.0, "reason": "node"}]
    for kind, body in (("entry", b"9:entry"), ("row", b"7:row")):
        assert await database.read(documents, "alice", kind, ["1"], MANY_BYTES) == ({"1": body}, [])
    is_kept = bool((await database.read(submissions, "alice", ["1"], MANY_BYTES))[0])
    assert is_kept is (state is StoredState.FAILED), "to be tried again"
    assert done.size == len(b"9:entry7:row") + is_kept * sum(map(len, SUBMITTED))
    tag = await database.read(tags)
    assert await database.run(finish, "1", ended(StoredState.FAILED, 999.0, correction=5.0, entry=b"x")) == done
    assert (await known(database, "1"), await database.read(tags)) == (done, tag)
    assert await database.read(documents, "alice", "entry", ["1"], MANY_BYTES) == ({"1": b"9:entry"}, [])
    assert await database.run(finish, "absent", ended()) is None


async def test_only_the_tenants_own_that_wait_are_canceled(database: Database) -> None:
    await put(database, "given", window=1)
    await put(database, "waits")
    await put(database, "theirs", "mallory")
    asked = ["theirs", "given", "waits", "absent"]
    assert await database.run(cancel_waiting, "alice", asked, 150.0) == ["waits"]
    assert [(await known(database, name)).state for name in ("theirs", "given", "waits")] == [
        "waiting",
        "dispatched",
        "canceled",
    ]
    assert await database.read(submissions, "alice", ["waits"], MANY_BYTES) == ({}, [])
    assert await database.run(cancel_waiting, "alice", asked, 150.0) == []
    assert names(await given(database, 3)) == ["theirs"], "what was canceled is not given"


async def test_only_the_tenants_own_is_forgotten_with_all_that_was_kept(database: Database) -> None:
    await put(database, "1", window=1)
    await end(database, "1", StoredState.FAILED)
    await put(database, "theirs", "mallory")
    await database.run(forget, "alice", ["theirs", "1", "absent"])
    assert await database.read(find, "1") is None
    assert (await known(database, "theirs")).state == StoredState.WAITING
    assert await database.read(count_of, "job_documents") == len(SUBMITTED)
    assert await database.read(count_of, "forgotten_jobs") == 1


async def test_a_job_that_is_forgotten_before_it_ran_costs_nothing(database: Database) -> None:
    await put(database, "0", window=1)
    before = await database.read(tags)
    await put(database, "1")
    await given(database, 2)
    assert (await database.read(tags))["alice"] > before["alice"]
    await database.run(forget, "alice", ["1"])
    assert await database.read(tags) == before


async def test_what_comfyui_has_is_taken_up_once(database: Database) -> None:
    found = row("1", state=StoredState.DISPATCHED, number=7.0)
    placed = await database.run(adopt, found, SUBMITTED)
    assert placed is not None
    assert (placed.state, placed.number, placed.span) == ("dispatched", 7.0, 0.0)
    assert await database.run(adopt, found._replace(tenant="mallory"), SUBMITTED) is None
    await database.run(forget, "alice", ["1"])
    assert await database.run(adopt, found, SUBMITTED) is None, "it was deleted"
    assert await database.read(count_of, "job_documents") == 0


async def test_what_is_taken_up_may_have_ended(database: Database) -> None:
    found = row("1", state=StoredState.SUCCEEDED, ended_at_s=200.0, size=10)
    placed = await database.run(adopt, found, None, b"9:entry", b"7:row")
    assert placed is not None
    assert (placed.has_ended, placed.size) == (True, 10)
    assert await database.read(documents, "alice", "row", ["1"], MANY_BYTES) == ({"1": b"7:row"}, [])


async def test_a_doubted_job_that_turns_out_to_be_there_is_a_job_like_others(database: Database) -> None:
    await put(database, "1", window=1, wish="unsure")
    confirmed = await database.run(confirm, "1")
    assert confirmed is not None
    assert confirmed == (await known(database, "1"))
    assert confirmed.wish == ""
    assert await database.run(confirm, "absent") is None


async def test_documents_are_read_up_to_a_bound_and_at_least_one(database: Database) -> None:
    for name in ("a", "b", "c"):
        await put(database, name, window=3)
        await end(database, name, entry=name.encode() * 100)
    asked = ["c", "absent", "a", "b"]
    whole, unread = await database.read(documents, "alice", "entry", asked, 300)
    assert (set(whole), unread) == ({"a", "b", "c"}, [])
    found, unread = await database.read(documents, "alice", "entry", asked, 200)
    assert (found, unread) == ({"c": b"c" * 100, "a": b"a" * 100}, ["b"])
    assert await database.read(documents, "alice", "entry", asked, 1) == (
        {"c": b"c" * 100},
        ["absent", "a", "b"],
    )
    assert await database.read(documents, "alice", "entry", [], 1) == ({}, [])


async def test_submissions_are_read_up_to_a_bound_and_at_least_one(database: Database) -> None:
    for name in ("a", "b", "c"):
        await put(database, name)
    found, unread = await database.read(submissions, "alice", ["a", "absent", "b", "c"], 1)
    assert (found, unread) == ({"a": SUBMITTED}, ["absent", "b", "c"])
    found, unread = await database.read(submissions, "alice", ["a", "absent", "b", "c"], MANY_BYTES)
    assert (set(found), unread) == ({"a", "b", "c"}, [])


async def test_documents_of_a_neighbours_jobs_are_not_read(database: Database) -> None:
    await put(database, "1", window=1)
    assert await database.read(submissions, "mallory", ["1"], MANY_BYTES) == ({}, [])
    await end(database, "1")
    for kind in ("entry", "row"):
        assert await database.read(documents, "mallory", kind, ["1"], MANY_BYTES) == ({}, [])
