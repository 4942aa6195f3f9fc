"""Jobs whose events nobody listens to by name: without a client id, or with one whose socket comes later. Their tenant hears them, nobody else."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.contract.driver import TIMEOUT_S, images_of, previewing, saving, slow
from tests.matrix.people import NUMBERS, Listener, told, unique
from tests.matrix.test_restarts import drop
from tests.matrix.world import World


async def heard(socket: Listener) -> str:
    """All that came before the answer to a ping."""
    await socket.connection.ping()
    while (message := await socket.connection.receive(timeout=TIMEOUT_S)).type is not aiohttp.WSMsgType.PONG:
        socket.tenant.inspect(str(message.data).encode())
        if message.type is aiohttp.WSMsgType.TEXT:
            socket.seen.append(message.json())
    return str(socket.seen)


@pytest.mark.parametrize("comes", ["before", "while it waits"])
async def test_events_of_a_job_without_a_client_id_go_to_all_sockets_of_its_tenant(world: World, comes: str) -> None:
    alice, mallory = world.alice, world.mallory
    spy = await mallory.connect(unique("sid"))
    first = await alice.connect(unique("sid"))
    running = await alice.queue(slow(60.0, 6000), client_id=first.sid)
    await first.event("progress", running)
    second = await alice.connect(unique("sid")) if comes == "before" else None
    unnamed = await alice.queue(previewing(NUMBERS["alice"] ^ 1))
    if second is None:
        second = await alice.connect(unique("sid"))
    mallory.secrets.add(unnamed.encode())
    await alice.post("/interrupt", json={"prompt_id": running})
    for socket in (first, second):
        await socket.end_of(unnamed)
        kinds = [kind for kind in socket.types(unnamed) if kind.startswith("exec")]
        assert kinds[0] == "execution_start"
        assert {"executed", "execution_success"} <= set(kinds)
        assert kinds.count("execution_success") == 1
    assert running not in str(second.seen)
    (image,) = images_of(await alice.history(unnamed))
    assert (await alice.file(image)).status == 200
    assert unnamed not in await heard(spy)
    for socket in (first, second, spy):
        await socket.close()


async def test_a_neighbours_unnamed_job_is_not_heard_through_ones_own(world: World) -> None:
    """Both tenants listen for jobs without a client id."""
    ears = {tenant.who: await tenant.connect(unique("sid")) for tenant in (world.alice, world.mallory)}
    jobs = {
        tenant.who: await tenant.queue(saving("unnamed", NUMBERS[tenant.who]))
        for tenant in (world.alice, world.mallory)
    }
    for who, other in (("alice", "mallory"), ("mallory", "alice")):
        await ears[who].end_of(jobs[who])
        assert jobs[other] not in str(ears[who].seen)
    for who, other in (("alice", "mallory"), ("mallory", "alice")):
        assert jobs[other] not in await heard(ears[who])
        await ears[who].close()


async def test_a_socket_that_comes_after_the_end_is_told_of_it(world: World) -> None:
    alice, sid = world.alice, unique("late")
    prompt_id = await alice.queue(previewing(NUMBERS["alice"] ^ 2), client_id=sid)
    while not (await alice.get(f"/history/{prompt_id}")).json():
        await asyncio.sleep(0)
    spy, other = await world.mallory.connect(sid), await alice.connect(unique("other"))
    late = await alice.connect(sid)
    await late.end_of(prompt_id)
    kinds = late.types(prompt_id)
    assert kinds[0] == "execution_start"
    assert kinds[-2:] == ["execution_success", "executing"]
    executed = next(each["data"] for each in late.seen if each["type"] == "executed")
    assert executed["output"]["images"] == images_of(await alice.history(prompt_id)), told(
        await alice.get(f"/history/{prompt_id}")
    )
    for socket in (spy, other):
        assert prompt_id not in await heard(socket)
    for socket in (spy, other, late):
        await socket.close()


async def test_a_job_that_was_heard_is_told_once(world: World) -> None:
    alice, sid = world.alice, unique("early")
    socket = await alice.connect(sid)
    for color in (1, 2):
        prompt_id = await alice.queue(saving("once", color), client_id=sid)
        await socket.end_of(prompt_id)
        while world.running.gate.dependencies.registry.active():
            await asyncio.sleep(0)
        await heard(socket)
        assert socket.types(prompt_id).count("execution_success") == 1
    await socket.close()


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "while another job waits"])
@pytest.mark.parametrize("is_orderly", [True, False], ids=["closed", "broken"])
async def test_a_socket_that_is_opened_again_is_not_told_what_the_one_before_heard(
    world: World, is_orderly: bool, is_busy: bool
) -> None:
    """Clients with one id for all their jobs take the first end that comes for the end of the job that they have just sent."""
    alice, sid = world.alice, unique("again")
    first = await alice.connect(sid)
    ended = await alice.queue(saving("again", 3), client_id=sid)
    await first.end_of(ended)
    while world.running.gate.dependencies.registry.active():
        await asyncio.sleep(0)
    other = await alice.connect(unique("other"))
    running = await alice.queue(slow(60.0, 6000), client_id=other.sid) if is_busy else None
    if running is not None:
        await other.event("progress", running)
    await first.close() if is_orderly else drop(first)
    second = await alice.connect(sid)
    sent = await alice.queue(saving("again", 4), client_id=sid)
    if running is not None:
        await alice.post("/interrupt", json={"prompt_id": running})
    await second.end_of(sent)
    assert (ended in await heard(second)) is not is_orderly, "a broken connection may have lost the end on its way"
    for socket in (second, other):
        await socket.close()
