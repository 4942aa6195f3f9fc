"""Clients that listen to upstream sockets: which of them share one, which socket outlives its client, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import orjson
import pytest

from policy.call import ClientCall
from policy.principal import Principal, Role, TenantId
from policy.rule_context import RuleContext, RuleInput
from proxy.http.replies import UpgradedReply
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.http.websocket import Close, WebSocket
from proxy.http.websocket_frames import CLOSE, FrameReader, Payload
from proxy.jobs.registry import Job, JobRegistry
from proxy.websocket import client_sockets, event_sessions
from proxy.websocket.client_socket import ClientSocket
from proxy.websocket.client_sockets import ClientSockets
from proxy.websocket.connections import ConnectionRegistry
from proxy.websocket.event_sessions import EventSessions
from proxy.websocket.send_queue import SendQueue
from tests.policy.tenants import caller_of
from tests.proxy.fake_socket import FakeSocket
from tests.proxy.test_event_stream import ALICE, Told, registry, told
from tests.proxy.upstreams import GUARD_S

__all__ = ["registry", "told"]


async def nothing_is_kept(job: Job) -> None:
    """Of the ends of jobs."""


class FakeUpstream:
    def __init__(self) -> None:
        self.sockets: list[FakeSocket] = []

    async def connect(self, call: Any) -> FakeSocket:
        self.sockets.append(FakeSocket())
        return self.sockets[-1]


async def unlimited(principal: Principal) -> AbstractContextManager[object]:
    return nullcontext()


class Line(asyncio.Transport):
    """A client's connection: notes the events that are sent, and hangs up when it is told goodbye."""

    def __init__(self, socket: WebSocket) -> None:
        super().__init__()
        self._socket = socket
        self._reader = FrameReader(is_masked=False, max_bytes=1024**2)
        self._is_closed = False
        self.events: list[str] = []

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It takes everything."""

    def is_closing(self) -> bool:
        return self._is_closed

    def is_reading(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._reader.feed(bytes(data), self._take)

    def _take(self, opcode: int, payload: Payload, frame: Payload | None) -> None:
        if opcode == CLOSE:
            self.close()
        else:
            self.events.append(orjson.loads(payload)["type"])

    def close(self) -> None:
        self._is_closed = True
        asyncio.get_running_loop().call_soon(self._socket.connection_lost, None)


class Client:
    """One that was accepted."""

    def __init__(self, line: Line, send_queue: SendQueue, reply: UpgradedReply) -> None:
        self.line, self._send_queue, self._ended = line, send_queue, asyncio.Event()
        reply.at_end(self._ended.set)

    async def leave(self) -> None:
        self._send_queue.close(Close(1000, ""), at_once=True)
        await self._ended.wait()


class Clients:
    """EventStreams with clients that end when the test says so."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, registry: JobRegistry, told: Told, grace_s: float = 0.0
    ) -> None:
        self.upstream, self.sockets, self.registry = FakeUpstream(), ConnectionRegistry(), registry
        self.grace_s = grace_s
        upstream: Any = self.upstream
        self.streams = EventSessions(
            upstream, reconnect_grace_s=self._grace, reports=told.reports, read_entry=nothing_is_kept
        )
        self.clients = ClientSockets(
            upstream, self.streams, self.sockets, reconnect_grace_s=self._grace, slot=unlimited, jobs=registry
        )
        self.lines: list[Line] = []
        self.accept_fails: Exception | None = None
        monkeypatch.setattr(client_sockets, "accept", self._accept)

    def _grace(self) -> float:
        return self.grace_s

    async def _accept(self, request: Request, socket: WebSocket) -> None:
        if self.accept_fails is not None:
            raise self.accept_fails
        self.lines.append(Line(socket))
        socket.connection_made(self.lines[-1])

    async def open(self, client_id: str = "tab", role: Role = Role.USER) -> Client:
        context: RuleContext = caller_of("alice", role, jobs=self.registry.of(ALICE))
        call = ClientCall("GET", ("ws",), (("clientId", client_id),))
        record, request = RequestRecord("GET", "id", "192.0.2.1"), Any
        reply = await self.clients.serve(request, record, RuleInput(call, context))  # type: ignore[arg-type]
        opened = cast(ClientSocket, reply.at_end.__self__)  # type: ignore[attr-defined]
        return Client(cast(Line, opened.socket.transport), opened.send_queue, reply)

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
    await (await clients.open()).leave()
    await clients.upstream.sockets[0].closed.wait()
    while clients.streams._streams:
        await asyncio.sleep(0)


