"""Sessions of a gate before two ComfyUIs, whose ends of the sockets the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson

from policy.principal import TenantId
from proxy.http.errors import UpstreamUnavailable
from proxy.http.request_record import RequestRecord
from proxy.jobs.events import JobEvents, SocketReports
from proxy.jobs.job import Job
from proxy.jobs.registry import JobRegistry
from proxy.websocket.event_session import EventSession
from proxy.websocket.event_sessions import EventSessions
from proxy.websocket.send_queue import SendQueue
from proxy.websocket.session_sockets import SessionSockets
from tests.policy.tenants import caller_of
from tests.proxy.fake_socket import FakeSocket
from tests.proxy.upstreams import GUARD_S

ALICE: Final = TenantId("alice")
PREVIEW: Final = b"\x00\x00\x00\x01\x00\x00\x00\x01"


class FakeUpstream:
    """ComfyUI's door: makes a socket for each that knocks, unless it is away; `gate` holds up who knocks."""

    def __init__(self) -> None:
        self.sockets: list[FakeSocket] = []
        self.ids: list[str] = []
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def connect(self, call: Any) -> FakeSocket:
        await self.gate.wait()
        if self.is_away:
            raise UpstreamUnavailable("away")
        self.ids += [value for _, value in call.query]
        self.sockets.append(FakeSocket())
        return self.sockets[-1]

    @property
    def newest(self) -> FakeSocket:
        return self.sockets[-1]

    @property
    def open(self) -> int:
        return sum(not socket.closed.is_set() for socket in self.sockets)


class Sessions:
    """Of a gate before two ComfyUIs. entry: what the history says of each job."""

    def __init__(self, *, has_other_gates: bool = False) -> None:
        self.first, self.second = FakeUpstream(), FakeUpstream()
        self.registry = JobRegistry()
        self.entry: Mapping[str, Any] | None = None
        self.reports = SocketReports(self.registry, JobEvents(), lambda prompt_id: None)
        self.reports.others = frozenset({"gpu-2"})
        first, second = self._upstreams()
        self.sessions = EventSessions(
            first, reconnect_grace_s=lambda: 3600.0, reports=self.reports, read_entry=self._read_entry
        )
        self.away: set[str] = set()
        self.sockets = SessionSockets(
            self.sessions, self.registry, first, {"gpu-2": second}, has_other_gates, lambda name: name not in self.away
        )

    def _upstreams(self) -> tuple[Any, Any]:
        return self.first, self.second

    async def _read_entry(self, job: Job) -> Mapping[str, Any] | None:
        return self.entry

    def job(self, comfyui: str = "gpu-2", client_id: str = "tab", tenant: TenantId = ALICE) -> Job:
        """One that its ComfyUI is given."""
        job = self.registry.claim(tenant, None, client_id=client_id)
        job.comfyui = comfyui
        self.registry.sent(job)
        return job

    async def client(self, client_id: str = "tab", tenant: TenantId = ALICE) -> SendQueue:
        """What is on its way to one that has just come, and was greeted."""
        send_queue = SendQueue()
        context = caller_of(tenant, jobs=self.registry.of(tenant))
        await self.sessions.attach(RequestRecord("GET", "id", "192.0.2.1"), context, client_id, send_queue)
        greeted(send_queue, client_id)
        return send_queue

    def session(self, client_id: str = "tab", tenant: TenantId = ALICE) -> EventSession:
        found = self.sessions.stream(tenant, client_id)
        assert found is not None
        return found

    async def until_open(self, upstream: FakeUpstream, count: int) -> None:
        async with asyncio.timeout(GUARD_S):
            while upstream.open != count:
                await asyncio.sleep(0)


def greeted(send_queue: SendQueue, client_id: str = "tab") -> None:
    """Takes the first frame: the status with the client's id, as from ComfyUI."""
    frame = send_queue.take()
    assert isinstance(frame, str)
    greeting = orjson.loads(frame)
    assert (greeting["type"], greeting["data"]["sid"]) == ("status", client_id)


def heard(send_queue: SendQueue) -> list[Any]:
    """All that waits: JSON, or bytes."""
    frames = []
    while isinstance(item := send_queue.take(), str | bytes):
        frames.append(orjson.loads(item) if isinstance(item, str) else item)
    return frames


def kinds(send_queue: SendQueue) -> list[str]:
    return ["preview" if isinstance(frame, bytes) else frame["type"] for frame in heard(send_queue)]


def run(socket: FakeSocket, job: Job, *, until: str = "execution_success") -> None:
    """What ComfyUI sends of a job."""
    for kind in ("execution_start", "executing", "executed", "execution_success"):
        socket.event(kind, prompt_id=job.prompt_id, node="1")
        if kind == "executing":
            socket.say(PREVIEW)
        if kind == until:
            return
