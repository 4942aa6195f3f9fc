"""Streams of events when ComfyUI, the gate, or the socket between them goes away and comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from policy.principal import TenantId
from policy.rules.results import SDK_CLIENT
from proxy.app import Gate
from proxy.config import load_config
from proxy.observability.access_log import RequestLog
from proxy.websocket import kept_sockets
from standin import StandIn
from tests.harness import Running, running_gate
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.following import finished, following, saving, slow, submit

ALICE = TenantId("alice")


async def test_comfyui_that_goes_away_and_comes_back(gate: Running, comfy: StandIn) -> None:
    """The stream stays, and the job is tried again; how far it was does not fall."""
    job = await submit(gate, slow(1.0, 40))
    port = int(comfy.url.rpartition(":")[2])
    async with following(gate, job) as stream:
        await stream.until("preview", node_id="3")
        await comfy.stop()
        await comfy.start("127.0.0.1", port)
        await stream.rest()
    assert stream.seen[-1] == ("status", {"status": "succeeded"})
    values = [each["value"] for each in stream.of("progress")]
    assert values == sorted(values)
    states = [each["status"] for each in stream.of("status")]
    assert states[states.index("running") :] == ["running", "queued", "running", "succeeded"]
    # Of both tries only the second one's picture is a result that stays.
    shown = await gate.json("GET", f"/api/v2/jobs/{job}", "alice")
    assert sorted(each["node_id"] for each in shown["outputs"]) == ["2", "4"]


async def test_progress_is_heard_again_when_the_gate_comes_back(tmp_path: Path, comfy: StandIn) -> None:
    async with running_gate(tmp_path, comfy.url) as gate:
        job = await submit(gate, slow(3.0, 60))
        async with following(gate, job) as stream:
            await stream.until("progress", current_node="3")
        await gate.gate.stop()
        again = Gate(load_config(gate.config_file, {}), RequestLog(gate.log, "json"))
        await again.start()
        gate.url, gate.gate = again.public.url, again
        async with following(gate, job) as stream:
            await stream.until("progress", current_node="3")
            await stream.until("preview")
            await stream.rest()
        await again.stop()
    assert stream.seen[-1] == ("status", {"status": "succeeded"})
    assert {each["node_id"] for each in stream.of("output")} == {"2", "4"}


async def test_a_socket_of_its_own_that_breaks_is_opened_again(gate: Running) -> None:
    job = await submit(gate, slow(2.0, 40))
    sessions = gate.gate.dependencies.streams
    async with following(gate, job) as stream:
        await stream.until("progress", current_node="3")
        session = sessions.stream(ALICE, SDK_CLIENT)
        assert session is not None
        socket: Any = session.at("")._socket
        socket.abort()
        await stream.until("preview")
        await stream.until("preview")
        await stream.rest()
    assert stream.seen[-1] == ("status", {"status": "succeeded"})


async def test_a_socket_of_its_own_is_closed_when_no_job_needs_it(
    gate: Running, comfy: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_sockets, "LOOK_EACH_S", 0.05)
    jobs = [await submit(gate, saving(f"s{number}", number)) for number in range(3)]
    for job in jobs:
        await finished(gate, job)
    async with asyncio.timeout(GUARD_S):
        while gate.gate.dependencies.streams.stream(ALICE, SDK_CLIENT) is not None:
            await asyncio.sleep(0.01)
    opened = [call for call in comfy.received if call.websocket and "alice.api-v2" in call.raw_path]
    assert len(opened) >= 1
