"""One upstream socket and whoever listens to it: what is handed on, kept, told to the registry; and when the socket goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMessage, WSMsgType

from policy.call import ClientCall
from policy.namespace import Namespace
from policy.principal import Principal, Role, TenantId
from policy.rule_context import RuleContext, RuleInput
from proxy.http.request_record import RequestRecord
from proxy.jobs.events import SocketReports
from proxy.jobs.registry import JobRegistry
from proxy.jobs.temp_files import Made
from proxy.websocket import event_sessions, relay
from proxy.websocket.client_sockets import ClientSockets
from proxy.websocket.connections import UPSTREAM_GONE, ConnectionRegistry
from proxy.websocket.event_session import EventSession
from proxy.websocket.event_sessions import EventSessions
from proxy.websocket.send_queue import Close, Frame, SendQueue
from tests.policy.tenants import caller_of
from tests.proxy.fake_socket import FakeSocket
from tests.proxy.upstreams import GUARD_S

ALICE = TenantId("alice")
FLAGS = '{"type": "feature_flags", "data": {"supports_preview_metadata": true}}'


class FakeUpstream:
    def __init__(self) -> None:
        self.sockets: list[FakeSocket] = []

    async def connect(self, call: Any) -> FakeSocket:
        self.sockets.append(FakeSocket())
        return self.sockets[-1]


class Told(list[tuple[str, ...]]):
    """What the streams tell of jobs."""

    @property
    def reports(self) -> SocketReports:
        return Reports(self)


class Reports(SocketReports):
    def __init__(self, told: Told) -> None:
        self.told = told

    def started(self, prompt_id: str) -> None:
        self.told.append(("started", prompt_id))

    def ended(self, prompt_id: str) -> None:
        self.told.append(("ended", prompt_id))

    def is_at(self, prompt_id: str, nodes: frozenset[str]) -> None:
        if nodes:
            self.told.append(("at", prompt_id, *sorted(nodes)))

    def made_temp_files(self, prompt_id: str, names: list[str], made: Made) -> None:
        self.told.append(("made", prompt_id, made.value, *names))


async def unlimited(principal: Principal) -> AbstractContextManager[object]:
    return nullcontext()


@pytest.fixture
def registry() -> JobRegistry:
    return JobRegistry()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def comfy() -> FakeSocket:
    return FakeSocket()


@pytest.fixture
async def stream(registry: JobRegistry, told: Told, comfy: FakeSocket) -> AsyncIterator[EventSession]:
    socket: Any = comfy
    opened = EventSession(socket, Namespace(ALICE), "tab", registry.of(ALICE), told.reports)
    running = asyncio.ensure_future(opened.run())
    yield opened
    await opened.close()
    await running
    assert not opened.is_open


async def heard(send_queue: SendQueue) -> Any:
    """The next frame: its JSON, or its bytes."""
    item = await send_queue.get()
    assert isinstance(item, Frame)
    return orjson.loads(item.data) if isinstance(item.data, str) else item.data


async def kinds(send_queue: SendQueue, count: int) -> list[str]:
    return [(await heard(send_queue))["type"] for _ in range(count)]


async def test_events_of_ones_own_job_are_handed_on_and_told(
    stream: EventSession, registry: JobRegistry, told: Told, comfy: FakeSocket
) -> None:
    send_queue, own = SendQueue(), registry.claim(ALICE, None).prompt_id
    foreign = registry.claim(TenantId("mallory"), None).prompt_id
    stream.attach(send_queue, is_new=True)
    comfy.event("status", status={"exec_info": {"queue_remaining": 7}}, sid="alice.tab")
    comfy.event("status", status={"exec_info": {"queue_remaining": 7}})
    comfy.event("execution_start", prompt_id=foreign)
    comfy.event("execution_start", prompt_id=own)
    comfy.event("executing", node="1", prompt_id=own)
    comfy.say(b"\x00\x00\x00\x01\x00\x00\x00\x01preview")
    comfy.say(b"\x00\x00\x00\x09unknown")
    comfy.event("progress_text", nodeId="1", text="half")
    output = {"images": [{"filename": "a.png", "subfolder": "", "type": "temp"}]}
    comfy.event("executed", node="1", prompt_id=own, output=output)
    comfy.event("execution_success", prompt_id=own)
    first = await heard(send_queue)
    assert first["data"] == {"status": {"exec_info": {"queue_remaining": 1}}, "sid": "tab"}
    assert await kinds(send_queue, 2) == ["execution_start", "executing"]
    assert (await heard(send_queue)).endswith(b"preview")
    assert await kinds(send_queue, 3) == ["progress_text", "executed", "execution_success"]
    assert told == [("started", own), ("at", own, "1"), ("made", own, "unknown", "a.png"), ("ended", own)]
    assert send_queue.waiting_bytes == 0


@pytest.mark.parametrize("kind", ["execution_success", "execution_error", "execution_interrupted"])
async def test_each_end_is_an_end(
    stream: EventSession, registry: JobRegistry, told: Told, comfy: FakeSocket, kind: str
) -> None:
    send_queue, own = SendQueue(), registry.claim(ALICE, None).prompt_id
    stream.attach(send_queue, is_new=True)
    comfy.event(kind, prompt_id=own)
    assert await kinds(send_queue, 1) == [kind]
    assert told == [("ended", own)]


async def test_who_comes_back_gets_the_newest_of_each_and_all_the_rest(
    stream: EventSession, registry: JobRegistry, comfy: FakeSocket
) -> None:
    first, own = SendQueue(), registry.claim(ALICE, None).prompt_id
    stream.attach(first, is_new=True)
    attached = []
    for send_queue in (SendQueue(), first):
        stream.detach(send_queue)
        attached.append(stream.is_attached)
    assert attached == [True, False], "only its own client leaves it"
    stream.push_status()
    comfy.event("execution_start", prompt_id=own)
    for value in range(5):
        comfy.event("progress", value=value, max=5, prompt_id=own, node="1")
    comfy.say(b"\x00\x00\x00\x01\x00\x00\x00\x01preview")
    comfy.event("executing", node="2", prompt_id=own)
    while not comfy.frames.empty():
        await asyncio.sleep(0)
    again = SendQueue()
    stream.attach(again, is_new=False)
    assert await kinds(again, 4) == ["status", "execution_start", "progress", "executing"]
    stream.push_status()
    assert await heard(again) == {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}}}
    assert first.waiting_bytes == again.waiting_bytes == 0


async def test_flags_are_said_once_and_their_answer_is_kept(stream: EventSession, comfy: FakeSocket) -> None:
    send_queue = SendQueue()
    stream.attach(send_queue, is_new=True)
    await stream.from_client(FLAGS)
    comfy.event("feature_flags", supports_preview_metadata=True, max_upload_size=1)
    answer = await heard(send_queue)
    assert answer["type"] == "feature_flags"
    await stream.from_client(FLAGS)
    assert await heard(send_queue) == answer
    stream.detach(send_queue)
    await stream.from_client(FLAGS)
    assert send_queue.waiting_bytes == 0
    assert len(comfy.sent) == 1


@pytest.mark.parametrize("said", [b"bytes", "no json", '{"type": "other", "data": {}}', '{"type": "feature_flags"}'])
async def test_comfyui_hears_nothing_but_flags(stream: EventSession, comfy: FakeSocket, said: str | bytes) -> None:
    await stream.from_client(said)
    assert comfy.sent == []


@pytest.mark.parametrize("error", [ConnectionResetError(), aiohttp.ClientError(), RuntimeError("closing")])
async def test_a_comfyui_that_has_gone_is_no_failure_of_the_client(
    stream: EventSession, comfy: FakeSocket, error: Exception
) -> None:
    comfy.refuses = error
    await stream.from_client(FLAGS)
    assert comfy.sent == []


async def test_a_comfyui_that_closes_closes_its_client(registry: JobRegistry, told: Told, comfy: FakeSocket) -> None:
    socket: Any = comfy
    stream, send_queue = EventSession(socket, Namespace(ALICE), "tab", registry.of(ALICE), told.reports), SendQueue()
    stream.attach(send_queue, is_new=True)
    comfy.frames.put_nowait(WSMessage(WSMsgType.CLOSE, 1001, "bye"))
    await stream.run()
    assert await send_queue.get() == UPSTREAM_GONE
    assert (stream.is_open, comfy.closed.is_set()) == (False, True)


class Clients:
    """EventStreams with clients that end when the test says so."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, registry: JobRegistry, told: Told, grace_s: float = 0.0
    ) -> None:
        self.upstream, self.sockets, self.registry = FakeUpstream(), ConnectionRegistry(), registry
        self.grace_s = grace_s
        upstream: Any = self.upstream
        self.streams = EventSessions(upstream, reconnect_grace_s=self._grace, reports=told.reports)
        self.clients = ClientSockets(
            upstream, self.streams, self.sockets, reconnect_grace_s=self._grace, slot=unlimited, jobs=registry
        )
        self.serving: asyncio.Queue[SendQueue] = asyncio.Queue()
        self.accept_fails: Exception | None = None
        monkeypatch.setattr(relay, "accept", self._accept)
        monkeypatch.setattr(relay, "serve_client", self._serve)
        monkeypatch.setattr(relay, "relay", self._relay)

    def _grace(self) -> float:
        return self.grace_s

    async def _accept(self, request: Any) -> Any:
        if self.accept_fails is not None:
            raise self.accept_fails
        return object()

    async def _serve(
        self, request: Any, socket: Any, send_queue: SendQueue, from_client: Any, on_close: Any = None
    ) -> None:
        self.serving.put_nowait(send_queue)
        await send_queue.overflowed.wait()

    async def _relay(self, request: Any, client: Any, upstream: Any, send_queue: SendQueue) -> None:
        await self._serve(request, client, send_queue, None)

    def open(self, client_id: str = "tab", role: Role = Role.USER) -> asyncio.Task[Any]:
        context: RuleContext = caller_of("alice", role, jobs=self.registry.of(ALICE))
        call = ClientCall("GET", ("ws",), (("clientId", client_id),))
        record, request = RequestRecord("GET", "id", "192.0.2.1"), Any
        return asyncio.ensure_future(self.clients.serve(request, record, RuleInput(call, context)))  # type: ignore[arg-type]

    async def leave(self, task: asyncio.Task[Any], send_queue: SendQueue) -> None:
        send_queue.close(Close(1000, ""), at_once=True)
        await task

    @property
    def open_sockets(self) -> int:
        return sum(not socket.closed.is_set() for socket in self.upstream.sockets)


