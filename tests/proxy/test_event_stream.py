"""One upstream socket and whoever listens to it: what is handed on, kept, told to the registry; and when the socket goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rules.events import Event, status_frame
from proxy.http.websocket import Close
from proxy.jobs.events import JobEvents, SocketReports
from proxy.jobs.registry import Job, JobRegistry
from proxy.jobs.temp_files import Made
from proxy.websocket.connections import EVENT_TOO_BIG, UPSTREAM_GONE
from proxy.websocket.event_session import EventSession
from proxy.websocket.send_queue import SendQueue
from tests.proxy.fake_socket import FakeSocket
from tests.proxy.websocket.sessions import greeted

ALICE = TenantId("alice")
FLAGS = '{"type": "feature_flags", "data": {"supports_preview_metadata": true}}'


class Told(list[tuple[str, ...]]):
    """What the streams tell of jobs."""

    @property
    def reports(self) -> SocketReports:
        return Reports(self)


class Reports(SocketReports):
    def __init__(self, told: Told) -> None:
        super().__init__(JobRegistry(), JobEvents(), lambda prompt_id: None)
        self.told = told

    def is_kept_back(self, job: Job, event: Event, comfyui: str) -> bool:
        return False

    def started(self, prompt_id: str) -> None:
        self.told.append(("started", prompt_id))

    def ended(self, prompt_id: str) -> None:
        self.told.append(("ended", prompt_id))

    def is_at(self, prompt_id: str, nodes: frozenset[str]) -> None:
        if nodes:
            self.told.append(("at", prompt_id, *sorted(nodes)))

    def made_temp_files(self, prompt_id: str, names: list[str], made: Made, comfyui: str) -> None:
        self.told.append(("made", prompt_id, made.value, *names))


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
    opened = EventSession(Namespace(ALICE), "tab", registry.of(ALICE), told.reports)
    opened.begin(socket)
    yield opened
    opened.close()
    await opened.wait_until_ended()
    assert not opened.is_open


async def heard(send_queue: SendQueue) -> Any:
    """The next frame: its JSON, or its bytes."""
    item = send_queue.take()
    assert isinstance(item, str | bytes)
    return orjson.loads(item) if isinstance(item, str) else item


def attached(stream: EventSession) -> SendQueue:
    """What is on its way to a client that has come to the session, and was greeted."""
    send_queue = SendQueue()
    stream.attach(send_queue)
    greeted(send_queue)
    return send_queue


async def kinds(send_queue: SendQueue, count: int) -> list[str]:
    return [(await heard(send_queue))["type"] for _ in range(count)]


async def test_events_of_ones_own_job_are_handed_on_and_told(
    stream: EventSession, registry: JobRegistry, told: Told, comfy: FakeSocket
) -> None:
    own = registry.claim(ALICE, None).prompt_id
    foreign = registry.claim(TenantId("mallory"), None).prompt_id
    send_queue = SendQueue()
    stream.attach(send_queue)
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
    send_queue, own = attached(stream), registry.claim(ALICE, None).prompt_id
    comfy.event(kind, prompt_id=own)
    assert await kinds(send_queue, 1) == [kind]
    assert told == [("ended", own)]


async def test_who_comes_back_gets_the_newest_of_each_and_all_the_rest(
    stream: EventSession, registry: JobRegistry, comfy: FakeSocket
) -> None:
    first, own = attached(stream), registry.claim(ALICE, None).prompt_id
    were_attached = []
    for send_queue in (SendQueue(), first):
        stream.detach(send_queue)
        were_attached.append(stream.is_attached)
    assert were_attached == [True, False], "only its own client leaves it"
    stream.push_status(status_frame(stream.jobs))
    comfy.event("execution_start", prompt_id=own)
    for value in range(5):
        comfy.event("progress", value=value, max=5, prompt_id=own, node="1")
    comfy.say(b"\x00\x00\x00\x01\x00\x00\x00\x01preview")
    comfy.event("executing", node="2", prompt_id=own)
    again = SendQueue()
    stream.attach(again)
    assert await kinds(again, 4) == ["status", "execution_start", "progress", "executing"]
    stream.push_status(status_frame(stream.jobs))
    assert await heard(again) == {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}}}
    assert first.waiting_bytes == again.waiting_bytes == 0


async def test_flags_are_said_once_and_their_answer_is_kept(stream: EventSession, comfy: FakeSocket) -> None:
    send_queue = attached(stream)
    stream.from_client(FLAGS)
    comfy.event("feature_flags", supports_preview_metadata=True, max_upload_size=1)
    answer = await heard(send_queue)
    assert answer["type"] == "feature_flags"
    stream.from_client(FLAGS)
    assert await heard(send_queue) == answer
    stream.detach(send_queue)
    stream.from_client(FLAGS)
    assert send_queue.waiting_bytes == 0
    assert len(comfy.sent) == 1


@pytest.mark.parametrize(
    "said", [b"bytes", "no json", '{"type": "other", "data": {}}', '{"data": {}}', '["feature_flags"]']
)
async def test_comfyui_hears_nothing_but_flags(stream: EventSession, comfy: FakeSocket, said: str | bytes) -> None:
    stream.from_client(said)
    assert comfy.sent == []


async def test_a_client_that_tells_no_flags_is_one_without(stream: EventSession, comfy: FakeSocket) -> None:
    stream.from_client('{"type": "feature_flags"}')
    assert comfy.sent == ['{"type":"feature_flags","data":{}}']


@pytest.mark.parametrize(
    ("end", "is_said", "told_client"),
    [
        (Close(1001, "bye"), True, UPSTREAM_GONE),
        (Close(1006, ""), False, UPSTREAM_GONE),
        (Close(1009, "too large"), True, UPSTREAM_GONE),
        (Close(1009, "too large"), False, EVENT_TOO_BIG),
    ],
)
async def test_a_comfyui_that_closes_closes_its_client(
    registry: JobRegistry, told: Told, comfy: FakeSocket, end: Close, is_said: bool, told_client: Close
) -> None:
    socket: Any = comfy
    ended: list[EventSession] = []
    stream = EventSession(Namespace(ALICE), "tab", registry.of(ALICE), told.reports, ended.append)
    send_queue = attached(stream)
    stream.begin(socket)
    comfy.ends(end, is_said=is_said)
    assert send_queue.take() == told_client
    assert (stream.is_open, ended) == (False, [stream])
    await stream.wait_until_ended()
