"""Makes what tells others of jobs, and gives each part what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from policy.webhooks import Result
from proxy.dependencies import Dependencies
from proxy.observability.audit_log import AuditTrail
from proxy.observability.metrics import Metrics
from proxy.outside.target import Answer, Target
from proxy.persistence.operations import Database
from proxy.webhooks.deliveries import Delivery, EndpointRow
from proxy.webhooks.endpoint import place_of
from proxy.webhooks.sender import Views, WebhookSender
from proxy.wiring.outside import own_places

if TYPE_CHECKING:
    from proxy.outside.door import OutsideDoor, Place


def build_webhooks(
    parts: Dependencies, database: Database, metrics: Metrics, audit: AuditTrail, views: Views
) -> WebhookSender:
    def tell(delivery: Delivery, result: Result) -> None:
        metrics.webhook_tried(delivery.tenant, delivery.endpoint, result.value, delivery.outcome)
        audit.write(
            "webhook",
            prompt_id=delivery.prompt_id,
            tenant=delivery.tenant,
            endpoint=delivery.endpoint,
            type=delivery.told,
            webhook=delivery.id,
            attempt=delivery.attempts,
            result=result.value,
            note=delivery.note,
            **({"origin": place_of(delivery.url)} if delivery.url else {}),
        )

    def count(waiting: Mapping[str, int], endpoints: Sequence[EndpointRow]) -> None:
        switched_off = {(each.tenant, each.name): each.switched_off_s is not None for each in endpoints}
        metrics.webhooks_counted(waiting, switched_off)

    return WebhookSender(
        database,
        views,
        _DoorOnDemand(lambda: own_places(parts.compiled.config)),
        parts.jobs.records.gate,
        lambda: parts.compiled.webhooks,
        lambda: parts.compiled.links_outside,
        lambda: parts.compiled.call_webhooks,
        on_attempt=tell,
        on_lost=metrics.webhooks_lost,
        on_counted=count,
    )


class _DoorOnDemand:
    """A gate that tells nobody loads no client for it."""

    def __init__(self, own: Callable[[], Iterable[Place]]) -> None:
        self._own = own
        self._door: OutsideDoor | None = None

    async def post(self, target: Target, body: bytes, headers: Mapping[str, str], time_limit_s: float) -> Answer:
        if self._door is None:
            from proxy.outside.door import OutsideDoor

            self._door = OutsideDoor(self._own)
        return await self._door.post(target, body, headers, time_limit_s)

    async def stop(self) -> None:
        if self._door is not None:
            await self._door.stop()
