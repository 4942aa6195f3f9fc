"""Several ComfyUIs: which sockets a session has, what its client hears of each, and what becomes of both when one is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from policy.principal import TenantId
from policy.rules.results import SDK_CLIENT
from proxy.http.websocket import Close
from proxy.jobs.job import Job, JobState, Outcome
from proxy.websocket import kept_sockets
from proxy.websocket.connections import EVENT_TOO_BIG, GATE_STOPS
from proxy.websocket.event_session import FLAGS
from tests.proxy.fake_socket import FakeSocket
from tests.proxy.upstreams import GUARD_S
from tests.proxy.websocket.sessions import ALICE, FakeUpstream, Sessions, heard, kinds, run

MALLORY = TenantId("mallory")
CLIENT_FLAGS = '{"type": "feature_flags", "data": {"supports_preview_metadata": false}}'


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sessions]:
    monkeypatch.setattr(kept_sockets, "_TRY_AGAIN_S", (0.0,))
    made = Sessions()
    yield made
    for upstream in (made.first, made.second):
        upstream.gate.set()
    await made.sessions.stop()
    assert made.first.open == made.second.open == 0


async def test_a_client_hears_its_job_wherever_it_runs(world: Sessions) -> None:
    client = await world.client()
    assert world.second.sockets == []
    job = world.job()
    await world.sockets.prepare(job)
    assert world.second.ids == world.first.ids == ["alice.tab"]
    world.second.newest.event("status", status={"exec_info": {"queue_remaining": 9}}, sid="alice.tab")
    world.second.newest.event("feature_flags", supports_preview_metadata=True)
    run(world.second.newest, job)
    assert kinds(client) == ["execution_start", "executing", "preview", "executed", "execution_success"]
    assert (job.state, job.is_over) == (JobState.RUNNING, True)


async def test_one_socket_does_for_all_jobs_of_a_client_and_none_is_opened_for_nobody(world: Sessions) -> None:
    await world.sockets.prepare(world.job())
    assert world.second.sockets == [], "no session"
    await world.client()
    await world.until_open(world.second, 1)
    await world.sockets.prepare(world.job())
    await world.sockets.prepare(world.job("gpu-1"))
    await world.sockets.prepare(world.job(client_id="other"))
    assert len(world.second.sockets) == len(world.first.sockets) == 1


async def test_a_neighbour_hears_nothing_under_whatever_id(world: Sessions) -> None:
    alice = await world.client()
    others = [await world.client(name, MALLORY) for name in ("tab", "alice.tab", "gpu-2")]
    job = world.job()
    await world.sockets.prepare(job)
    assert world.second.ids == ["alice.tab"]
    world.job(tenant=MALLORY)
    await world.sockets.prepare(world.job(tenant=MALLORY))
    run(world.second.newest, job)
    run(world.first.newest, job)
    assert [kinds(other) for other in others] == [[], [], []]
    run(world.second.sockets[0], job)
    assert "executed" in kinds(alice)


async def test_what_a_comfyui_goes_on_with_that_another_one_has_is_nothing_of_the_jobs(world: Sessions) -> None:
    """It was away, and makes what it is asked for no more: a file of that name may be a neighbour's where the job is."""
    client = await world.client()
    job = world.job()
    await world.sockets.prepare(job)
    shown = {"images": [{"filename": "x_00001_.png", "subfolder": "", "type": "temp"}]}
    own = world.registry.of(ALICE)

    def makes(socket: FakeSocket) -> None:
        socket.event("execution_start", prompt_id=job.prompt_id)
        socket.event("executed", prompt_id=job.prompt_id, node="1", output=shown)

    job.comfyui = "gpu-1"
    makes(world.second.newest)
    world.second.newest.event("execution_success", prompt_id=job.prompt_id)
    assert (kinds(client), job.state, job.is_over) == ([], JobState.SENT, False)
    assert not own.has_temp_file("x_00001_.png")
    job.state = JobState.WAITING
    makes(world.second.newest)
    assert not own.has_temp_file("x_00001_.png"), "it waits again, and this gate has not been told whose it is"
    world.registry.sent(job)
    makes(world.first.newest)
    assert kinds(client)[-2:] == ["execution_start", "executed"]
    assert own.has_temp_file("x_00001_.png")