Make = Callable[..., Clients]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch, registry: JobRegistry, told: Told) -> AsyncIterator[Make]:
    made: list[Clients] = []

    def make(**options: Any) -> Clients:
        made.append(Clients(monkeypatch, registry, told, **options))
        return made[-1]

    async with asyncio.timeout(GUARD_S):
        yield make
        for each in made:
            await each.streams.stop()


async def test_without_work_the_socket_goes_with_its_client(make: Make) -> None:
    clients = make(grace_s=3600.0)
    task = clients.open()
    await clients.leave(task, await clients.serving.get())
    await clients.upstream.sockets[0].closed.wait()
    while clients.streams._streams:
        await asyncio.sleep(0)


async def test_with_work_it_waits_for_its_client(make: Make, registry: JobRegistry) -> None:
    clients = make(grace_s=3600.0)
    registry.claim(ALICE, None, client_id="other")
    task = clients.open()
    await clients.leave(task, await clients.serving.get())
    again = clients.open()
    send_queue = await clients.serving.get()
    assert len(clients.upstream.sockets) == clients.open_sockets == 1
    clients.streams.push_status(TenantId("mallory"))
    assert await kinds(send_queue, 1) == ["status"]
    assert send_queue.waiting_bytes == 0
    clients.streams.push_status(ALICE)
    assert await kinds(send_queue, 1) == ["status"]
    await clients.leave(again, send_queue)


