"""What a key's owner is, and which answers are kept whole."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import orjson
import pytest

from policy.call import ClientReply
from policy.principal import Principal, Role, parse_tenant
from policy.violation import Reason, Violation
from proxy.http.errors import TurnedAway
from proxy.http.request_record import RequestRecord
from proxy.jobs.idempotency import MAX_BODY_BYTES, Attempt, IdempotentSubmissions, place_of
from proxy.jobs.idempotency_db import KeptSubmissions, Place
from proxy.jobs.rule_runner import Beforehand
from proxy.persistence.operations import Operation, Statement
from tests.proxy.conftest import opened

ALICE = Principal("a", parse_tenant("alice"))


class Finder:
    """Knows no job."""

    async def has(self, principal: Principal, prompt_id: str) -> bool:
        return False

    def place_of(self, principal: Principal, prompt_id: str) -> int:
        return 4


def test_keys_are_of_a_tenants_users_or_of_its_admins() -> None:
    """SECURITY: an admin is answered as ComfyUI answers, with everybody's names."""
    callers = (
        ALICE,
        Principal("b", parse_tenant("alice")),
        Principal("c", parse_tenant("alice"), Role.ADMIN),
        Principal("d", parse_tenant("mallory")),
        Principal("e", parse_tenant("mallory"), Role.ADMIN),
    )
    places = [place_of(caller, "key") for caller in callers]
    assert places[0] == places[1]
    assert len(set(places)) == 4
    assert place_of(ALICE, "key") != place_of(ALICE, "KEY")
    assert b"key" not in places[0].key_hash


def attempt(place: Place) -> Attempt:
    return Attempt(place, b"f" * 32, ALICE, RequestRecord("POST", "id", "127.0.0.1"))


async def test_a_large_answer_is_kept_short_and_a_large_refusal_not_at_all(tmp_path: Path) -> None:
    """A job that runs is known by its id, whatever else its answer says; a refusal can be made again."""
    large = {"prompt_id": "an-id", "number": 1, "node_errors": {"1": "x" * MAX_BODY_BYTES}}
    async with opened(tmp_path / "state.sqlite3") as state:
        submissions = IdempotentSubmissions(KeptSubmissions(state), Finder())  # type: ignore[arg-type]
        runs = []

        async def accepted(note: Beforehand) -> ClientReply:
            await note.write("an-id")
            return ClientReply(200, large)

        async def refused(note: Beforehand) -> ClientReply:
            runs.append("refused")
            return ClientReply(400, large)

        first = await submissions.submit(attempt(place_of(ALICE, "one")), accepted)
        assert first.body == large
        again = await submissions.submit(attempt(place_of(ALICE, "one")), accepted)
        assert orjson.loads(again.body) == {"prompt_id": "an-id", "number": 4, "node_errors": {}}
        for _ in range(2):
            assert (await submissions.submit(attempt(place_of(ALICE, "two")), refused)).status == 400
        assert runs == ["refused"] * 2


async def test_of_two_gates_that_have_one_request_at_once_one_runs_it(tmp_path: Path) -> None:
    """SECURITY: a client that tries again at the other gate, while the first one still judges, would get two jobs."""
    async with opened(tmp_path / "state.sqlite3") as state:
        here, there = (IdempotentSubmissions(KeptSubmissions(state), Finder()) for _ in range(2))  # type: ignore[arg-type]
        place = place_of(ALICE, "key")
        made: list[str] = []

        async def run(note: Beforehand, prompt_id: str) -> ClientReply:
            await note.write(prompt_id)
            made.append(prompt_id)
            return ClientReply(200, {"prompt_id": prompt_id})

        async def faster(note: Beforehand) -> ClientReply:
            await there.submit(attempt(place), partial(run, prompt_id="theirs"))
            return await run(note, "ours")

        async def refused(note: Beforehand) -> ClientReply:
            await there.submit(attempt(place), partial(run, prompt_id="theirs"))
            raise Violation(Reason.POLICY_VIOLATION, "Not here.")

        for attempted in (faster, refused):
            with pytest.raises(TurnedAway) as turned:
                await here.submit(attempt(place), attempted)
            assert turned.value.refusal.reason == "idempotency-key-in-use"
            assert made == ["theirs"]
            again = await here.submit(attempt(place), partial(run, prompt_id="ours"))
            assert orjson.loads(again.body) == {"prompt_id": "theirs"}
            made.clear()
            await state.run(nothing)


def nothing() -> Operation[None]:
    yield Statement("DELETE FROM idempotent_submissions")
