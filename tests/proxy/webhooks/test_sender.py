"""What the sender does with what receivers do, in the test's own time: before a real gate's database and jobs, to a real receiver."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, tzinfo

import pytest
import standardwebhooks.webhooks
from aiohttp import web
from standardwebhooks import Webhook

from policy.attempts import SCHEDULE_S
from policy.principal import TenantId
from policy.v2.jobs import JobView
from policy.v2.links import Links
from policy.webhooks import Result
from proxy.outside.door import OutsideDoor
from proxy.outside.target import Target
from proxy.persistence import due_work
from proxy.persistence.operations import Database, DatabaseUnavailable
from proxy.webhooks import sender as module
from proxy.webhooks.deliveries import DELIVERED, GIVEN_UP, SWITCHED_OFF, Delivery, endpoint_rows, listing, resend
from proxy.webhooks.endpoint import Endpoint, new_secret
from proxy.webhooks.sender import DONE_S, LEASE_S, WAITING_S, Views, WebhookSender
from tests.contract.driver import saving, unique
from tests.harness import Running
from tests.proxy.conftest import Clock
from tests.proxy.v2.asking import submitted, until
from tests.proxy.webhooks.receiver import Receiver, receiving

ALL = ("job.canceled", "job.failed", "job.succeeded")
DOWN = "http://127.0.0.1:1"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture(autouse=True)
def _in_the_tests_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receivers have the test's time too: they take no old signature."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(clock(), tz)

    monkeypatch.setattr(standardwebhooks.webhooks, "datetime", Shifted)


@dataclass
class Desk:
    """A sender of the test's own beside a gate that has no endpoints, and what it told."""

    gate: Running
    receiver: Receiver
    clock: Clock
    views: Views | None = None
    names: tuple[str, ...] = ("shop",)
    base: str = ""
    told: list[tuple[Result, str]] = field(default_factory=list)
    lost: list[tuple[str, int]] = field(default_factory=list)
    senders: list[WebhookSender] = field(default_factory=list)
    endpoints: tuple[Endpoint, ...] = ()

    @property
    def database(self) -> Database:
        return self.gate.gate._state

    async def sender(self, name: str = "gate/1") -> WebhookSender:
        if not self.endpoints:
            self.endpoints = tuple(map(self._endpoint, self.names))
        made = WebhookSender(
            self.database,
            self.views or self.gate.gate.dependencies.v2.views,
            OutsideDoor(lambda: ()),
            name,
            lambda: self.endpoints,
            lambda: Links("https://comfy.example.com"),
            on_attempt=lambda delivery, result: self.told.append((result, delivery.note)),
            on_lost=lambda *lost: self.lost.append(lost),
            clock=self.clock,
            chance=lambda: 0.0,
        )
        await made.open()
        self.senders.append(made)
        return made

    def _endpoint(self, name: str) -> Endpoint:
        secret = self.receiver.secrets.setdefault(f"/{name}", new_secret())
        url = f"{self.base or self.receiver.url}/{name}"
        port = int(url.split(":")[2].split("/")[0])
        return Endpoint(name, TenantId("alice"), ALL, Target(url, frozenset({port}), True), (Webhook(secret),))

    def moved(self, url: str) -> None:
        """Where the receiver is from now on."""
        self.base = url
        self.endpoints = tuple(map(self._endpoint, self.names))

    async def job(self) -> str:
        """One that has ended, in the test's time too."""
        done = await submitted(self.gate, saving(unique()), metadata={"order": "CANARY"})
        await until(self.gate, done, "succeeded")
        self.clock.now_s = max(self.clock.now_s, time.time())
        return done

    async def deliveries(self) -> list[Delivery]:
        return await self.database.read(listing, None, None, 100)


@pytest.fixture
async def desk(gate: Running, receiver: Receiver, clock: Clock) -> AsyncIterator[Desk]:
    desk = Desk(gate, receiver, clock)
    yield desk
    for each in desk.senders:
        await each.stop()


async def send(sender: WebhookSender) -> None:
    await sender.send_due()
    await sender.finish()


