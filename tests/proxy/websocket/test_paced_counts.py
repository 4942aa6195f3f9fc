"""When clients are sent the count of their tenant's jobs."""

from __future__ import annotations

from collections.abc import Callable

from policy.principal import TenantId
from proxy.websocket.paced_counts import PacedCounts

ALICE, BOB = TenantId("alice"), TenantId("bob")


def test_the_first_change_is_told_at_once_and_the_last_one_soon() -> None:
    told: list[TenantId] = []
    due: list[Callable[[], None]] = []
    counts = PacedCounts(told.append, lambda _, callback, tenant: due.append(lambda: callback(tenant)))
    for tenant in (ALICE, ALICE, BOB, ALICE):
        counts.changed(tenant)
    assert told == [ALICE, BOB]
    due.pop(0)()
    assert told == [ALICE, BOB, ALICE], "changed since"
    due.pop(0)()
    assert told == [ALICE, BOB, ALICE], "not changed since"
    counts.changed(BOB)
    assert told == [ALICE, BOB, ALICE, BOB], "long after the one before"
    due.pop(0)()
    counts.changed(ALICE)
    assert told == [ALICE, BOB, ALICE, BOB, ALICE]
