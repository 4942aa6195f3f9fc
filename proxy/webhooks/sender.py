"""Sends what stands in the outbox. Whatever a receiver does, no job and no other endpoint waits for it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

from policy.principal import TenantId
from policy.v2.jobs import JobView
from policy.v2.links import Links
from policy.webhooks import Result, asked_wait, message, result_of, wait_after
from proxy.outside.target import Answer, Target, Unreachable
from proxy.persistence.operations import Database, DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.webhooks import deliveries as outbox
from proxy.webhooks.deliveries import DELIVERED, GIVEN_UP, SWITCHED_OFF, Delivery, EndpointRow, Kept
from proxy.webhooks.endpoint import Endpoint

AT_ONCE: Final = 2
"""To one endpoint, from one gate."""
TIME_LIMIT_S: Final = 15.0
LOOK_LIMIT_S: Final = 10.0
"""For what a job made to be measured; else it is told without."""
LEASE_S: Final = 40.0
POLL_S: Final = 30.0
DATABASE_PAUSE_S: Final = 1.0
TRIM_EACH_S: Final = 60.0
WAITING_S: Final = 3 * 86_400.0
DONE_S: Final = 7 * 86_400.0
MAX_OF_TENANT: Final = 10_000
"""That wait, and as many that do not any more."""

_log = logging.getLogger("comfygate")


class Door(Protocol):
    """The way out (proxy/outside/door.py)."""

    async def post(self, target: Target, body: bytes, headers: Mapping[str, str], time_limit_s: float) -> Answer:
        """Raises Unreachable."""
        ...

    async def stop(self) -> None: ...


class Views(Protocol):
    """Jobs as the API tells of them (proxy/v2/job_views.py)."""

    async def find(self, tenant: TenantId, prompt_id: str) -> JobView | None: ...


class WebhookSender:
    """endpoints, links: of the configuration in force. on_attempt: told of each that ended, with what has become of it. on_lost: told of a
    tenant's deliveries that were deleted before they could be sent. on_counted: now and then, of how many are to be sent, by tenant.
    """

    def __init__(
        self,
        database: Database,
        views: Views,
        door: Door,
        gate: str,
        endpoints: Callable[[], Sequence[Endpoint]],
        links: Callable[[], Links],
        on_attempt: Callable[[Delivery, Result], None] = lambda delivery, result: None,
        on_lost: Callable[[str, int], None] = lambda tenant, count: None,
        on_counted: Callable[[Mapping[str, int]], None] = lambda counts: None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._views = views
        self._door = door
        self._gate = gate
        self._endpoints = endpoints
        self._links = links
        self._on_attempt = on_attempt
        self._on_lost = on_lost
        self._on_counted = on_counted
        self._clock = clock
        self._chance = chance
        self._tasks = Tasks()
        self._busy: Counter[str] = Counter()
        self._known: Sequence[Endpoint] | None = None
        self._wake = asyncio.Event()

    async def open(self) -> None:
        """Before the first job can end. Raises DatabaseUnavailable."""
        await self.take_up()
        if not self._database.is_shared:  # whoever was sending is gone
            await self._database.run(outbox.release, None, self._clock())

    async def take_up(self) -> None:
        """The configuration's endpoints are those that the ends of jobs are written down for. Raises DatabaseUnavailable."""
        endpoints = self._endpoints()
        if endpoints is not self._known:
            now_s = self._clock()
            rows = [
                EndpointRow(each.name, each.tenant, " ".join(each.events), each.fingerprint, now_s)
                for each in endpoints
            ]
            await self._database.run(outbox.set_endpoints, rows)
            self._known = endpoints

    async def reconfigured(self) -> None:
        """Another configuration is in force. Where the database cannot be used just now, `run` takes it up."""
        with suppress(DatabaseUnavailable):
            await self.take_up()
        self.wake()

    def wake(self) -> None:
        """Something may be due, or be configured otherwise."""
        self._wake.set()

    async def run(self) -> None:
        ends_hearing = self._database.on_change(self.wake)
        trimmed_s = -TRIM_EACH_S
        try:
            while True:
                self._wake.clear()
                try:
                    await self.take_up()
                    due_in_s = await self.send_due()
                    if time.monotonic() - trimmed_s >= TRIM_EACH_S:
                        await self.trim()
                        trimmed_s = time.monotonic()
                except DatabaseUnavailable as error:
                    _log.warning("webhooks wait for the gate's database: %s", error)
                    await asyncio.sleep(DATABASE_PAUSE_S)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(due_in_s, POLL_S)):
                        await self._wake.wait()
        finally:
            ends_hearing()

    async def send_due(self) -> float:
        """Begins to send what is due, as far as its endpoints have room; seconds until more is. Raises DatabaseUnavailable."""
        now_s, waits_s = self._clock(), [POLL_S]
        due = await self._database.read(outbox.next_due) if self._endpoints() else {}
        for endpoint in self._endpoints():
            at_s, room = due.get((endpoint.name, endpoint.tenant)), AT_ONCE - self._busy[endpoint.name]
            if at_s is None or room <= 0:  # who has no room wakes this when there is some
                continue
            if at_s > now_s:
                waits_s.append(at_s - now_s)
                continue
            claimed = await self._database.run(
                outbox.claim, endpoint.name, endpoint.tenant, self._gate, now_s, now_s + LEASE_S, room
            )
            for delivery in claimed:
                self._busy[endpoint.name] += 1
                self._tasks.start(self._send(endpoint, delivery), "webhook")
        return min(waits_s)

    async def finish(self) -> None:
        """Waits for what is being sent."""
        await self._tasks.finish()

    async def trim(self) -> None:
        """Raises DatabaseUnavailable."""
        now_s = self._clock()
        kept = Kept(now_s - WAITING_S, now_s - DONE_S, MAX_OF_TENANT)
        for tenant in await self._database.read(outbox.tenants):
            lost = await self._database.run(outbox.trim, tenant, kept)
            if lost:
                _log.warning("%d webhooks of tenant %s were never delivered, and are not kept any longer", lost, tenant)
                self._on_lost(tenant, lost)
        self._on_counted(await self._database.read(outbox.waiting_counts))

    async def stop(self) -> None:
        """What is being sent is sent once more by the next gate."""
        await self._tasks.stop()
        with suppress(DatabaseUnavailable):
            await self._database.run(outbox.release, self._gate, self._clock())
        await self._door.stop()

    async def _send(self, endpoint: Endpoint, delivery: Delivery) -> None:
        try:
            result, settled = await self._attempt(endpoint, delivery)
            if await self._database.run(outbox.settle, settled, self._gate) and result is Result.GONE:
                await self._database.run(outbox.switch_off, endpoint.name, endpoint.tenant, self._clock())
                _log.warning(
                    "webhook %s (%s) answered 410: it is switched off, until its configuration is changed or `comfygate webhooks resend`",
                    endpoint.name,
                    endpoint.place,
                )
            self._on_attempt(settled, result)
        except DatabaseUnavailable as error:  # it is sent again when its lease is over
            _log.warning("what became of webhook %s of job %s is not kept: %s", delivery.id, delivery.prompt_id, error)
        finally:
            self._busy[endpoint.name] -= 1
            self.wake()

    async def _attempt(self, endpoint: Endpoint, delivery: Delivery) -> tuple[Result, Delivery]:
        """What came of it, and what stands in the outbox of it from then on. Raises DatabaseUnavailable."""
        asked_s, result = None, Result.FAILED
        try:
            body = await self._body(delivery)
            headers = endpoint.headers(delivery.id, self._clock(), body)
            answer = await self._door.post(endpoint.target, body, headers, TIME_LIMIT_S)
            note, result = f"answered {answer.status}", result_of(answer.status)
            asked_s = asked_wait(answer.status, answer.retry_after, self._clock())
        except Unreachable as error:
            note = str(error)
        except DatabaseUnavailable:
            raise
        except Exception:  # a bug: without an end it would be tried for ever, at once
            _log.exception("webhook %s of job %s cannot be sent", delivery.id, delivery.prompt_id)
            note = "the gate could not make it; its log says why"
        return result, self._settled(delivery, result, note, asked_s)

    def _settled(self, delivery: Delivery, result: Result, note: str, asked_s: float | None) -> Delivery:
        now_s, attempts = self._clock(), delivery.attempts + 1
        wait_s = wait_after(attempts, self._chance(), asked_s) if result is Result.FAILED else None
        outcome = {Result.DELIVERED: DELIVERED, Result.GONE: SWITCHED_OFF}.get(result, "" if wait_s else GIVEN_UP)
        due_at_s = None if wait_s is None else now_s + wait_s
        return delivery._replace(
            due_at_s=due_at_s, attempts=attempts, outcome=outcome, tried_at_s=now_s, note=note, gate=""
        )

    async def _body(self, delivery: Delivery) -> bytes:
        """Raises DatabaseUnavailable."""
        found, has_all = None, True
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                found = await self._views.find(TenantId(delivery.tenant), delivery.prompt_id)
        except TimeoutError:
            has_all = False
        if found is None or not delivery.is_end_of(found):
            has_all = False
            found = delivery.bare_view(delivery.ended_at_s)
        return message(found, self._links(), has_all_outputs=has_all)