async def test_its_time_is_over_when_nobody_came(make: Make, registry: JobRegistry) -> None:
    clients = make(grace_s=0.0)
    registry.claim(ALICE, None, client_id="other")
    task = clients.open()
    await clients.leave(task, await clients.serving.get())
    await clients.upstream.sockets[0].closed.wait()


async def test_a_client_that_came_back_is_not_closed_for_having_been_away(make: Make, registry: JobRegistry) -> None:
    clients = make(grace_s=0.05)
    registry.claim(ALICE, None, client_id="other")
    task = clients.open()
    await clients.leave(task, await clients.serving.get())
    again = clients.open()
    send_queue = await clients.serving.get()
    while clients.streams._tasks._tasks - {
        task for task in clients.streams._tasks._tasks if task.get_name() == "event stream"
    }:
        await asyncio.sleep(0.01)  # until the time of its absence is over
    assert clients.open_sockets == 1
    await clients.leave(again, send_queue)


async def test_not_too_many_wait(make: Make, registry: JobRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_sessions, "MAX_WAITING_STREAMS", 2)
    clients = make(grace_s=3600.0)
    registry.claim(ALICE, None, client_id="other")
    for number in range(4):
        task = clients.open(f"tab{number}")
        await clients.leave(task, await clients.serving.get())
    for socket in clients.upstream.sockets[2:]:
        await socket.closed.wait()
    assert clients.open_sockets == 2


