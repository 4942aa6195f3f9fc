"""Who is given to which of several ComfyUIs, asked of SQLite and of PostgreSQL."""

from __future__ import annotations

from collections import Counter

from policy.call import JobExtras
from policy.needs import Needs
from policy.placement import ReadyIn, Seat, ready_anywhere
from proxy.jobs.job import COMFYUI_GONE
from proxy.jobs.job_rows import Given, StoredState
from proxy.jobs.store_giving import give
from proxy.jobs.store_operations import give_back, start
from proxy.jobs.store_placing import KnownNeeds, as_they_are, forget_models, give_to_several
from proxy.jobs.store_state import held_models
from proxy.jobs.store_upkeep import drain, drain_one
from proxy.persistence.operations import Database
from tests.proxy.jobs.stored import GATE, OTHER_GATE, SUBMITTED, end, put

A, B = Needs(models=("a.safetensors",)), Needs(models=("b.safetensors", "c.safetensors"))


async def given(
    database: Database, windows: dict[str, int], gate: str = GATE, fits: ReadyIn = ready_anywhere, now_s: float = 150.0
) -> list[Given]:
    seats = [Seat(name, window) for name, window in windows.items()]
    return await database.run(give_to_several, seats, fits, gate, now_s, 1000.0, {})


def where(jobs: list[Given]) -> dict[str, str]:
    return {each.job.prompt_id: each.job.comfyui for each in jobs}


async def needing(database: Database, name: str, needs: Needs) -> None:
    await put(database, name, extras=JobExtras(needs=needs.to_bytes()))


async def test_each_job_is_given_once_with_what_it_needs(database: Database) -> None:
    for number in range(5):
        await needing(database, str(number), A)
    first = await given(database, {"one": 2, "two": 2})
    assert len(first) == 4
    assert Counter(where(first).values()) == {"one": 2, "two": 2} or set(where(first).values()) == {"one"}
    assert {each.needs for each in first} == {A}
    assert {each.submitted for each in first} == {SUBMITTED}
    assert len({each.job.number for each in first}) == 4
    assert await given(database, {"one": 2, "two": 2}, OTHER_GATE) == [], "whichever gate asks"
    [job] = [each.job for each in first if each.job.prompt_id == "0"]
    assert (job.state, job.gate, job.lease_until_s) == (StoredState.DISPATCHED, GATE, 1000.0)
    assert job.told_attempts() == [{"at": 150.0, "comfyui": job.comfyui}]
    assert job.version == max(each.job.version for each in first)


async def test_models_stay_where_they_were_given_last(database: Database) -> None:
    await needing(database, "a", A)
    await needing(database, "b", B)
    assert where(await given(database, {"one": 1, "two": 1})) == {"a": "one", "b": "two"}
    for name in "ab":
        await end(database, name)
    for name, needs in (("b2", B), ("a2", A)):
        await needing(database, name, needs)
    assert where(await given(database, {"one": 1, "two": 1})) == {"b2": "two", "a2": "one"}


async def test_that_it_went_where_its_models_were_is_noted(database: Database) -> None:
    for name in ("1", "2"):
        await needing(database, name, A)
        [job] = [each.job for each in await given(database, {"one": 1})]
        assert job.told_attempts()[-1].get("had_models", False) is (name == "2")
        await end(database, name)


async def test_one_that_was_restarted_has_no_models_but_those_of_what_it_was_given_since(database: Database) -> None:
    await needing(database, "a", A)
    assert where(await given(database, {"one": 1})) == {"a": "one"}
    await database.run(forget_models, "one")
    assert await database.read(held_models) == {"one": A.models}
    await end(database, "a")
    await database.run(forget_models, "two")
    assert await database.read(held_models) == {"one": A.models}
    await database.run(forget_models, "one")
    assert await database.read(held_models) == {}


async def test_what_a_comfyui_has_counts_for_who_asks_next(database: Database) -> None:
    await put(database, "long", cost_s=100.0)
    assert where(await given(database, {"one": 2})) == {"long": "one"}
    await database.run(start, "long", 150.0)
    for name in ("x", "y"):
        await put(database, name)
    seats = {"one": 2, "two": 1}
    assert where(await given(database, seats)) == {"x": "two"}, "the other waits for it, 20 s instead of 110"
    await end(database, "x")
    assert where(await given(database, seats, now_s=149.0 + 100.0)) == {"y": "two"}
    await put(database, "z")
    assert where(await given(database, seats, now_s=149.0 + 100.0)) == {"z": "one"}, "it has nearly ended"


async def test_a_faster_one_has_less_to_do_still(database: Database) -> None:
    await put(database, "x", cost_s=10.0)
    await given(database, {"one": 1})
    await database.run(start, "x", 150.0)
    for now_s, left_s in ((150.0, 5.0), (153.0, 2.0), (158.0, 3.0)):
        [seat] = await database.run(as_they_are, [Seat("one", 1, weight=2.0)], now_s)
        assert (seat.wait_s, seat.room) == (left_s, 0)


