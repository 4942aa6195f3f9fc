"""The history: one's own entries, paged as ComfyUI pages them, and bounded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policy.call import ClientReply
from policy.documents import Kind
from policy.rule_context import RuleInput
from policy.rules import jobs as rules
from policy.rules.jobs import MAX_ENTRIES, READ_BATCH
from policy.violation import Reason
from tests.policy.disk import ALICES, Disk, Kept, entries, entry, kept_entry, reading
from tests.policy.tenants import Jobs, caller_of, drive, is_refused, request_of, uuid_of

DONE, DONE_LATER, RUNNING, WAITING, FOREIGN = (uuid_of(number) for number in range(1, 6))
ALICE = caller_of("alice", jobs=Jobs(waiting=[WAITING], active=[RUNNING], ended=[DONE, DONE_LATER]))
NOBODYS = "absent"


def ask(**more: Any) -> RuleInput:
    return request_of(ALICE, **more)


def list_of(ids: list[str], disk: Disk, query: dict[str, str] | None = None) -> ClientReply:
    context = caller_of("alice", jobs=Jobs(ended=ids))
    steps, reply = drive(reading(rules.history(request_of(context, query=query)), disk))
    assert steps == [], "ComfyUI is not asked"
    return reply


def test_an_entry_is_read_by_its_id_and_kept() -> None:
    disk = Disk(entries(DONE, DONE_LATER))
    steps, reply = drive(reading(rules.history_of(ask(parameters={"prompt_id": DONE_LATER})), disk))
    assert steps == []
    assert [(read.kind, read.prompt_ids) for read in disk.reads] == [(Kind.ENTRY, (DONE_LATER,))]
    assert list(reply.body) == [DONE_LATER]
    assert reply.body[DONE_LATER]["prompt"][:2] == [2, DONE_LATER]
    kept = Kept()
    kept.learn(reply)
    again = drive(rules.history_of(request_of(replace(ALICE, documents=kept), parameters={"prompt_id": DONE_LATER})))
    assert again == ([], reply)
    assert again[1].updates == ()


@pytest.mark.parametrize("prompt_id", [FOREIGN, "unknown", "..", NOBODYS])
def test_a_neighbours_entry_is_answered_as_one_that_is_not_there(prompt_id: str) -> None:
    """Nothing is read of it, so that the time tells nothing either."""
    steps, reply = drive(rules.history_of(ask(parameters={"prompt_id": prompt_id})))
    assert (steps, reply) == ([], ClientReply(body={}))


@pytest.mark.parametrize("prompt_id", [RUNNING, WAITING, DONE])
def test_a_job_without_an_entry_has_none_yet(prompt_id: str) -> None:
    reply = drive(reading(rules.history_of(ask(parameters={"prompt_id": prompt_id})), Disk({})))[1]
    assert reply == ClientReply(body={})
    assert reply.updates == ()


@pytest.mark.parametrize("value", [None, [], {}, {FOREIGN: entry(DONE)}, {DONE: entry(DONE, client_id="bob.tab")}])
def test_an_entry_that_is_not_the_tenants_is_not_kept(value: Any) -> None:
    assert rules.keep_entry(value, DONE, ALICES) is None


def test_what_is_kept_of_a_job_that_is_not_ones_own_is_not_shown() -> None:
    context = replace(ALICE, jobs=Jobs(), documents=Kept(entries(DONE)))
    assert drive(rules.history_of(request_of(context, parameters={"prompt_id": DONE}))) == ([], ClientReply(body={}))
    assert drive(rules.history(request_of(context))) == ([], ClientReply(body={}))


@pytest.mark.parametrize(
    ("query", "chosen"),
    [
        ({}, ["0", "1", "2", "3", "4"]),
        ({"max_items": "2"}, ["3", "4"]),
        ({"max_items": "9"}, ["0", "1", "2", "3", "4"]),
        ({"max_items": "0"}, []),
        ({"max_items": "-1"}, []),
        ({"max_items": "2", "offset": "1"}, ["1", "2"]),
        ({"max_items": "0", "offset": "1"}, ["1"]),
        ({"max_items": "2", "offset": "-1"}, ["3", "4"]),
        ({"offset": "3"}, ["3", "4"]),
        ({"offset": "9"}, []),
        ({"offset": "-5"}, ["0", "1", "2", "3", "4"]),
    ],
)
def test_history_is_paged_as_comfyui_pages_it(query: dict[str, str], chosen: list[str]) -> None:
    ids = ["0", "1", "2", "3", "4"]
    disk = Disk(entries(*ids))
    reply = list_of(ids, disk, query)
    assert disk.asked == chosen[::-1], "no more is read than is shown, the newest first"
    assert list(reply.body) == chosen
    assert [shown["prompt"][0] for shown in reply.body.values()] == [int(prompt_id) + 1 for prompt_id in chosen]


@pytest.mark.parametrize("query", [{"max_items": "x"}, {"offset": ""}, {"max_items": "1.5"}])
def test_pages_are_whole_numbers(query: dict[str, str]) -> None:
    assert is_refused(rules.history, ask(query=query), reason=Reason.QUERY_MALFORMED)


def test_a_long_history_is_read_in_batches_and_to_a_bound() -> None:
    ids = [uuid_of(number) for number in range(MAX_ENTRIES + 5)]
    disk = Disk(entries(*ids))
    assert list(list_of(ids, disk).body) == ids[5:]
    assert disk.asked == ids[:4:-1]
    assert {len(wish.prompt_ids) for wish in disk.reads[:-1]} == {READ_BATCH}


@pytest.mark.parametrize("at_a_time", [1, 3, 10])
def test_what_was_not_read_at_once_is_read_next_in_its_order(at_a_time: int) -> None:
    ids = [uuid_of(number) for number in range(10)]
    forgotten = ids[4]
    disk = Disk(entries(*(each for each in ids if each != forgotten)), at_a_time)
    reply = list_of(ids, disk)
    assert list(reply.body) == [each for each in ids if each != forgotten]
    assert [len(read.prompt_ids) for read in disk.reads] == list(range(10, 0, -at_a_time))


def test_what_is_kept_is_shown_among_what_is_read() -> None:
    ids = [uuid_of(number) for number in range(6)]
    context = caller_of("alice", jobs=Jobs(ended=ids), documents=Kept(entries(*ids[::2])))
    disk = Disk(entries(*ids[1::2]), at_a_time=2)
    reply = drive(reading(rules.history(request_of(context)), disk))[1]
    assert list(reply.body) == ids
    assert [shown["prompt"][0] for shown in reply.body.values()] == [1, 2, 3, 4, 5, 6]
    assert [read.prompt_ids for read in disk.reads] == [(ids[5], ids[3], ids[1]), (ids[1],)]
    assert {update.prompt_id for update in reply.updates} == set(ids[1::2])


def test_a_history_that_is_kept_is_shown_without_reading() -> None:
    context = replace(ALICE, documents=Kept(entries(DONE, DONE_LATER)))
    steps, reply = drive(rules.history(request_of(context)))
    assert (steps, list(reply.body), reply.updates) == ([], [DONE, DONE_LATER], ())


def test_entries_that_are_not_there_are_left_out() -> None:
    assert list(list_of([DONE, DONE_LATER], Disk(entries(DONE_LATER))).body) == [DONE_LATER]


@pytest.mark.parametrize(("bound", "shown"), [(1, 1), (15_500, 3), (10**6, 6)])
def test_an_answer_has_so_many_bytes_and_one_entry_at_least(
    bound: int, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [uuid_of(number) for number in range(6)]
    large = {(Kind.ENTRY, each): kept_entry(each, "x" * 5000) for each in ids}
    monkeypatch.setattr(rules, "MAX_ANSWER_BYTES", bound)
    disk = Disk(large, at_a_time=1)
    assert list(list_of(ids, disk).body) == ids[6 - shown :], "the newest stay"
    assert len(disk.reads) <= shown + 1, "nothing is read in vain but what showed that it is too much"