async def wait_s(desk: Desk) -> float:
    """Until the next attempt."""
    [delivery] = await desk.deliveries()
    assert delivery.due_at_s is not None
    return delivery.due_at_s - desk.clock()


async def test_a_receiver_that_is_down_for_an_hour_gets_it_when_it_is_back(desk: Desk) -> None:
    desk.base = DOWN
    sender, began_s = await desk.sender(), desk.clock()
    done = await desk.job()
    while desk.clock() - began_s < 3600:
        await send(sender)
        assert desk.told.pop()[0] is Result.FAILED
        desk.clock.pass_s(await wait_s(desk))
    desk.moved(desk.receiver.url)
    await send(sender)
    assert desk.told == [(Result.DELIVERED, "answered 204")]
    [told] = await desk.receiver.until(lambda got: len(got) == 1)
    assert told.job == done
    [delivery] = await desk.deliveries()
    assert (delivery.outcome, delivery.due_at_s, delivery.attempts) == (DELIVERED, None, 5)


async def test_each_attempt_has_the_same_id_and_a_signature_of_its_own_time(desk: Desk) -> None:
    desk.receiver.answer = lambda received: web.Response(status=500 if len(desk.receiver.got) == 1 else 200)
    sender = await desk.sender()
    await desk.job()
    await send(sender)
    await send(sender)
    assert len(desk.receiver.got) == 1, "it is not due yet"
    assert await wait_s(desk) == SCHEDULE_S[1]
    desk.clock.pass_s(SCHEDULE_S[1])
    await send(sender)
    first, second = await desk.receiver.until(lambda got: len(got) == 2)
    assert (first.id, first.body) == (second.id, second.body)
    assert second.at_s > first.at_s
    assert first.signatures != second.signatures


async def test_after_a_day_it_is_given_up_and_may_be_sent_again(desk: Desk) -> None:
    desk.base = DOWN
    sender, began_s = await desk.sender(), desk.clock()
    await desk.job()
    for _ in SCHEDULE_S[1:]:
        await send(sender)
        desk.clock.pass_s(await wait_s(desk))
    await send(sender)
    [delivery] = await desk.deliveries()
    assert (delivery.outcome, delivery.due_at_s, delivery.attempts) == (GIVEN_UP, None, 10)
    assert 86_400 <= desk.clock() - began_s < 90_000
    desk.moved(desk.receiver.url)
    await desk.database.run(resend, [delivery.id], desk.clock())
    await send(sender)
    assert [each.id for each in await desk.receiver.until(lambda got: len(got) == 1)] == [delivery.id]


async def test_a_receiver_that_asks_for_time_gets_it(desk: Desk) -> None:
    desk.receiver.answer = lambda received: web.Response(status=429, headers={"Retry-After": "600"})
    await desk.job()
    sender = await desk.sender()
    assert not await desk.deliveries(), "jobs that ended before there was an endpoint are told to nobody"
    await desk.job()
    await send(sender)
    assert await wait_s(desk) == 600


@pytest.mark.parametrize("status", [301, 307, 400, 404, 500])
async def test_what_is_no_success_is_tried_again(desk: Desk, status: int) -> None:
    desk.receiver.answer = lambda received: web.Response(status=status, headers={"Location": "/elsewhere"})
    sender = await desk.sender()
    await desk.job()
    await send(sender)
    assert desk.told == [(Result.FAILED, f"answered {status}")]
    assert [each.path for each in desk.receiver.got] == ["/shop"]
    assert await wait_s(desk) == SCHEDULE_S[1]


