"""Single-use keys without a gate around them: what each end of a submission does to its key, and for how long one is used."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from policy.call import ClientReply
from policy.principal import Principal, parse_tenant
from policy.violation import Reason, Violation
from proxy.http.errors import (
    ClientGone,
    CredentialEnded,
    LimitExceeded,
    Refusal,
    TurnedAway,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from proxy.http.request_record import RequestRecord
from proxy.jobs.idempotency import place_of
from proxy.jobs.idempotency_db import KEPT_S, KeptSubmissions
from proxy.jobs.rule_runner import Beforehand
from proxy.jobs.single_use_keys import SingleUseKeys
from proxy.persistence.operations import DatabaseUnavailable
from proxy.persistence.sqlite import SqliteDatabase
from tests.proxy.conftest import Clock

PLACE = place_of(Principal("a", parse_tenant("alice")), "key")
TAKEN = ClientReply(201, {})


class Desk:
    """Where submissions with one key come in."""

    def __init__(self, state: SqliteDatabase, clock: Clock, *, is_dear: bool) -> None:
        self.is_dear = is_dear
        self.state = state
        self.keys = SingleUseKeys(KeptSubmissions(state), clock)
        self.runs = 0

    async def submit(
        self, end: ClientReply | BaseException = TAKEN, *, is_taken: bool = True, is_submitted: bool = True
    ) -> ClientReply:
        """end: what comes of it. is_taken: its key was written down. is_submitted: ComfyUI was sent it."""
        record = RequestRecord("POST", "id", "127.0.0.1")

        async def run(note: Beforehand) -> ClientReply:
            self.runs += 1
            if is_taken:
                await note.write("an-id")
            record.is_submitted = is_submitted
            if isinstance(end, BaseException):
                raise end
            return end

        return await self.keys.run(PLACE, record, run, is_dear=self.is_dear)

    async def is_used(self) -> bool:
        before = self.runs
        try:
            await self.submit(Violation(Reason.BODY_MALFORMED, "No."), is_taken=False)
        except Violation as violation:
            is_used = violation.reason is Reason.IDEMPOTENCY_KEY_REUSED
            assert self.runs == before or not (is_used and self.is_dear)
            return is_used
        raise AssertionError("refused in any case")


@pytest.fixture(params=[True, False], ids=["dear", "cheap"])
def desk(state: SqliteDatabase, clock: Clock, request: pytest.FixtureRequest) -> Desk:
    return Desk(state, clock, is_dear=request.param)


NOTHING_CAME_OF_IT: list[ClientReply | BaseException] = [
    ClientReply(429, {}),
    ClientReply(503, {}),
    Violation(Reason.WORKFLOW_MALFORMED, "No."),
    LimitExceeded("x", limit="l", retry_after_s=1.0),
    TurnedAway(Refusal(503, "gate-stopping", "No.")),
    UpstreamUnreachable(),
]
WHO_KNOWS: list[BaseException] = [
    UpstreamUnavailable(),
    UpstreamTimeout(),
    DatabaseUnavailable("gone"),
    CredentialEnded(),
    ClientGone(),
    asyncio.CancelledError(),
    RuntimeError("a mistake"),
]


@pytest.mark.parametrize("end", NOTHING_CAME_OF_IT, ids=lambda end: type(end).__name__)
async def test_what_certainly_came_to_nothing_gives_the_key_back(desk: Desk, end: Any) -> None:
    if isinstance(end, BaseException):
        with pytest.raises(type(end)):
            await desk.submit(end)
    else:
        assert await desk.submit(end) is end
    assert not await desk.is_used()
    assert await desk.submit() is TAKEN


@pytest.mark.parametrize("end", WHO_KNOWS, ids=lambda end: type(end).__name__)
@pytest.mark.parametrize("is_submitted", [True, False])
async def test_what_may_have_come_of_it_keeps_the_key(desk: Desk, end: BaseException, is_submitted: bool) -> None:
    """Where ComfyUI was sent nothing, nothing came of it."""
    with pytest.raises(type(end)):
        await desk.submit(end, is_submitted=is_submitted)
    assert await desk.is_used() is is_submitted


async def test_a_key_is_used_for_a_day(desk: Desk, clock: Clock) -> None:
    await desk.submit()
    clock.pass_s(KEPT_S - 1)
    assert await desk.is_used()
    clock.pass_s(1)
    assert not await desk.is_used()


async def test_while_the_first_one_runs_the_key_is_used(desk: Desk) -> None:
    """Also before it is written down."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def run(note: Beforehand) -> ClientReply:
        begun.set()
        await may_end.wait()
        return ClientReply(429, {})

    first = asyncio.ensure_future(desk.keys.run(PLACE, RequestRecord("POST", "id", "127.0.0.1"), run))
    await begun.wait()
    assert await desk.is_used()
    may_end.set()
    await first
    assert not await desk.is_used()


async def test_nothing_comes_of_it_where_keys_cannot_be_kept(desk: Desk) -> None:
    await desk.state.close()
    with pytest.raises(DatabaseUnavailable):
        await desk.submit()
    assert desk.runs == (0 if desk.is_dear else 1)


async def test_a_key_that_cannot_be_given_back_stays_used(
    desk: Desk, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """And its submission is told as it ended."""

    async def run(note: Beforehand) -> ClientReply:
        await note.write("an-id")
        await desk.state.close()
        return ClientReply(429, {})

    reply = await desk.keys.run(PLACE, RequestRecord("POST", "id", "127.0.0.1"), run)
    assert reply.status == 429
    assert "cannot be taken back" in caplog.text
    await desk.state.open()
    assert await desk.is_used()