async def test_each_comfyui_hears_a_clients_flags_once(world: Sessions) -> None:
    await world.client()
    await world.sockets.prepare(world.job())
    session = world.session()
    session.from_client(CLIENT_FLAGS)
    world.first.newest.event("feature_flags", supports_preview_metadata=True)
    session.from_client(CLIENT_FLAGS)
    assert len(world.first.newest.sent) == len(world.second.newest.sent) == 1
    world.second.newest.ends(Close(1006, ""), is_said=False)
    await world.until_open(world.second, 1)
    assert world.second.newest.sent == world.second.sockets[0].sent != []


async def test_jobs_of_the_api_are_heard_with_the_nodes_of_their_previews(world: Sessions) -> None:
    await world.sessions.hear(ALICE, world.registry.of(ALICE), SDK_CLIENT)
    await world.sockets.prepare(world.job(client_id=SDK_CLIENT))
    assert (world.second.ids, world.second.newest.sent) == (["alice.api-v2"], [FLAGS])


async def test_what_no_client_named_is_told_to_all_of_the_tenants(world: Sessions) -> None:
    clients = [await world.client(), await world.client("other")]
    neighbour = await world.client(tenant=MALLORY)
    job = world.job(client_id="")
    await world.sessions.listen(ALICE, world.registry.of(ALICE))
    await world.sockets.prepare(job)
    run(world.second.newest, job)
    assert ["executed" in kinds(client) for client in (*clients, neighbour)] == [True, True, False]


async def test_who_comes_back_gets_what_came_of_each(world: Sessions) -> None:
    first = await world.client()
    here, there = world.job("gpu-1"), world.job()
    await world.sockets.prepare(there)
    run(world.first.newest, here, until="executing")
    run(world.second.newest, there, until="executed")
    world.session().detach(first)
    world.sessions.leave(world.session())
    run(world.first.newest, here)
    again = await world.client()
    shown = [(frame["type"], frame["data"].get("prompt_id")) for frame in heard(again)]
    assert shown.count(("execution_start", here.prompt_id)) == 1
    assert shown.count(("execution_start", there.prompt_id)) == 1
    assert ("execution_success", here.prompt_id) in shown
    assert len(world.first.sockets) == len(world.second.sockets) == 1


async def test_a_client_stays_while_a_comfyui_is_away(world: Sessions) -> None:
    """It is sent nothing that it would take for a new connection, and hears what runs then."""
    client = await world.client()
    world.first.newest.event("status", status={"exec_info": {"queue_remaining": 0}}, sid="alice.tab")
    job = world.job()
    await world.sockets.prepare(job)
    assert kinds(client) == []
    for upstream in (world.first, world.second):
        upstream.is_away = True
        upstream.newest.ends(Close(1006, ""), is_said=False)
    for _ in range(20):
        await asyncio.sleep(0)
    world.first.is_away = world.second.is_away = False
    await world.until_open(world.first, 1)
    await world.until_open(world.second, 1)
    world.first.newest.event("status", status={"exec_info": {"queue_remaining": 0}}, sid="alice.tab")
    run(world.second.newest, job)
    assert kinds(client)[0] == "execution_start"
    assert not client.is_closed


async def test_nobody_asks_a_comfyui_that_is_known_to_be_away(world: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_sockets, "_TRY_AGAIN_S", (3600.0,))
    await world.client()
    world.away |= {"", "gpu-2"}
    await world.sockets.prepare(world.job())
    world.first.newest.ends(Close(1006, ""), is_said=False)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (len(world.first.sockets), len(world.second.sockets)) == (1, 0)
    world.sockets.connected("gpu-2")
    await world.until_open(world.second, 1)
    world.sockets.connected("")
    await world.until_open(world.first, 1)