async def test_nobody_waits_for_one_that_never_ends_while_another_one_is_free(database: Database) -> None:
    """Its files are at the first, and bringing them takes time."""
    await put(database, "endless", cost_s=2.0)
    assert where(await given(database, {"one": 1})) == {"endless": "one"}
    await database.run(start, "endless", 150.0)
    await put(database, "x", cost_s=2.0)

    def ready_in(comfyui: str, job: object) -> float:
        return 0.0 if comfyui == "one" else 3.0

    seats = {"one": 1, "two": 1}
    assert where(await given(database, seats, fits=ready_in, now_s=153.0)) == {}
    assert where(await given(database, seats, fits=ready_in, now_s=156.0)) == {"x": "two"}


async def test_a_job_during_which_a_comfyui_went_away_goes_alone(database: Database) -> None:
    await put(database, "lost", window=1)
    await database.run(give_back, "lost", 160.0, COMFYUI_GONE)
    await put(database, "next")
    assert where(await given(database, {"one": 2})) == {"lost": "one"}
    assert await given(database, {"one": 2}) == [], "nothing comes beside it"


async def test_tenants_have_their_turn(database: Database) -> None:
    for number in range(3):
        await put(database, f"a{number}")
    await put(database, "b", "bob")
    assert set(where(await given(database, {"one": 2}))) == {"a0", "b"}


async def test_who_does_not_fit_lets_others_pass(database: Database) -> None:
    for name in ("a", "b"):
        await put(database, name)
    found = await given(database, {"one": 1}, fits=lambda comfyui, job: None if job.prompt_id == "a" else 0.0)
    assert where(found) == {"b": "one"}


async def test_nothing_is_given_while_the_gate_is_drained_and_where_nobody_waits(database: Database) -> None:
    assert await given(database, {"one": 1}) == []
    await put(database, "a")
    await database.run(drain, is_on=True)
    assert await given(database, {"one": 1}) == []


async def test_a_drained_comfyui_is_given_nothing_and_others_take_its_jobs(database: Database) -> None:
    await needing(database, "before", A)
    await needing(database, "b", B)
    assert where(await given(database, {"one": 1, "two": 1})) == {"before": "one", "b": "two"}
    await database.run(drain_one, "one", is_on=True)
    await database.run(drain_one, "one", is_on=True)
    for name in ("before", "b"):
        await end(database, name)
    await needing(database, "a", A)
    await needing(database, "last", A)
    seats = {"one": 2, "two": 1}
    assert where(await given(database, seats, OTHER_GATE)) == {"a": "two"}, "although one has its models"
    await end(database, "a")
    only_one: ReadyIn = lambda comfyui, job: 0.0 if comfyui == "one" else None  # noqa: E731
    assert await given(database, seats, fits=only_one) == [], "it waits"
    assert await given(database, {"one": 2}) == []
    await database.run(drain_one, "one", is_on=False)
    assert where(await given(database, seats, fits=only_one)) == {"last": "one"}


async def test_what_one_comfyui_was_given_alone_is_where_it_was(database: Database) -> None:
    """As after the second ComfyUI came into the configuration."""
    await put(database, "a")
    [each] = await database.run(give, "default", 1, GATE, 150.0, 1000.0, {})
    assert each.needs is None
    await put(database, "b")
    assert where(await given(database, {"default": 1, "two": 1})) == {"b": "two"}


async def test_a_change_of_models_is_told_once(database: Database) -> None:
    async def changes(*jobs: tuple[str, Needs]) -> list[bool]:
        for name, needs in jobs:
            await needing(database, name, needs)
        found = await given(database, {"one": len(jobs)})
        for each in found:
            await end(database, each.job.prompt_id)
        return [each.changes_models for each in found]

    assert await changes(("a", A)) == [False], "it has none yet"
    assert await changes(("a2", A), ("without", Needs()), ("b", B), ("b2", B)) == [False, False, True, False]
    assert await changes(("without2", Needs()), ("a3", A)) == [False, True]


async def test_what_jobs_need_is_read_once(database: Database) -> None:
    known: KnownNeeds = {}

    async def look(room: int) -> list[Given]:
        seats = [Seat("one", room), Seat("two", 1)]
        return await database.run(
            give_to_several, seats, lambda name, job: 0.0 if name == "one" else None, GATE, 150.0, 1000.0, {}, (), known
        )

    rows = {name: await put(database, name, extras=JobExtras(needs=A.to_bytes())) for name in "abc"}
    await put(database, "unknown")
    assert [each.job.prompt_id for each in await look(1)] == ["a"], "the others are looked at, and wait for room"
    keys = [(name, row.sequence) for name, row in rows.items()]
    assert [known[key] for key in keys] == [A, A, A]
    assert list(known.values()) == [A, A, A, None]
    known[keys[1]] = B
    assert [(each.job.prompt_id, each.needs) for each in await look(2)] == [("b", B)], "what was read before"
    assert keys[0] not in known, "of who waits no more nothing is kept"