async def test_with_work_it_waits_for_its_client(make: Make, registry: JobRegistry) -> None:
    clients = make(grace_s=3600.0)
    registry.claim(ALICE, None, client_id="other")
    await (await clients.open()).leave()
    again = await clients.open()
    assert len(clients.upstream.sockets) == clients.open_sockets == 1
    clients.streams.push_status(TenantId("mallory"))
    assert again.line.events == ["status"]
    clients.streams.push_status(ALICE)
    assert again.line.events == ["status"] * 2
    await again.leave()


async def test_its_time_is_over_when_nobody_came(make: Make, registry: JobRegistry) -> None:
    clients = make(grace_s=0.0)
    registry.claim(ALICE, None, client_id="other")
    await (await clients.open()).leave()
    await clients.upstream.sockets[0].closed.wait()


async def test_a_client_that_came_back_is_not_closed_for_having_been_away(make: Make, registry: JobRegistry) -> None:
    clients = make(grace_s=3600.0)
    registry.claim(ALICE, None, client_id="other")
    await (await clients.open()).leave()
    again = await clients.open()
    assert clients.streams._streams[ALICE]["tab"].grace is None
    assert clients.open_sockets == 1
    await again.leave()


async def test_two_of_one_id_that_went_leave_nothing_that_closes_a_third(make: Make, registry: JobRegistry) -> None:
    clients = make(grace_s=3600.0)
    registry.claim(ALICE, None, client_id="other")
    first, second = await clients.open(), await clients.open()
    timers = []
    for client in (second, first):
        await client.leave()
        timers.append(clients.streams._streams[ALICE]["tab"].grace)
    third = await clients.open()
    assert all(timer is not None and timer.cancelled() for timer in timers)
    await third.leave()


async def test_not_too_many_wait(make: Make, registry: JobRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_sessions, "MAX_WAITING_STREAMS", 2)
    clients = make(grace_s=3600.0)
    registry.claim(ALICE, None, client_id="other")
    for number in range(4):
        await (await clients.open(f"tab{number}")).leave()
    for socket in clients.upstream.sockets[2:]:
        await socket.closed.wait()
    assert clients.open_sockets == 2


async def test_who_comes_while_it_closes_gets_another_after_it(make: Make) -> None:
    """ComfyUI would lose the newer of two sockets of one id when the older one closes."""
    clients = make()
    client = await clients.open()
    old = clients.upstream.sockets[0]
    old.may_close.clear()
    await client.leave()
    assert clients.streams._streams[ALICE]["tab"].is_closing
    opening = asyncio.ensure_future(clients.open())
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(clients.upstream.sockets) == 1
    old.may_close.set()
    again = await opening
    assert old.closed.is_set()
    assert clients.open_sockets == 1
    assert clients.streams._streams[ALICE]["tab"].is_attached
    await again.leave()


async def test_two_that_come_at_once_share_one_socket(make: Make) -> None:
    clients = make()
    opened = await asyncio.gather(*(clients.open() for _ in range(3)))
    assert len(clients.upstream.sockets) == 1
    for client in opened:
        await client.leave()
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
    opened = [await clients.open(role=Role.ADMIN) for _ in range(2)]
    assert (len(clients.upstream.sockets), len(clients.sockets)) == (2, 2)
    for client in opened:
        await client.leave()
    assert len(clients.sockets) == 0