async def test_who_comes_while_it_closes_gets_another_after_it(make: Make) -> None:
    """ComfyUI would lose the newer of two sockets of one id when the older one closes."""
    clients = make()
    task = clients.open()
    send_queue = await clients.serving.get()
    old = clients.upstream.sockets[0]
    old.may_close.clear()
    await clients.leave(task, send_queue)
    while not clients.streams._streams[ALICE, "tab"].is_closing:
        await asyncio.sleep(0)
    again = clients.open()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(clients.upstream.sockets) == 1
    old.may_close.set()
    send_queue = await clients.serving.get()
    assert old.closed.is_set()
    assert clients.open_sockets == 1
    assert clients.streams._streams[ALICE, "tab"].is_attached
    await clients.leave(again, send_queue)


async def test_two_that_come_at_once_share_one_socket(make: Make) -> None:
    clients = make()
    tasks = [clients.open() for _ in range(3)]
    outboxes = [await clients.serving.get() for _ in tasks]
    assert len(clients.upstream.sockets) == 1
    for task, send_queue in zip(tasks, outboxes, strict=True):
        await clients.leave(task, send_queue)
    await clients.upstream.sockets[0].closed.wait()


@pytest.mark.parametrize("role", [Role.USER, Role.ADMIN])
async def test_a_client_that_left_before_its_upgrade_leaves_no_socket(make: Make, role: Role) -> None:
    clients = make()
    clients.accept_fails = ConnectionResetError("gone")
    with pytest.raises(ConnectionResetError):
        await clients.open(role=role)
    await clients.upstream.sockets[0].closed.wait()
    assert len(clients.sockets) == 0


async def test_an_admin_has_a_socket_alone(make: Make) -> None:
    clients = make()
    tasks = [clients.open(role=Role.ADMIN) for _ in range(2)]
    outboxes = [await clients.serving.get() for _ in tasks]
    assert (len(clients.upstream.sockets), len(clients.sockets)) == (2, 2)
    for task, send_queue in zip(tasks, outboxes, strict=True):
        await clients.leave(task, send_queue)
    assert len(clients.sockets) == 0
