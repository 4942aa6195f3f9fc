"""Kept documents of jobs: bounded by tenant and in all, and of their tenant alone."""

from __future__ import annotations

from policy.documents import Document, Kind
from policy.principal import TenantId
from proxy.jobs.kept_documents import MAX_UNWRITTEN_BYTES, KeptDocuments

ALICE, BOB, CAROL = TenantId("alice"), TenantId("bob"), TenantId("carol")


def entry(size: int) -> Document:
    return Document(Kind.ENTRY, b"x" * size, size)


def test_each_tenant_has_its_own() -> None:
    kept = KeptDocuments()
    kept.put(ALICE, "1", entry(10))
    assert kept.of(ALICE).get(Kind.ENTRY, "1") is not None
    assert kept.of(BOB).get(Kind.ENTRY, "1") is None
    assert kept.of(ALICE).get(Kind.ROW, "1") is None
    kept.forget(BOB, "1")
    kept.forget(ALICE, "1", Kind.ROW)
    assert kept.of(ALICE).get(Kind.ENTRY, "1") is not None
    kept.forget(ALICE, "1")
    assert kept.held_bytes == 0


def test_the_oldest_of_a_tenant_gives_way_to_its_newest() -> None:
    kept = KeptDocuments(max_tenant_bytes=3000, max_bytes=10_000)
    kept.put(BOB, "0", entry(2000))
    for number in range(5):
        kept.put(ALICE, str(number), entry(1000))
    assert [number for number in range(5) if kept.get(ALICE, Kind.ENTRY, str(number))] == [3, 4]
    kept.put(ALICE, "3", entry(1))
    kept.put(ALICE, "huge", entry(3000))
    assert kept.get(ALICE, Kind.ENTRY, "huge") is None
    assert kept.get(ALICE, Kind.ENTRY, "4") is not None
    assert kept.get(BOB, Kind.ENTRY, "0") is not None


def test_when_all_is_too_much_who_has_most_gives_way() -> None:
    kept = KeptDocuments(max_tenant_bytes=5000, max_bytes=6000)
    for number in range(3):
        kept.put(ALICE, str(number), entry(1000))
    kept.put(BOB, "0", entry(500))
    kept.put(CAROL, "0", entry(1500))
    assert kept.get(ALICE, Kind.ENTRY, "0") is None
    assert None not in (kept.get(BOB, Kind.ENTRY, "0"), kept.get(CAROL, Kind.ENTRY, "0"))
    assert kept.held_bytes <= 6000


def test_so_much_may_come_unwritten() -> None:
    kept = KeptDocuments(max_tenant_bytes=2 * MAX_UNWRITTEN_BYTES, max_bytes=8 * MAX_UNWRITTEN_BYTES)

    def put(tenant: TenantId, name: str, size: int) -> None:
        kept.put(tenant, name, Document(Kind.ITEM, bytes(size), size, write=lambda: entry(1)))

    assert kept.of(ALICE).has_room(MAX_UNWRITTEN_BYTES)
    assert not kept.of(ALICE).has_room(MAX_UNWRITTEN_BYTES + 1)
    kept.put(ALICE, "written", entry(MAX_UNWRITTEN_BYTES))
    assert kept.of(ALICE).has_room(MAX_UNWRITTEN_BYTES)
    put(ALICE, "1", 10)
    assert not kept.of(ALICE).has_room(MAX_UNWRITTEN_BYTES - 9)
    assert kept.of(BOB).has_room(MAX_UNWRITTEN_BYTES - 9)
    kept.put(ALICE, "1", Document(Kind.ITEM, bytes(10), 10))
    assert kept.of(ALICE).has_room(MAX_UNWRITTEN_BYTES)
    put(ALICE, "2", 10)
    kept.forget(ALICE, "2")
    assert kept.of(ALICE).has_room(MAX_UNWRITTEN_BYTES)
    for number, tenant in enumerate((BOB, CAROL)):
        put(tenant, str(number), MAX_UNWRITTEN_BYTES * 3 // 2)
    assert not kept.of(ALICE).has_room(MAX_UNWRITTEN_BYTES), "all together hold much"