async def test_who_answers_410_is_told_no_more(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.receiver.answer = lambda received: web.Response(status=410)
    sender = await desk.sender()
    await desk.job()
    await send(sender)
    assert desk.told == [(Result.GONE, "answered 410")]
    assert "webhook shop (http://127.0.0.1" in caplog.text
    assert "it is switched off" in caplog.text
    await desk.job()
    [delivery] = await desk.deliveries()
    assert delivery.outcome == SWITCHED_OFF
    assert (await desk.database.read(endpoint_rows))[0].switched_off_s is not None
    desk.receiver.answer = lambda received: web.Response(status=200)
    await desk.database.run(resend, [delivery.id], desk.clock())
    await send(sender)
    await desk.job()
    await send(sender)
    assert len(await desk.receiver.until(lambda got: len(got) == 3)) == 3


async def test_of_a_deleted_job_its_end_is_told_and_nothing_of_its_content(desk: Desk) -> None:
    sender = await desk.sender()
    done = await desk.job()
    assert await desk.gate.status("POST", "/history", "alice", json={"delete": [done]}) == 200
    await send(sender)
    [told] = await desk.receiver.until(lambda got: len(got) == 1)
    data = told.event["data"]
    assert (told.event["type"], data["id"], data["status"]) == ("job.succeeded", done, "succeeded")
    assert (data["outputs"], data["outputs_complete"], data["metadata"]) == ([], False, {})
    assert b"CANARY" not in told.body


class _Odd:
    """Jobs that cannot be found just now."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def find(self, tenant: TenantId, prompt_id: str) -> JobView | None:
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()
        return None


async def test_what_a_job_made_is_not_waited_for_without_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_LIMIT_S", 0.05)
    desk.views = _Odd(None)
    sender = await desk.sender()
    done = await desk.job()
    await send(sender)
    [told] = await desk.receiver.until(lambda got: len(got) == 1)
    assert (told.job, told.event["data"]["outputs_complete"]) == (done, False)


async def test_what_cannot_be_made_is_no_endless_loop(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.views = _Odd(ZeroDivisionError())
    sender = await desk.sender()
    await desk.job()
    await send(sender)
    assert desk.told == [(Result.FAILED, "the gate could not make it; its log says why")]
    assert "ZeroDivisionError" in caplog.text
    assert await wait_s(desk) == SCHEDULE_S[1]


async def test_while_the_database_cannot_be_used_nothing_is_counted(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.views = _Odd(DatabaseUnavailable("it is gone"))
    sender = await desk.sender()
    await desk.job()
    await send(sender)
    assert "is not kept: it is gone" in caplog.text
    assert not desk.told
    assert await wait_s(desk) == LEASE_S


async def test_what_is_being_sent_when_a_gate_stops_is_sent_by_the_next(desk: Desk) -> None:
    desk.receiver.held.clear()
    sender = await desk.sender()
    done = await desk.job()
    await sender.send_due()
    await desk.receiver.until(lambda got: len(got) == 1)
    await sender.stop()
    desk.receiver.held.set()
    await send(await desk.sender("gate/2"))
    got = await desk.receiver.until(lambda got: len(got) == 2)
    assert {each.job for each in got} == {done}
    assert len({each.id for each in got}) == 1


async def test_the_loop_goes_on_when_the_database_is_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(due_work, "DATABASE_PAUSE_S", 0.01)
    sender, failures = await desk.sender(), [DatabaseUnavailable("it is gone")]
    send_due = sender.send_due

    async def fails_once() -> float:
        if failures:
            raise failures.pop()
        return await send_due()

    monkeypatch.setattr(sender, "send_due", fails_once)
    done = await desk.job()
    running = asyncio.get_running_loop().create_task(sender.run())
    assert [each.job for each in await desk.receiver.until(lambda got: len(got) == 1)] == [done]
    assert "webhooks wait for the gate's database: it is gone" in caplog.text
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_what_is_too_old_is_deleted_and_said(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    desk.base = DOWN
    sender = await desk.sender()
    await desk.job()
    desk.clock.pass_s(WAITING_S - 3600)
    await sender.trim()
    assert len(await desk.deliveries()) == 1
    desk.clock.pass_s(3700)
    await sender.trim()
    assert not await desk.deliveries()
    assert desk.lost == [("alice", 1)]
    assert "1 webhooks of tenant alice were never delivered" in caplog.text


async def test_what_was_delivered_is_kept_for_a_week(desk: Desk) -> None:
    sender = await desk.sender()
    await desk.job()
    await send(sender)
    desk.clock.pass_s(DONE_S - 3600)
    await sender.trim()
    assert len(await desk.deliveries()) == 1
    desk.clock.pass_s(3700)
    await sender.trim()
    assert not await desk.deliveries()
    assert not desk.lost
