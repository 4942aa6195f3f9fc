"""policy/placement.py"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from policy.needs import Needs
from policy.placement import (
    BYTES_PER_S,
    LOAD_S,
    LOOKED_AT,
    MAX_BRING_S,
    ReadyIn,
    Seat,
    Waiting,
    bring_s,
    left_s,
    place,
    prefer,
    ready_anywhere,
)
from policy.principal import TenantId

ALICE, BOB = TenantId("alice"), TenantId("bob")
A, B = Needs(models=("a.safetensors",)), Needs(models=("b.safetensors",))


def job(
    number: int, tenant: TenantId = ALICE, needs: Needs | None = None, cost_s: float = 1.0, *, alone: bool = False
) -> Waiting:
    return Waiting(f"{tenant}-{number}", tenant, number, cost_s, needs, alone)


def only(fits: Callable[[str, Waiting], bool]) -> ReadyIn:
    return lambda comfyui, each: 0.0 if fits(comfyui, each) else None


def placed(jobs: list[Waiting], seats: list[Seat], weights: dict[str, float] | None = None) -> list[tuple[str, str]]:
    waiting: dict[TenantId, list[Waiting]] = {}
    for each in jobs:
        waiting.setdefault(each.tenant, []).append(each)
    found = place(waiting, seats, ready_anywhere, {}, 0.0, weights or {})
    return [(each.prompt_id, each.comfyui) for each in found]


def test_who_is_free_sooner_gets_the_next() -> None:
    seats = [Seat("one", 2, wait_s=5.0), Seat("two", 2)]
    assert placed([job(1), job(2), job(3)], seats) == [("alice-1", "two"), ("alice-2", "two")]
    assert seats[1].wait_s == 3.0, "the third waits for it"


def test_a_faster_one_gets_more() -> None:
    seats = [Seat("one", 40), Seat("two", 40, weight=3.0)]
    counts = Counter(comfyui for _, comfyui in placed([job(number) for number in range(40)], seats))
    assert counts == {"one": 10, "two": 30}


def test_of_two_that_are_equal_the_one_that_has_room() -> None:
    full = Seat("one", 0, is_empty=False)
    assert placed([job(1)], [full, Seat("two", 1)]) == [("alice-1", "two")]
    assert placed([job(1)], [Seat("one", 1), Seat("two", 1)]) == [("alice-1", "one")]


def test_one_that_runs_for_longer_than_was_expected_is_not_about_to_end() -> None:
    assert [left_s(10.0, ran_s) for ran_s in (0.0, 4.0, 10.0, 15.0, 3600.0)] == [10.0, 6.0, 0.0, 5.0, 3590.0]
    seats = [Seat("one", 0, left_s(10.0, 3600.0), models=A.models, is_empty=False), Seat("two", 1)]
    assert placed([job(1, needs=A)], seats) == [("alice-1", "two")], "loading its models is sooner"


def test_jobs_go_where_their_models_are() -> None:
    seats = [Seat("one", 3, models=A.models), Seat("two", 3, models=B.models)]
    found = placed([job(number, needs=(B, A)[number % 2]) for number in range(6)], seats)
    assert found == [(f"alice-{number}", ("two", "one")[number % 2]) for number in range(6)]


def test_a_job_waits_for_the_one_that_has_its_models_as_long_as_that_is_sooner() -> None:
    def seats(wait_s: float) -> list[Seat]:
        return [Seat("one", 1, models=A.models), Seat("two", 0, wait_s, models=B.models, is_empty=False)]

    assert placed([job(1, needs=B)], seats(LOAD_S - 1)) == []
    assert placed([job(1, needs=B)], seats(LOAD_S + 1)) == [("alice-1", "one")]


def test_when_many_wait_for_one_another_one_loads_the_models_too() -> None:
    seats = [Seat("one", 2, models=A.models), Seat("two", 0, 5.0, models=B.models, is_empty=False)]
    found = placed([job(number, needs=B, cost_s=6.0) for number in range(5)], seats)
    assert found == [("alice-3", "one")], "it is the fourth that would wait for 29 s, where loading takes 26"


def test_not_all_that_wait_are_looked_at() -> None:
    seats = [Seat("one", LOOKED_AT + 1)]
    assert len(placed([job(number) for number in range(LOOKED_AT + 1)], seats)) == LOOKED_AT


def test_jobs_without_models_leave_them_where_they_are() -> None:
    seats = [Seat("one", 2, models=A.models)]
    placed([job(1, needs=Needs())], seats)
    assert seats[0].models == A.models


def test_who_is_left_to_another_one_lets_those_behind_pass() -> None:
    seats = [Seat("one", 1, models=A.models), Seat("two", 0, 3.0, models=B.models, is_empty=False)]
    assert placed([job(1, needs=B), job(2, needs=A)], seats) == [("alice-2", "one")]


def test_tenants_come_in_turn_by_weight() -> None:
    jobs = [job(number) for number in range(9)] + [job(number, BOB) for number in range(9, 18)]
    found = placed(jobs, [Seat("one", 3), Seat("two", 3)], {ALICE: 2.0, BOB: 1.0})
    assert Counter(prompt_id.partition("-")[0] for prompt_id, _ in found) == {"alice": 4, "bob": 2}


def test_a_job_that_goes_alone_waits_for_an_empty_one_and_keeps_others_away() -> None:
    assert placed([job(1, alone=True)], [Seat("one", 1, is_empty=False)]) == []
    seats = [Seat("one", 2), Seat("two", 0, 100.0)]
    assert placed([job(1, alone=True), job(2)], seats) == [("alice-1", "one")]


def test_while_a_job_waits_for_an_empty_one_nothing_more_comes_there() -> None:
    seats = [Seat("one", 1, is_empty=False), Seat("two", 1, 100.0)]
    assert placed([job(1, alone=True), job(2)], seats) == [], "the second is left to the one that is free sooner, too"
    assert placed([job(1, alone=True), job(2)], [Seat("one", 1, is_empty=False), Seat("two", 1, 0.5)]) == [
        ("alice-2", "two")
    ]


def test_very_many_tenants_that_wait_for_another_one_keep_nobody_waiting() -> None:
    waiting = {
        TenantId(f"other-{number}"): [job(number * 2 + each, TenantId(f"other-{number}"), A) for each in (0, 1)]
        for number in range(LOOKED_AT)
    }
    waiting[BOB] = [job(10_000, BOB, B)]
    seats = [Seat("one", 1), Seat("two", 0)]
    found = place(
        waiting, seats, only(lambda comfyui, each: (comfyui == "one") == (each.needs == B)), {BOB: 99.0}, 0.0, {}
    )
    assert [each.prompt_id for each in found] == ["bob-10000"]


def test_nothing_is_placed_where_nothing_fits() -> None:
    waiting = {ALICE: [job(1), job(2)], BOB: [job(3, BOB)]}
    found = place(waiting, [Seat("one", 4)], only(lambda comfyui, each: each.tenant == BOB), {}, 0.0, {})
    assert [each.prompt_id for each in found] == ["bob-3"]
    assert prefer([Seat("one", 4)], job(1), only(lambda comfyui, each: False)) is None


def test_what_is_given_moves_the_virtual_time() -> None:
    waiting = {ALICE: [job(1)], BOB: [job(2, BOB)]}
    found = place(waiting, [Seat("one", 4)], ready_anywhere, {ALICE: 7.0, BOB: 3.0}, 5.0, {})
    assert [(each.prompt_id, each.start_tag) for each in found] == [("bob-2", 5.0), ("alice-1", 7.0)]


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([], 0, 0.0),
        ([0], 1, 0.05),
        ([0, int(BYTES_PER_S)], 2, 1.1),
        ([int(BYTES_PER_S)] * 2, 8, 8.4),
        ([10**12], 1, MAX_BRING_S),
        ([0], 10**6, MAX_BRING_S),
    ],
)
def test_files_take_their_time_to_be_brought(sizes: Sequence[int], count: int, expected: float) -> None:
    assert bring_s(sizes, count) == pytest.approx(expected)


def test_of_those_that_are_equal_the_one_that_has_its_files_gets_a_job() -> None:
    def ready_in(comfyui: str, each: Waiting) -> float | None:
        return {"one": None, "two": 0.05, "three": 0.0}[comfyui]

    seats = [Seat("one", 2), Seat("two", 2), Seat("three", 1)]
    found = prefer(seats, job(1), ready_in)
    assert found is not None
    assert found.comfyui == "three"
    assert found.wait_s == 0.0, "nothing runs meanwhile that others would wait for"
    seats[1].models = A.models
    found = prefer(seats, job(1, needs=A), ready_in)
    assert found is not None
    assert found.comfyui == "two", "models take longer"
    seats[2].wait_s = 0.04
    placed = place({ALICE: [job(1)]}, seats, ready_in, {}, 0.0, {})
    assert [each.comfyui for each in placed] == ["three"]


def far_to(*comfyuis: str) -> ReadyIn:
    return lambda comfyui, each: 1.0 if comfyui in comfyuis and each.needs is A else 0.0


def test_what_is_brought_for_one_tenant_leaves_room_for_another() -> None:
    waiting = {ALICE: [job(number, ALICE, A if number < 3 else None) for number in range(1, 5)], BOB: [job(9, BOB)]}
    seat = Seat("one", 3)
    found = place(waiting, [seat], far_to("one"), {}, 0.0, {})
    assert [each.prompt_id for each in found] == ["alice-1", "bob-9"], "nor is what would stand behind it given"
    assert (seat.room, seat.far_room, seat.behind) == (1, 0, frozenset({ALICE}))
    later = Seat("one", 3, far_room=1, behind=frozenset({ALICE}))
    assert [each.prompt_id for each in place(waiting, [later], far_to("one"), {}, 0.0, {})] == ["bob-9"]


def test_of_each_tenant_one_has_its_files_brought() -> None:
    waiting = {tenant: [job(number, tenant, A) for number in range(2)] for tenant in (ALICE, BOB)}
    found = place(waiting, [Seat("one", 4, far_room=3)], far_to("one"), {}, 0.0, {})
    assert sorted(each.prompt_id for each in found) == ["alice-0", "bob-0"]
    found = place(waiting, [Seat("one", 4), Seat("two", 4, 1.5)], far_to("one"), {}, 0.0, {})
    assert {each.comfyui for each in found} >= {"two"}, "where they are they are given as ever"
