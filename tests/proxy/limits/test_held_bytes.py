"""What ComfyUI holds of a tenant in memory is bounded, whatever its limits for uploads are."""

from __future__ import annotations

import pytest

from policy.principal import TenantId
from proxy.http.errors import LimitExceeded
from proxy.limits.held_bytes import HeldBytes

ALICE, BOB = TenantId("alice"), TenantId("bob")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_tenant_has_so_much_there_and_no_more() -> None:
    held = HeldBytes(100, 60.0, clock := Clock())
    held.add(ALICE, 60)
    clock.now_s += 10
    held.add(ALICE, 40)
    with pytest.raises(LimitExceeded) as refused:
        held.add(ALICE, 1)
    assert (refused.value.reason, refused.value.retry_after_s) == ("ids-full", 50.0)
    held.add(BOB, 100)


def test_what_was_refused_does_not_count() -> None:
    held = HeldBytes(100, 60.0, Clock())
    with pytest.raises(LimitExceeded):
        held.add(ALICE, 101)
    held.add(ALICE, 100)


def test_what_is_forgotten_there_is_forgotten_here() -> None:
    held = HeldBytes(100, 60.0, clock := Clock())
    held.add(ALICE, 60)
    clock.now_s += 30
    held.add(ALICE, 40)
    clock.now_s += 30
    held.add(ALICE, 60)
    with pytest.raises(LimitExceeded):
        held.add(ALICE, 1)
    clock.now_s += 60
    held.add(ALICE, 100)


def test_many_small_pieces_are_one_entry() -> None:
    held = HeldBytes(10_000, 60.0, clock := Clock())
    for _ in range(1000):
        clock.now_s += 0.0005
        held.add(ALICE, 1)
    assert len(held._held[ALICE]) == 1
    assert held._total[ALICE] == 1000
