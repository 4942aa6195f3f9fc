"""Bodies with edits in them, to readers that take their time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from policy.media.editing import Edit
from policy.media.formats import own_workflow
from policy.principal import TenantId
from proxy.files.edited_bodies import EditedBody, EditedPart
from proxy.http.body_memory import BodyPlace, BodyRoom
from proxy.http.errors import LimitExceeded
from proxy.http.replies import Taker
from tests.policy.media.files import ALICE, REAL, SALTED, own, read_from
from tests.proxy.files.test_tenant_files import long_animation


class Source:
    def __init__(self, data: bytes, size: int = 3000) -> None:
        self._pieces = [data[start : start + size] for start in range(0, len(data), size)]

    async def pour(self, taker: Taker) -> None:
        for piece in self._pieces:
            if not taker.take(memoryview(piece)):
                await taker.ready()


class Slow:
    """Takes one piece at a time, and nothing before it is ready again."""

    def __init__(self) -> None:
        self.body = b""
        self._is_ready = True

    def take(self, piece: bytes | memoryview) -> bool:
        assert self._is_ready, "it was not asked whether it is"
        self._is_ready = False
        self.body += piece
        return False

    async def ready(self) -> None:
        self._is_ready = True


def room(bound: int = 10**9, wait_s: float = 0.0) -> BodyPlace:
    return BodyPlace(BodyRoom(2 * bound, bound), TenantId("alice"), wait_s)


async def work(function: Callable[[], bytes], size: int) -> bytes:
    assert size > 0
    return function()


@pytest.mark.parametrize("name", REAL)
async def test_a_slow_reader_gets_all_of_it(name: str) -> None:
    data, taker, found = REAL[name], Slow(), list[Sequence[Edit]]()
    body = EditedBody(Source(data), own_workflow(len(data), ALICE), work, room(), found.append)
    await body.pour(taker)
    assert taker.body == own(data)
    assert [list(each) for each in found] == [list(body.edits)] == [read_from(data, own_workflow(len(data), ALICE))]


@pytest.mark.parametrize("size", [1000, 100_000, 10**7])
async def test_a_slow_reader_of_a_long_text(size: int) -> None:
    data, taker = long_animation(3, text=SALTED.replace("alice/x", "alice/" + "x" * 500_000)), Slow()
    await EditedBody(Source(data, size), own_workflow(len(data), ALICE), work, room(), lambda _: None).pour(taker)
    assert taker.body == own(data)


async def test_large_texts_wait_for_room() -> None:
    """Of a tenant: the first one always fits, and gives its room back when it has left."""
    data = long_animation(3, text=SALTED.replace("alice/x", "alice/" + "x" * 500_000))
    shared = BodyRoom(2_400_000, 1_200_000)
    alice = TenantId("alice")

    class Meanwhile(Slow):
        """Another one comes while this one has not left."""

        async def ready(self) -> None:
            await super().ready()
            if shared.held_bytes:
                others.append(BodyPlace(shared, alice, 0.0))
                with pytest.raises(LimitExceeded):
                    await edited(others[-1]).pour(Slow())

    def edited(place: BodyPlace) -> EditedBody:
        return EditedBody(Source(data, 200_000), own_workflow(len(data), ALICE), work, place, lambda _: None)

    others: list[BodyPlace] = []
    taker = Meanwhile()
    await edited(BodyPlace(shared, alice, 0.0)).pour(taker)
    assert taker.body == own(data)
    assert others
    assert shared.held_bytes == 0


async def test_what_broke_off_is_not_known() -> None:
    class Breaking(Source):
        async def pour(self, taker: Taker) -> None:
            await super().pour(taker)
            raise ConnectionResetError

    found = list[Sequence[Edit]]()
    data = REAL["saved.png"]
    with pytest.raises(ConnectionResetError):
        await EditedBody(Breaking(data[:2000]), own_workflow(len(data), ALICE), work, room(), found.append).pour(Slow())
    assert not found


async def test_a_part_for_a_slow_reader() -> None:
    data, taker = REAL["film.mp4"], Slow()
    edits = read_from(data, own_workflow(len(data), ALICE))
    await EditedPart(Source(data[700:], 900), edits, 700).pour(taker)
    assert taker.body == own(data)[700:]
