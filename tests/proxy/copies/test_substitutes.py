"""What is known of files in the bucket that jobs read of a ComfyUI that is away: found out beside the dispatcher, and each tenant keeps its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, cast

import pytest

from policy.call import UpstreamPath
from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from proxy.copies import substitutes
from proxy.copies.reader import CopyReader
from proxy.copies.substitutes import LOOK_AGAIN_S, MAX_WANTED, File, Substitutes

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
NOBODYS = TenantId("nobody")


class Bucket:
    """Stands for the reader: which files are looked for, in which order. There are those of these tenants."""

    def __init__(self, *tenants: TenantId) -> None:
        self.tenants = tenants
        self.asked: list[tuple[TenantId, str]] = []

    async def find_copy_instead(self, tenant: TenantId, folder: Folder, path: UpstreamPath) -> object | None:
        self.asked.append((tenant, path))
        await asyncio.sleep(0)
        return object() if tenant in self.tenants else None


class House:
    def __init__(self, *tenants: TenantId) -> None:
        self.bucket, self.now_s, self.woken = Bucket(*tenants), 0.0, 0
        self.substitutes = Substitutes(cast("CopyReader", self.bucket), self._wake, lambda: self.now_s)

    def _wake(self) -> None:
        self.woken += 1

    async def has(self, tenant: TenantId, *files: File) -> bool:
        """What is known when it was looked for."""
        self.substitutes.has(tenant, files)
        self.substitutes.look()
        while vars(self.substitutes)["_is_looking"]:
            await asyncio.sleep(0)
        return self.substitutes.has(tenant, files)


def file(tenant: TenantId, number: int = 0) -> File:
    return Folder.OUTPUT, Namespace(tenant).path_to_upstream(f"{number}.png")


async def test_it_is_looked_for_once_and_believed_for_a_while() -> None:
    house = House(ALICE)
    assert await house.has(ALICE, file(ALICE), file(ALICE, 1))
    assert await house.has(ALICE, file(ALICE))
    assert (len(house.bucket.asked), house.woken) == (2, 2)
    house.now_s += LOOK_AGAIN_S
    assert not house.substitutes.has(ALICE, [file(ALICE)])
    assert await house.has(ALICE, file(ALICE))
    assert len(house.bucket.asked) == 3
    await house.substitutes.stop()


async def test_what_is_not_there_wakes_nobody() -> None:
    house = House(ALICE)
    assert not await house.has(MALLORY, file(MALLORY))
    assert not await house.has(MALLORY, file(MALLORY))
    assert (len(house.bucket.asked), house.woken) == (1, 0)


async def test_tenants_take_turns_and_want_a_bounded_number_each() -> None:
    house = House()
    for number in range(2 * MAX_WANTED):
        house.substitutes.has(MALLORY, [file(MALLORY, number)])
    assert not await house.has(ALICE, file(ALICE))
    assert house.bucket.asked[1] == (ALICE, file(ALICE)[1])
    assert Counter(tenant for tenant, _ in house.bucket.asked) == {MALLORY: MAX_WANTED, ALICE: 1}


async def test_many_are_forgotten_at_once_and_of_many_tenants_with_few_each_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tenants = [TenantId(f"tenant-{number}") for number in range(300)]
    monkeypatch.setattr(substitutes, "MAX_KNOWN", 640)
    house = House(ALICE, *tenants)
    for number in range(2):
        for tenant in tenants:
            assert await house.has(tenant, file(tenant, number))
    for number in range(41):
        assert await house.has(ALICE, file(ALICE, number))
    known: dict[TenantId, Any] = vars(house.substitutes)["_known"]
    assert len(known[ALICE]) == 31
    assert [len(known[tenant]) for tenant in tenants] == [2] * 300
    for tenant in tenants:
        assert await house.has(tenant, file(tenant, 2))
    assert {len(known.get(tenant, ())) for tenant in (ALICE, *tenants)} <= {1, 2, 3}
    assert sum(map(len, known.values())) == vars(house.substitutes)["_count"] <= 640
    monkeypatch.setattr(substitutes, "MAX_KNOWN", 0)
    while known:
        house.substitutes._forget_some()
    assert vars(house.substitutes)["_count"] == 0


async def test_who_asks_for_most_forgets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(substitutes, "MAX_KNOWN", 20)
    house = House(ALICE, MALLORY, NOBODYS)
    for number in range(5):
        assert await house.has(ALICE, file(ALICE, number))
    for number in range(50):
        assert await house.has(MALLORY, file(MALLORY, number))
    assert await house.has(NOBODYS, file(NOBODYS))
    asked = len(house.bucket.asked)
    assert await house.has(ALICE, *(file(ALICE, number) for number in range(5)))
    assert await house.has(MALLORY, *(file(MALLORY, number) for number in range(36, 50)))
    assert len(house.bucket.asked) == asked, "all of this is known"
    assert not house.substitutes.has(MALLORY, [file(MALLORY, 35)])
    known: dict[TenantId, Any] = vars(house.substitutes)["_known"]
    assert sum(map(len, known.values())) == vars(house.substitutes)["_count"] == 20
