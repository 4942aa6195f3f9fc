"""At which nodes a tenant's own jobs are, as the events of its sockets tell."""

from __future__ import annotations

from typing import Any

import pytest

from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rules.events import EventRules
from proxy.jobs import index
from proxy.jobs.events import JobEvents, SocketReports
from proxy.jobs.registry import JobRegistry
from proxy.websocket.event_session import EventSession
from proxy.websocket.send_queue import SendQueue
from tests.proxy.fake_socket import FakeSocket
from tests.proxy.test_event_stream import kinds

ALICE, BOB = TenantId("alice"), TenantId("bob")


@pytest.fixture
def registry() -> JobRegistry:
    return JobRegistry()


def reports(registry: JobRegistry) -> SocketReports:
    return SocketReports(registry, JobEvents(), lambda prompt_id: None)


def running(registry: JobRegistry, tenant: TenantId) -> str:
    job = registry.claim(tenant, None)
    registry.start(job)
    return job.prompt_id


def test_a_running_job_is_at_a_node_until_it_is_at_another(registry: JobRegistry) -> None:
    own = running(registry, ALICE)
    assert registry.of(ALICE).running_nodes() == {}
    reports(registry).is_at(own, frozenset({"7"}))
    assert registry.of(ALICE).running_nodes() == {own: {"7"}}
    reports(registry).is_at(own, frozenset({"8:1", "8"}))
    assert registry.of(ALICE).running_nodes() == {own: {"8:1", "8"}}
    reports(registry).is_at(own, frozenset())
    assert registry.of(ALICE).running_nodes() == {}


def test_a_socket_knows_of_comfyuis_that_have_come_since_it_was_opened() -> None:
    """What one of them says without an id is of a job that runs there, and not of one that runs at another."""
    registry = JobRegistry(comfyuis=("gpu-1",))
    told = reports(registry)
    at_first, at_second = (told.running(registry.of(ALICE), comfyui) for comfyui in ("", "gpu-2"))
    here, there = running(registry, ALICE), running(registry, ALICE)
    for prompt_id, comfyui in ((here, "gpu-1"), (there, "gpu-2")):
        job = registry.job(prompt_id)
        assert job is not None
        job.comfyui = comfyui
    told.others = frozenset({"gpu-2"})
    assert (at_first.running(), at_second.running()) == ([here], [there])


def test_a_node_that_was_answered_is_none_for_a_moment(registry: JobRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that runs for each of a list waits again at the same node, and no event says so."""
    now_s = [100.0]
    monkeypatch.setattr("proxy.jobs.index.time.monotonic", lambda: now_s[0])
    own = running(registry, ALICE)
    reports(registry).is_at(own, frozenset({"7", "8"}))
    registry.of(ALICE).answered(own, "7")
    reports(registry).is_at(own, frozenset({"7", "8"}))
    assert registry.of(ALICE).running_nodes() == {own: {"8"}}
    registry.of(ALICE).answered(own, "8")
    assert registry.of(ALICE).running_nodes() == {}
    now_s[0] += index.ANSWERED_S
    assert registry.of(ALICE).running_nodes() == {own: {"7", "8"}}


def test_a_neighbours_job_is_at_no_node_of_ones_own(registry: JobRegistry) -> None:
    reports(registry).is_at(running(registry, BOB), frozenset({"7"}))
    assert registry.of(ALICE).running_nodes() == {}


def test_a_job_that_ended_is_at_no_node(registry: JobRegistry) -> None:
    """Whoever says so first: its client's socket, or ComfyUI's history."""
    own = running(registry, ALICE)
    reports(registry).is_at(own, frozenset({"7"}))
    registry.mark_over(own)
    reports(registry).is_at(own, frozenset({"7"}))
    assert registry.of(ALICE).running_nodes() == {}
    other = running(registry, ALICE)
    reports(registry).is_at(other, frozenset({"7"}))
    registry.release(other)
    reports(registry).is_at(other, frozenset({"7"}))
    assert registry.of(ALICE).running_nodes() == {}


def test_a_waiting_job_is_at_no_node(registry: JobRegistry) -> None:
    job = registry.claim(ALICE, None)
    reports(registry).is_at(job.prompt_id, frozenset({"7"}))
    assert registry.of(ALICE).running_nodes() == {}


def test_the_event_names_its_node(registry: JobRegistry) -> None:
    own, rules = running(registry, ALICE), EventRules(Namespace(ALICE), "tab")
    frame = '{"type": "executing", "data": {"node": "a \\"b\\"", "display_node": "a", "prompt_id": "' + own + '"}}'
    event = rules.text(frame, registry.of(ALICE))
    assert event is not None
    assert (event.data["node"], event.data["display_node"], event.text) == ('a "b"', "a", frame)
    broken = rules.text(frame.replace("}}", ""), registry.of(ALICE))
    assert broken is not None
    assert broken.data == {}


async def test_a_socket_that_is_opened_while_a_job_runs_hears_where_it_is(registry: JobRegistry) -> None:
    """ComfyUI tells a new socket the node alone (server.py, websocket_handler)."""
    socket: Any = FakeSocket()
    opened = EventSession(Namespace(ALICE), "tab", registry.of(ALICE), reports(registry))
    opened.begin(socket)
    opened.attach(send_queue := SendQueue())
    own = running(registry, ALICE)
    socket.event("executing", node="7")
    assert await kinds(send_queue, 2) == ["status", "executing"]
    assert registry.of(ALICE).running_nodes() == {own: {"7"}}
    opened.close()
    await opened.wait_until_ended()
