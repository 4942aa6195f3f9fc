"""Endpoints and deliveries as the tests of the outbox write them down."""

from __future__ import annotations

from policy.call import JobExtras
from proxy.jobs.job_rows import StoredState
from proxy.persistence.operations import Database
from proxy.webhooks.deliveries import Delivery, EndpointRow, claim, listing, set_endpoints
from tests.proxy.jobs.stored import end, put

ALL = "job.canceled job.failed job.succeeded"
GATE, NOW_S, UNTIL_S = "gate/1", 300.0, 360.0


def endpoint(
    name: str = "shop", tenant: str = "alice", events: str = ALL, fingerprint: str = "1", since_s: float = 50.0
) -> EndpointRow:
    return EndpointRow(name, tenant, events, fingerprint, since_s)


async def configured(database: Database, *rows: EndpointRow) -> None:
    await database.run(set_endpoints, rows)


async def ended(
    database: Database, name: str, tenant: str = "alice", state: StoredState = StoredState.SUCCEEDED, webhook: str = ""
) -> None:
    """webhook: that its call has named."""
    await put(database, name, tenant, window=100, extras=JobExtras(webhook=webhook))
    await end(database, name, state)


async def kept(database: Database, tenant: str | None = None) -> list[Delivery]:
    return await database.read(listing, tenant, None, 100)


async def taken(database: Database, name: str = "shop", tenant: str = "alice", gate: str = GATE) -> list[Delivery]:
    return await database.run(claim, name, tenant, gate, NOW_S, UNTIL_S, 10)
