"""Jobs whose files are brought: their tenant's order is kept, also where something goes wrong, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from proxy.jobs.aside import Aside
from proxy.jobs.job_rows import Given, JobRow, Submitted
from proxy.persistence.operations import DatabaseUnavailable

NOTHING = Submitted(b"", b"", b"")


def given(name: str) -> Given:
    """name: of its tenant, and which of its jobs it is."""
    return Given(JobRow(prompt_id=name, tenant=name.split("/")[0]), NOTHING)


class Sending:
    """Sends one when the test says so. fails: what becomes of the next one instead."""

    def __init__(self) -> None:
        self.far = {"alice/1"}
        self.events: list[str] = []
        self.goes_on: dict[str, asyncio.Event] = {}
        self.fails: dict[str, Exception | None] = {}
        self.failure: Exception | None = None
        self.overs = 0
        self.aside = Aside(
            lambda each: each.job.prompt_id in self.far, self._send, self._give_back, self._forget, self._over
        )

    def take(self, name: str) -> bool:
        return self.aside.take(given(name))

    def let(self, name: str) -> None:
        self.goes_on.setdefault(name, asyncio.Event()).set()

    async def until(self, *events: str) -> None:
        async with asyncio.timeout(240):
            while self.events != list(events):
                await asyncio.sleep(0)

    async def _send(self, each: Given) -> bool:
        name = each.job.prompt_id
        await self.goes_on.setdefault(name, asyncio.Event()).wait()
        if name in self.fails:
            error = self.fails.pop(name)
            self.events.append(f"{name} fails")
            if error is not None:
                raise error
            return False
        self.events.append(name)
        return True

    async def _give_back(self, batch: Sequence[Given]) -> None:
        if self.failure is not None and batch:
            raise self.failure
        self.events += [f"{each.job.prompt_id} back" for each in batch]

    def _over(self) -> None:
        assert self.aside.tenants == frozenset()
        self.overs += 1

    def _forget(self, batch: Sequence[Given]) -> None:
        self.events += [f"{each.job.prompt_id} forgotten" for each in batch]


@pytest.fixture
async def sending() -> AsyncIterator[Sending]:
    made = Sending()
    yield made
    await made.aside.stop()


async def test_a_tenants_jobs_stay_in_their_order_and_others_pass(sending: Sending) -> None:
    assert not sending.take("alice/0")
    assert sending.take("alice/1")
    assert sending.take("alice/2"), "though nothing of its own is to be brought"
    assert not sending.take("mallory/1")
    sending.let("alice/2")
    for _ in range(5):
        await asyncio.sleep(0)
    assert (sending.events, sending.aside.tenants, sending.overs) == ([], frozenset({"alice"}), 0)
    sending.let("alice/1")
    await sending.until("alice/1", "alice/2")
    await asyncio.sleep(0)
    assert sending.overs == 1
    assert not sending.take("alice/3")


async def test_those_behind_one_that_is_not_sent_wait_again(sending: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = asyncio.Event()

    async def sleep(seconds: float) -> None:
        assert sending.take("alice/3"), "it would come before those that were given back"
        slept.set()

    sending.fails["alice/1"] = None
    sending.take("alice/1")
    sending.take("alice/2")
    with monkeypatch.context() as patch:
        patch.setattr("asyncio.sleep", sleep)
        sending.let("alice/1")
        await slept.wait()
    await sending.until("alice/1 fails", "alice/2 back", "alice/3 back")


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), RuntimeError("a bug")])
@pytest.mark.filterwarnings("ignore")
async def test_where_the_database_goes_away_all_are_said_to_be_unknown(sending: Sending, error: Exception) -> None:
    sending.fails["alice/1"] = error
    sending.take("alice/1")
    sending.take("alice/2")
    sending.let("alice/1")
    await sending.until("alice/1 fails", "alice/1 forgotten", "alice/2 forgotten")
    await asyncio.sleep(0)
    sending.far.clear()
    assert not sending.take("alice/4")


async def test_also_where_it_goes_away_as_they_are_given_back(sending: Sending) -> None:
    sending.fails["alice/1"], sending.failure = None, DatabaseUnavailable("gone")
    sending.take("alice/1")
    sending.take("alice/2")
    sending.let("alice/1")
    await sending.until("alice/1 fails", "alice/2 forgotten")