async def test_however_much_is_told_of_jobs_one_socket_is_opened_at_a_time(world: Sessions) -> None:
    await world.client()
    world.second.gate.clear()
    for job in (world.job(), world.job(), world.job()):
        world.sessions.job_changed(job)
    assert len(world.sockets._kept._tasks._tasks) == 1
    world.second.gate.set()
    await world.until_open(world.second, 1)
    assert len(world.second.sockets) == 1


async def test_a_client_that_comes_while_the_first_is_away_is_greeted_all_the_same(world: Sessions) -> None:
    world.first.is_away = True
    client = await world.client()
    await world.sockets.prepare(job := world.job())
    run(world.second.newest, job)
    world.first.is_away = False
    await world.until_open(world.first, 1)
    assert "execution_success" in kinds(client)


async def test_a_socket_that_no_job_needs_is_closed_and_opened_anew(
    world: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_sockets, "LOOK_EACH_S", 0.0)
    client = await world.client()
    job = world.job()
    await world.sockets.prepare(job)
    run(world.second.newest, job)
    world.second.newest.may_close.clear()
    old = world.second.newest
    world.registry.end(job)
    async with asyncio.timeout(GUARD_S):
        while not world.session().at("gpu-2").is_closing:
            await asyncio.sleep(0)
    preparing = asyncio.ensure_future(world.sockets.prepare(another := world.job()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(world.second.sockets) == 1, "ComfyUI would forget the newer one when the older one closes"
    old.may_close.set()
    await preparing
    run(world.second.newest, another)
    assert kinds(client).count("execution_success") == 2


async def test_a_session_that_closes_waits_for_a_socket_on_its_way(world: Sessions) -> None:
    await world.client()
    world.second.gate.clear()
    preparing = asyncio.ensure_future(world.sockets.prepare(world.job()))
    for _ in range(20):
        await asyncio.sleep(0)
    world.session().close()
    await world.until_open(world.first, 0)
    coming = asyncio.ensure_future(world.client())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not coming.done()
    world.second.gate.set()
    await asyncio.gather(coming, preparing)
    await world.until_open(world.second, 1)
    assert world.second.ids == ["alice.tab"] * 2


async def test_a_session_that_closes_with_no_socket_is_over_at_once(world: Sessions) -> None:
    world.first.is_away = True
    client = await world.client()
    session = world.session()
    session.close(GATE_STOPS)
    async with asyncio.timeout(GUARD_S):
        await session.wait_until_ended()
    assert not session.is_open
    assert client.take() == GATE_STOPS
    assert world.sessions.stream(ALICE, "tab") is None


async def test_an_event_that_is_too_large_ends_the_clients_socket_and_says_so(world: Sessions) -> None:
    client = await world.client()
    await world.sockets.prepare(world.job())
    world.second.newest.ends(Close(1009, "too large"), is_said=False)
    await world.until_open(world.first, 0)
    heard(client)
    assert client.take() == EVENT_TOO_BIG


def entry_of(job: Job) -> dict[str, Any]:
    told = {"prompt_id": job.prompt_id, "timestamp": 1}
    messages = [["execution_start", told], ["execution_success", told]]
    return {"status": {"status_str": "success", "messages": messages}, "outputs": {"1": {"images": []}}}


@pytest.mark.parametrize(
    ("until", "is_lost", "is_back"),
    [
        ("execution_success", False, False),
        ("execution_success", True, False),
        ("executing", True, False),
        ("executing", True, True),
        (None, False, False),
    ],
    ids=["all was heard", "all was heard, and lost", "its socket broke", "and came back", "nothing was heard"],
)
async def test_at_the_end_a_client_is_told_what_it_missed_and_nothing_twice(
    world: Sessions, until: str | None, is_lost: bool, is_back: bool
) -> None:
    client = await world.client()
    job = world.job()
    world.entry = entry_of(job)
    if until is not None:
        await world.sockets.prepare(job)
        run(world.second.newest, job, until=until)
    world.second.is_away = not is_back
    if is_lost:
        world.second.newest.ends(Close(1006, ""), is_said=False)
        await world.until_open(world.second, int(is_back))
    job.outcome = Outcome.COMPLETED
    world.registry.end(job)
    world.sessions.job_ended(job)
    world.sessions.job_changed(job)
    await world.sessions._tasks.finish()
    told = kinds(client)
    assert (told.count("execution_start"), told.count("execution_success")) == (1, 1)


async def test_what_is_told_of_a_job_that_has_ended_comes_after_the_greeting(world: Sessions) -> None:
    """Clients wait for the frame with their id first; the gate may know of the end before ComfyUI greets a socket that is opened anew."""
    job = world.job("gpu-1")
    world.entry = entry_of(job)
    job.outcome = Outcome.COMPLETED
    world.registry.end(job)
    client = await world.client()
    world.sessions.job_ended(job)
    await world.sessions._tasks.finish()
    world.first.newest.event("status", status={"exec_info": {"queue_remaining": 0}}, sid="alice.tab")
    told = kinds(client)
    assert told[0] == "execution_start"
    assert "status" not in told, "it was greeted before"


async def test_with_other_gates_sockets_are_open_before_they_give_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives the job has no session of its client's."""
    monkeypatch.setattr(kept_sockets, "LOOK_EACH_S", 0.0)
    world = Sessions(has_other_gates=True)
    client = await world.client()
    await world.until_open(world.second, 1)
    world.session().detach(client)
    await world.until_open(world.second, 0)
    job = world.registry.claim(ALICE, None, client_id="tab")
    job.state = JobState.WAITING
    world.sessions.job_changed(job)
    await world.until_open(world.second, 1)
    await world.sessions.hear(ALICE, world.registry.of(ALICE), SDK_CLIENT)
    assert world.second.ids == ["alice.tab"] * 2
    await world.sessions.stop()


async def test_a_job_that_another_gate_gives_is_heard_as_soon_as_that_is_known(world: Sessions) -> None:
    await world.client()
    world.sessions.job_changed(world.job())
    await world.until_open(world.second, 1)


async def test_where_a_socket_is_opened_while_jobs_run_each_node_is_of_its_own_comfyuis_job(world: Sessions) -> None:
    here, there = world.job("gpu-1"), world.job()
    for job in (here, there):
        world.registry.start(job)
    await world.client()
    await world.until_open(world.second, 1)
    world.first.newest.event("executing", node="7")
    world.second.newest.event("executing", node="8")
    assert world.registry.of(ALICE).running_nodes() == {here.prompt_id: {"7"}, there.prompt_id: {"8"}}


async def test_to_one_that_goes_the_sockets_are_closed_and_the_client_stays(world: Sessions) -> None:
    client = await world.client()
    job = world.job()
    await world.sockets.prepare(job)
    run(world.second.newest, job)
    heard(client)
    world.sockets.change({})
    await world.until_open(world.second, 0)
    assert world.session().is_open
    assert world.first.open == 1
    assert heard(client) == []
    await world.sockets.prepare(world.job())
    assert world.second.open == 0, "it is nowhere"


async def test_one_that_comes_is_heard_where_other_gates_may_give_it_jobs() -> None:
    world = Sessions(has_other_gates=True)
    await world.client()
    await world.until_open(world.second, 1)
    third = FakeUpstream()
    upstreams: Any = {"gpu-2": world.second, "gpu-3": third}
    world.sockets.change(upstreams)
    await world.until_open(third, 1)
    moved: Any = {"gpu-2": (elsewhere := FakeUpstream()), "gpu-3": third}
    world.sockets.change(moved)
    await world.until_open(world.second, 0)
    await world.until_open(elsewhere, 1)
    assert third.open == 1
    await world.sessions.stop()


async def test_a_socket_that_is_being_opened_to_one_that_goes_is_closed(world: Sessions) -> None:
    await world.client()
    world.second.gate.clear()
    preparing = asyncio.ensure_future(world.sockets.prepare(world.job()))
    async with asyncio.timeout(GUARD_S):
        while not world.session().at("gpu-2").is_opening:
            await asyncio.sleep(0)
    world.sockets.change({})
    world.second.gate.set()
    await preparing
    await world.until_open(world.second, 0)
    assert world.session().is_open
