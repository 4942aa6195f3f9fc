"""What is done with the outbox of webhooks in the gate's database, each as one transaction (proxy/persistence/operations.py).

A delivery that a gate sends just now is due again later, when that gate must have ended with it or be gone: so it is sent once at a time and not forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

from policy.v2.jobs import JobView, Status
from policy.webhooks import Event, event_of
from proxy.persistence.operations import Operation, Statement

DELIVERED: Final = "delivered"
GIVEN_UP: Final = "given-up"
SWITCHED_OFF: Final = "switched-off"
"""Outcomes; "" while it is to be sent."""


class Delivery(NamedTuple):
    """The end of a job that an endpoint is told of, or what has become of its copies since. Times are Unix seconds.

    event, event_at_s: what has become of the copies, and when; "" and None for the end. due_at_s: None when nothing more is to be sent. attempts: that
    failed, and the one that did not. note: of the last one. url: where the job's call has named it; "" for an endpoint of the configuration.
    """

    id: str
    endpoint: str
    tenant: str
    prompt_id: str
    state: str
    created_at_s: float
    started_at_s: float | None
    ended_at_s: float
    due_at_s: float | None = None
    gate: str = ""
    attempts: int = 0
    outcome: str = ""
    tried_at_s: float | None = None
    note: str = ""
    url: str = ""
    event: str = ""
    event_at_s: float | None = None

    @property
    def told(self) -> Event:
        return Event(self.event) if self.event else event_of(self.state)

    def is_end_of(self, job: JobView | None) -> bool:
        """Whether the job is still as it ended then: it may be deleted, or have been tried again since."""
        return job is not None and job.status.value == self.state and job.ended_at_s == self.ended_at_s

    def bare_view(self, keep_until_s: float) -> JobView:
        """What is known of the job where it is not kept any more."""
        return JobView(
            prompt_id=self.prompt_id,
            status=Status(self.state),
            created_at_s=self.created_at_s,
            keep_until_s=keep_until_s,
            started_at_s=self.started_at_s,
            ended_at_s=self.ended_at_s,
        )


class EndpointRow(NamedTuple):
    """events: with spaces between. fingerprint: see `Endpoint`. since_s: Unix time when it was configured so. switched_off_s: when it wanted no more,
    None while it is told.
    """

    name: str
    tenant: str
    events: str
    fingerprint: str
    since_s: float
    switched_off_s: float | None = None


class Kept(NamedTuple):
    """Bounds of what is kept. waiting_since_s, done_since_s: Unix time of the oldest event. most: of a tenant, of each kind."""

    waiting_since_s: float
    done_since_s: float
    most: int


_COLUMNS: Final = ", ".join(Delivery._fields)
_TOGETHER: Final = 100
"""SQLite takes 500 in one statement."""
_NEXT_DUE: Final = (
    "SELECT * FROM (SELECT endpoint, tenant, due_at_s FROM webhook_deliveries "
    "WHERE endpoint = ? AND tenant = ? AND due_at_s IS NOT NULL ORDER BY due_at_s LIMIT 1) AS next"
)
_ENDPOINT: Final = ", ".join(EndpointRow._fields)


def set_endpoints(wanted: Sequence[EndpointRow]) -> Operation[None]:
    """Those of the configuration. One that is another than before is told again although it had wanted no more."""
    rows = yield Statement(f"SELECT {_ENDPOINT} FROM webhook_endpoints")
    known = {row[0]: EndpointRow(*row) for row in rows}
    for name in known.keys() - {row.name for row in wanted}:
        yield Statement("DELETE FROM webhook_endpoints WHERE name = ?", (name,))
    for row in wanted:
        if (before := known.get(row.name)) is not None and before.fingerprint == row.fingerprint:
            continue
        yield Statement(
            "INSERT INTO webhook_endpoints VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET tenant = excluded.tenant, "
            "events = excluded.events, fingerprint = excluded.fingerprint, since_s = excluded.since_s, switched_off_s = excluded.switched_off_s",
            row,
        )


def endpoint_rows() -> Operation[list[EndpointRow]]:
    rows = yield Statement(f"SELECT {_ENDPOINT} FROM webhook_endpoints ORDER BY name")
    return [EndpointRow(*row) for row in rows]


def next_due(recipients: Sequence[tuple[str, str]]) -> Operation[dict[tuple[str, str], float]]:
    """recipients: names of endpoints, each with its tenant. When the next delivery of each is due, of those that have one: by an index, whatever else waits."""
    found: dict[tuple[str, str], float] = {}
    for start in range(0, len(recipients), _TOGETHER):
        some = recipients[start : start + _TOGETHER]
        rows = yield Statement(" UNION ALL ".join([_NEXT_DUE] * len(some)), tuple(chain.from_iterable(some)))
        found |= {(endpoint, tenant): due_at_s for endpoint, tenant, due_at_s in rows}
    return found


def claim(endpoint: str, tenant: str, gate: str, now_s: float, until_s: float, limit: int) -> Operation[list[Delivery]]:
    """Those that are due, the oldest first: they are this gate's until the time given.

    SECURITY: a name may have been another tenant's endpoint before, whose jobs nobody else is told of (test_deliveries.py).
    """
    rows = yield Statement(
        "UPDATE webhook_deliveries SET gate = ?, due_at_s = ? WHERE id IN (SELECT id FROM webhook_deliveries WHERE endpoint = ? AND tenant = ? "
        f"AND due_at_s <= ? ORDER BY due_at_s, id LIMIT ?) AND tenant = ? RETURNING {_COLUMNS}",
        (gate, until_s, endpoint, tenant, now_s, limit, tenant),
    )
    return [Delivery(*row) for row in rows]


def settle(delivery: Delivery, gate: str) -> Operation[bool]:
    """What has become of an attempt; False where another gate has taken it over meanwhile, unless it was delivered."""
    rows = yield Statement(
        "UPDATE webhook_deliveries SET gate = '', due_at_s = ?, attempts = ?, outcome = ?, tried_at_s = ?, note = ? "
        "WHERE id = ? AND tenant = ? AND (gate = ? OR ? = ?) RETURNING id",
        (
            *(delivery.due_at_s, delivery.attempts, delivery.outcome, delivery.tried_at_s, delivery.note),
            *(delivery.id, delivery.tenant, gate, delivery.outcome, DELIVERED),
        ),
    )
    return bool(rows)


def switch_off(endpoint: str, tenant: str, now_s: float) -> Operation[None]:
    """The receiver wants no more: nothing that waits for it is sent, and nothing more is written down for it."""
    yield Statement(
        "UPDATE webhook_endpoints SET switched_off_s = ? WHERE name = ? AND tenant = ?", (now_s, endpoint, tenant)
    )
    yield Statement(
        "UPDATE webhook_deliveries SET due_at_s = NULL, gate = '', outcome = ? WHERE endpoint = ? AND tenant = ? AND due_at_s IS NOT NULL",
        (SWITCHED_OFF, endpoint, tenant),
    )


def resend(ids: Sequence[str], now_s: float) -> Operation[list[Delivery]]:
    """The operator wants them sent, now and as often as new ones; their endpoints are told again. Those that there are."""
    found = []
    for each in ids:
        rows = yield Statement(
            f"UPDATE webhook_deliveries SET due_at_s = ?, gate = '', attempts = 0, outcome = '' WHERE id = ? RETURNING {_COLUMNS}",
            (now_s, each),
        )
        for delivery in map(Delivery._make, rows):
            yield Statement(
                "UPDATE webhook_endpoints SET switched_off_s = NULL WHERE name = ? AND tenant = ?",
                (delivery.endpoint, delivery.tenant),
            )
            found.append(delivery)
    return found


def release(gate: str | None, now_s: float) -> Operation[None]:
    """What a gate that stops was sending is sent by whoever comes next; None: by a gate that is alone, and has just started."""
    if gate is None:
        yield Statement("UPDATE webhook_deliveries SET gate = '', due_at_s = ? WHERE gate <> ''", (now_s,))
    else:
        yield Statement("UPDATE webhook_deliveries SET gate = '', due_at_s = ? WHERE gate = ?", (now_s, gate))


def trim(tenant: str, kept: Kept) -> Operation[int]:
    """Deletes what is too old or too much of a tenant's; how many were still to be sent."""
    lost = 0
    for is_waiting, since_s in ((True, kept.waiting_since_s), (False, kept.done_since_s)):
        kind = f"tenant = ? AND due_at_s IS {'NOT NULL' if is_waiting else 'NULL'}"
        gone = yield Statement(
            f"DELETE FROM webhook_deliveries WHERE {kind} AND (COALESCE(event_at_s, ended_at_s) < ? OR id IN (SELECT id FROM webhook_deliveries "
            f"WHERE {kind} ORDER BY ended_at_s DESC, id LIMIT 1000000 OFFSET ?)) RETURNING id",
            (tenant, since_s, tenant, kept.most),
        )
        lost += len(gone) if is_waiting else 0
    return lost


def listing(tenant: str | None, is_waiting: bool | None, limit: int) -> Operation[list[Delivery]]:
    """The newest first. is_waiting: only those that are to be sent, or only the others."""
    wheres, parameters = ["1 = 1"], []
    if tenant is not None:
        wheres.append("tenant = ?")
        parameters.append(tenant)
    if is_waiting is not None:
        wheres.append(f"due_at_s IS {'NOT NULL' if is_waiting else 'NULL'}")
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM webhook_deliveries WHERE {' AND '.join(wheres)} ORDER BY ended_at_s DESC, id LIMIT ?",
        (*parameters, limit),
    )
    return [Delivery(*row) for row in rows]


def tenants() -> Operation[list[str]]:
    """Of whom there is anything."""
    rows = yield Statement("SELECT DISTINCT tenant FROM webhook_deliveries")
    return [tenant for (tenant,) in rows]


def waiting_counts() -> Operation[dict[str, int]]:
    """How many are to be sent, by tenant."""
    rows = yield Statement("SELECT tenant, COUNT(*) FROM webhook_deliveries WHERE due_at_s IS NOT NULL GROUP BY tenant")
    return {tenant: int(count) for tenant, count in rows}
