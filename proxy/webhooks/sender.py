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

from policy.attempts import wait_after
from policy.principal import TenantId
from policy.v2.jobs import JobView
from policy.v2.links import Links
from policy.webhooks import Result, asked_wait, message, result_of
from proxy.outside.target import Answer, Target, Unreachable
from proxy.persistence.due_work import POLL_S, DueWork
from proxy.persistence.operations import Database, DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.webhooks import deliveries as outbox
from proxy.webhooks.deliveries import DELIVERED, GIVEN_UP, SWITCHED_OFF, Delivery, EndpointRow, Kept, endpoint_rows
from proxy.webhooks.endpoint import CallWebhooks, Endpoint, Recipient

TIME_LIMIT_S: Final = 15.0
LOOK_LIMIT_S: Final = 10.0
"""For what a job made to be measured; else it is told without."""
LEASE_S: Final = 40.0
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
    """endpoints, links, calls: of the configuration in force. on_attempt: told of each that ended, with what has become of it. on_lost: told of a
    tenant's deliveries that were deleted before they could be sent. on_counted: now and then, of how many are to be sent, by tenant, and of the
    endpoints.
    """

    def __init__(
        self,
        database: Database,
        views: Views,
        door: Door,
        gate: str,
        endpoints: Callable[[], Sequence[Endpoint]],
        links: Callable[[], Links],
        calls: Callable[[], Sequence[CallWebhooks]] = lambda: (),
        on_attempt: Callable[[Delivery, Result], None] = lambda delivery, result: None,
        on_lost: Callable[[str, int], None] = lambda tenant, count: None,
        on_counted: Callable[[Mapping[str, int], Sequence[EndpointRow]], None] = lambda counts, endpoints: None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._views = views
        self._door = door
        self._gate = gate
        self._endpoints = endpoints
        self._links = links
        self._calls = calls
        self._on_attempt = on_attempt
        self._on_lost = on_lost
        self._on_counted = on_counted
        self._clock = clock
        self._chance = chance
        self._tasks = Tasks()
        self._busy: Counter[tuple[str, str]] = Counter()
        self._known: Sequence[Endpoint] | None = None
        self._due = DueWork(database, self._take_up_and_begin, self.trim, "webhooks")

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
        self._due.wake()

    async def run(self) -> None:
        await self._due.run()

    async def _take_up_and_begin(self) -> float:
        await self.take_up()
        return await self.send_due()

    async def send_due(self) -> float:
        """Begins to send what is due, as far as its recipients have room; seconds until more is. Raises DatabaseUnavailable."""
        now_s, waits_s = self._clock(), [POLL_S]
        everybody: list[Recipient] = [*self._endpoints(), *self._calls()]
        with_room = (each for each in everybody if self._busy[each.name, each.tenant] < each.at_once)
        # The others wake this when they have some.
        recipients: dict[tuple[str, str], Recipient] = {(each.name, each.tenant): each for each in with_room}
        for key, at_s in (await self._database.read(outbox.next_due, tuple(recipients))).items():
            if at_s > now_s:
                waits_s.append(at_s - now_s)
                continue
            recipient, until_s = recipients[key], now_s + LEASE_S
            room = recipient.at_once - self._busy[key]
            for delivery in await self._database.run(outbox.claim, *key, self._gate, now_s, until_s, room):
                self._busy[key] += 1
                self._tasks.start(self._send(recipient, delivery), "webhook")
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
        counts, endpoints = await self._database.read(outbox.waiting_counts), await self._database.read(endpoint_rows)
        self._on_counted(counts, endpoints)

    async def stop(self) -> None:
        """What is being sent is sent once more by the next gate."""
        await self._tasks.stop()
        with suppress(DatabaseUnavailable):
            await self._database.run(outbox.release, self._gate, self._clock())
        await self._door.stop()

    async def _send(self, recipient: Recipient, delivery: Delivery) -> None:
        try:
            result, settled = await self._attempt(recipient, delivery)
            is_settled = await self._database.run(outbox.settle, settled, self._gate)
            if is_settled and result is Result.GONE and isinstance(recipient, Endpoint):
                await self._database.run(outbox.switch_off, recipient.name, recipient.tenant, self._clock())
                _log.warning(
                    "webhook %s (%s) answered 410: it is switched off, until its configuration is changed or `comfygate webhooks resend`",
                    recipient.name,
                    recipient.place,
                )
            self._on_attempt(settled, result)
        except DatabaseUnavailable as error:  # it is sent again when its lease is over
            _log.warning("what became of webhook %s of job %s is not kept: %s", delivery.id, delivery.prompt_id, error)
        finally:
            self._busy[recipient.name, recipient.tenant] -= 1
            self.wake()

    async def _attempt(self, recipient: Recipient, delivery: Delivery) -> tuple[Result, Delivery]:
        """What came of it, and what stands in the outbox of it from then on. Raises DatabaseUnavailable."""
        asked_s, result = None, Result.FAILED
        try:
            target = recipient.target_of(delivery.url)
            body = await self._body(delivery)
            headers = recipient.headers(delivery.id, self._clock(), body)
            answer = await self._door.post(target, body, headers, TIME_LIMIT_S)
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
        return message(found, self._links(), has_all_outputs=has_all, event=delivery.told, at_s=delivery.event_at_s)
