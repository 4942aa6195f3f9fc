"""Every row of the route table, called by its owner, a neighbour, nobody, a revoked key and an admin: alice has things, mallory asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from policy.routes import AdminOnly, Deny, PassThrough, Prefix, Route
from policy.table import ROUTES
from tests.contract.conftest import REAL_URL, TARGETS
from tests.contract.driver import Answer
from tests.matrix.entries import ENTRIES
from tests.matrix.people import RED, is_color, picture_in, seen, told
from tests.matrix.settlers import Settled, send, settle
from tests.matrix.things import Things

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = [pytest.param(route, id=route.name) for route in ROUTES]
GETS = [pytest.param(route, id=route.name) for route in ROUTES if route.method == "GET"]
READS = [pytest.param(route, id=route.name) for route in ROUTES if not ENTRIES[route.name].changes]
CHANGES = [pytest.param(route, id=route.name) for route in ROUTES if ENTRIES[route.name].changes]
_NUMBERS = (b"0123456789", b"##########")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TARGETS)
async def settled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Settled]:
    real_url = REAL_URL if request.param == "real" else ""
    async with settle(tmp_path_factory.mktemp("matrix"), real_url) as settled:
        yield settled


async def test_every_row_has_an_entry_and_every_entry_a_row() -> None:
    assert {route.name for route in ROUTES} == set(ENTRIES), "say in entries.py how the new row is called"


def renamed(
    answer: Answer, one: Things, other: Things, *, with_copied: bool
) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    """What is said of one's things, as if it were said of the other's."""
    status, fields, body = seen(answer)
    for name, instead in one.beside(other, with_copied=with_copied):
        body = body.replace(name, instead)
        fields = tuple((key, value.replace(name.decode(), instead.decode())) for key, value in fields)
    return status, fields, body


def without_numbers(value: Any) -> Any:
    status, fields, body = value
    kept = tuple(pair for pair in fields if pair[0] != "content-length")
    return status, kept, body.translate(bytes.maketrans(*_NUMBERS)).replace(b"#", b"")


@pytest.mark.parametrize("route", ROWS)
async def test_a_neighbour_cannot_tell_what_is_foreign_from_nothing(settled: Settled, route: Route) -> None:
    """Byte for byte, and nothing has changed since the time before alice."""
    entry = ENTRIES[route.name]
    intact = [] if route.method == "GET" else await settled.look()
    for prefix in route.prefix.value:
        pairs = zip(entry.calls(settled.alices), entry.calls(settled.nothing), strict=True)
        for index, (foreign, absent) in enumerate(pairs):
            of_foreign = await send(settled.world.mallory, route.method, prefix, foreign)
            of_nothing = await send(settled.world.mallory, route.method, prefix, absent)
            before: Any = settled.before[route.name, prefix, index]
            found: list[Any] = [
                renamed(of_foreign, settled.alices, settled.nothing, with_copied=entry.changes),
                seen(of_nothing),
                before,
            ]
            if entry.varies:
                found = [without_numbers(each) for each in found]
            assert found[0] == found[1], f"{prefix}{foreign.path}"
            assert found[1] == found[2], f"{prefix}{foreign.path} was answered otherwise before alice came"
            assert of_foreign.status < 500, told(of_foreign)
    if route.method != "GET":
        assert await settled.look() == intact, "alice's things are as they were"


@pytest.mark.parametrize("route", GETS)
async def test_a_head_request_tells_no_more(settled: Settled, route: Route) -> None:
    entry = ENTRIES[route.name]
    for prefix in route.prefix.value:
        for foreign, absent in zip(entry.calls(settled.alices), entry.calls(settled.nothing), strict=True):
            found = [await send(settled.world.mallory, "HEAD", prefix, call) for call in (foreign, absent)]
            pair: list[Any] = [
                renamed(found[0], settled.alices, settled.nothing, with_copied=entry.changes),
                seen(found[1]),
            ]
            if entry.varies:
                pair = [without_numbers(each) for each in pair]
            assert pair[0] == pair[1], f"{prefix}{foreign.path}"


@pytest.mark.parametrize("route", ROWS)
async def test_without_a_good_credential_every_answer_is_the_same(settled: Settled, route: Route) -> None:
    entry = ENTRIES[route.name]
    world = settled.world
    sent = len(world.comfy.received) if world.comfy else 0
    for who in (world.nobody, world.revoked):
        tree = "/api/v2/jobs" if route.name.partition(" ")[2].startswith(("/api/v2/jobs", "/api/v2/assets")) else ""
        first = seen(await who.call("GET", f"{tree}/nothing/at/all", headers={"X-Request-Id": "matrix"}))
        assert first[0] == 401
        for prefix in route.prefix.value:
            for things in (settled.alices, settled.nothing):
                for call in entry.calls(things):
                    assert seen(await send(who, route.method, prefix, call)) == first, f"{prefix}{call.path}"
    asked = [call.raw_path for call in world.comfy.received[sent:]] if world.comfy else []
    # What the gate asks for itself, now and then, to see what runs.
    assert [path for path in asked if not path.startswith("/api/jobs?status=pending")] == [], "ComfyUI is not asked"


@pytest.mark.parametrize("route", ROWS)
async def test_an_admin_sees_comfyui_as_it_is(settled: Settled, route: Route) -> None:
    entry = ENTRIES[route.name]
    things = settled.nothing if entry.changes else settled.alices.for_admin()
    for prefix in route.prefix.value:
        answers = []
        for call in entry.calls(things):
            answer = await send(settled.world.admin, route.method, prefix, call)
            answers.append(answer)
            if isinstance(route.admin, Deny):
                assert answer.status == 403, told(answer)
                continue
            assert answer.status not in (401, 403), told(answer)
            if isinstance(route.admin, PassThrough) and settled.world.comfy is not None:
                received = settled.world.standin.received
                # But for what the gate asks for itself, now and then.
                last = next(each for each in reversed(received) if not _is_the_gates_look(each.raw_path, call.path))
                assert (last.method, last.raw_path.endswith(call.path)) == (route.method, True), last.raw_path
                assert "Authorization" not in last.headers
        has_jobs = ("GET /queue", "GET /history", *(("GET /api/jobs",) if settled.world.direct.is_current else ()))
        if route.name in has_jobs:
            text = b"".join(answer.body for answer in answers).decode()
            assert not [word for word in entry.shows(settled.alices) if word not in text]


def _is_the_gates_look(asked: str, call: str) -> bool:
    return asked.startswith("/api/jobs?status=pending") and not asked.endswith(call)


@pytest.mark.parametrize("route", READS)
async def test_the_owner_sees_its_own(settled: Settled, route: Route) -> None:
    await _call_as_owner(settled, route)


async def test_the_upgrade_is_for_whoever_has_a_credential(settled: Settled) -> None:
    """The row whose answer is a WebSocket: mallory takes alice's client id, and alice's own socket goes on."""
    world = settled.world
    sid, nobodys = settled.alices.client_id + "2", settled.nothing.client_id + "2"
    alices = await world.alice.connect(sid)
    for who in (world.nobody, world.revoked):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await who.connect(sid)
        assert refused.value.status == 401
    first = []
    for name in (sid, nobodys):
        world.mallory.own_words = {name.encode()}
        socket = await world.mallory.connect(name, "/api/ws")
        assert await socket.is_silent()
        first.append(str(socket.seen).replace(name, "sid"))
        await socket.close()
    assert first[0] == first[1]
    progress = await settled.ear.event("progress", settled.alices.running)
    assert progress["prompt_id"] == settled.alices.running
    assert await alices.is_silent(), "it is open, and nobody took it over"
    await alices.close()


@pytest.mark.parametrize("route", CHANGES)
async def test_the_owner_changes_its_own(settled: Settled, route: Route) -> None:
    await _call_as_owner(settled, route)


async def _call_as_owner(settled: Settled, route: Route) -> None:
    entry = ENTRIES[route.name]
    for prefix in route.prefix.value[:1]:
        answers = [await send(settled.world.alice, route.method, prefix, call) for call in entry.calls(settled.alices)]
        statuses = tuple(answer.status for answer in answers)
        if route.prefix is Prefix.JOBS and not settled.world.direct.is_current:
            assert set(statuses) <= {404, 405}, "0.3.64 has no such route, and says so itself"
            continue
        if isinstance(route.tenant, AdminOnly | Deny):
            assert set(statuses) == {403}
        elif entry.owner != (0,):
            assert statuses == entry.owner, [told(answer) for answer in answers]
        text = b"".join(answer.body for answer in answers).decode("utf-8", "replace")
        assert not [word for word in entry.shows(settled.alices) if word not in text], text
        if route.name == "GET /view":
            pictures = [picture_in(answer.body) for answer in answers]
            assert all(picture is not None and is_color(picture, RED) for picture in pictures)


async def test_the_neighbours_socket_heard_of_nothing(settled: Settled) -> None:
    """Last, when all is done: her socket has alice's client id and was open all the time."""
    world = settled.world
    await world.alice.post("/queue", json={"clear": True})
    await world.alice.post("/interrupt", json={})
    before = len(settled.spy.seen)
    prompt_id = await world.mallory.queue(
        {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        },
        client_id=settled.alices.client_id,
    )
    await settled.spy.end_of(prompt_id)
    heard = settled.spy.seen[before:]
    first = next(index for index, message in enumerate(heard) if "prompt_id" in message["data"])
    counts = [message["data"]["status"]["exec_info"]["queue_remaining"] for message in heard[:first]]
    assert set(counts) <= {0, 1}, "her own count"
    assert {message["data"].get("prompt_id", prompt_id) for message in heard} == {prompt_id}
    assert not settled.spy.binary
