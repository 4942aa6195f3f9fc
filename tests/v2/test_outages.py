"""What happens while somebody waits: ComfyUI goes away, the gate is restarted. The SDKs poll, and one refusal ends them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from standin import StandIn
from tests.clients.runs import REAL_URL
from tests.commands.restarts import Manager, bound, configured, managed
from tests.v2.bodies import Judges, bodies_of
from tests.v2.outages import OUTAGES, Outage, before_an_outage
from tests.v2.pack import make_pack
from tests.v2.recorder import Recorder, recording
from tests.v2.sdk import Call, Sdk, SdkError, running_sdk
from tests.v2.world import OpenWorld, saving_new, slow

NAP_S = 0.05
ENDS = ("succeeded", "failed")


def is_progress(event: dict[str, object]) -> bool:
    return event["kind"] == "progress"


async def until_running(sdk: Sdk, job_id: str) -> None:
    while (await sdk.call("get", job=job_id))["status"] != "running":
        await asyncio.sleep(NAP_S)


@pytest.fixture(params=OUTAGES)
async def outage(request: pytest.FixtureRequest, worlds: OpenWorld, tmp_path: Path) -> AsyncIterator[Outage]:
    async with before_an_outage(request.param, worlds, tmp_path) as found:
        yield found


async def test_who_waits_does_not_notice_that_comfyui_was_away(outage: Outage, kind: str) -> None:
    """The job that waits runs when ComfyUI is back; what became of the one that ran is told, in a word of the contract."""
    sdk = await outage.world.sdk(kind)
    running = await sdk.call("submit", graph=slow(seconds=5.0, steps=50))
    await until_running(sdk, running["id"])
    waiting = await sdk.call("submit", graph=saving_new())
    waits = [sdk.begin("wait", job=job["id"]) for job in (running, waiting)]
    await outage.begin()
    for _ in range(5):
        for job in (running, waiting):
            assert (await sdk.call("get", job=job["id"]))["id"] == job["id"]
    await outage.end()
    ends = [(await wait.value())["status"] for wait in waits]
    assert ends[0] in ENDS
    assert ends[1] == "succeeded"


async def test_who_watches_does_not_notice_that_comfyui_was_away(outage: Outage, kind: str) -> None:
    sdk = await outage.world.sdk(kind)
    running = await sdk.call("submit", graph=slow(seconds=5.0, steps=50))
    waiting = await sdk.call("submit", graph=saving_new())
    streams = [sdk.begin("events", job=job["id"]) for job in (running, waiting)]
    await streams[0].until(is_progress)
    await streams[1].until(lambda event: True)
    await outage.begin()
    await outage.end()
    for stream in streams:
        await stream.value()
    assert streams[0].statuses()[-1] in ENDS
    assert streams[1].statuses()[-1] == "succeeded"
    opened = [each for each in outage.world.recorder.exchanges("GET") if each.path.endswith("/events")]
    assert len(opened) == 2, "they stayed open"


async def test_a_job_is_read_while_comfyui_is_away(outage: Outage, kind: str) -> None:
    """From the gate's own record: its state, its workflow, the list; an output's bytes come from where they lie."""
    sdk = await outage.world.sdk(kind)
    done = await sdk.call("run", graph=saving_new())
    await outage.begin()
    assert await sdk.call("get", job=done["id"]) == done
    assert await sdk.call("cancel", job=done["id"]) == done
    if sdk.has_labels:
        newest = (await sdk.call("list"))[0]  # a real ComfyUI has older ones in its history
        assert newest["id"] == done["id"]
    await outage.end()
    assert await sdk.call("get", job=done["id"]) == done


@dataclass
class Standing:
    """A gate in a process of its own, on a socket that stays open over its restarts."""

    folder: Path
    keys: dict[str, str]
    manager: Manager
    recorder: Recorder


@pytest.fixture
async def standing(target: str, tmp_path: Path, judges: Judges) -> AsyncIterator[Standing]:
    comfy = StandIn(tmp_path / "comfyui", frontend=False, pack=make_pack()) if target == "standin" else None
    if comfy is not None:
        await comfy.start()
    with bound() as listening:
        config, keys = configured(tmp_path, REAL_URL if comfy is None else comfy.url, listening)
        async with (
            managed(config, listening) as manager,
            recording(f"http://127.0.0.1:{manager.port}") as recorder,
        ):
            yield Standing(tmp_path, keys, manager, recorder)
            assert judges.mistakes_in(bodies_of(recorder.exchanges())) == []
    if comfy is not None:
        await comfy.stop()


async def outlived(sdk: Sdk, call: Call, do: str, job_id: str, number: int) -> Call:
    """The call when it has ended. What is under way when the gate is killed may break: who sees that calls once more. It is never refused."""
    outcome = await call.outcome()
    if isinstance(outcome, SdkError):
        assert (outcome.status, number) == (None, signal.SIGKILL), outcome
        call = sdk.begin(do, job=job_id)
        await call.value()
    return call


SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])


@SIGNALS
async def test_who_waits_outlives_a_restart_of_the_gate(standing: Standing, kind: str, number: int) -> None:
    """New connections wait; the SDKs look again by themselves. Each job ends once, and as it would have."""
    async with running_sdk(kind, standing.folder, standing.recorder.url, standing.keys["alice"]) as sdk:
        running = await sdk.call("submit", graph=slow(seconds=4.0, steps=40))
        await until_running(sdk, running["id"])
        waiting = await sdk.call("submit", graph=saving_new())
        waits = [sdk.begin("wait", job=job["id"]) for job in (running, waiting)]
        await until_polled(sdk, standing.recorder, waiting["id"])
        await standing.manager.restart(number)
        for wait, job in zip(waits, (running, waiting), strict=True):
            ended = await outlived(sdk, wait, "wait", job["id"], number)
            assert (await ended.value())["status"] == "succeeded"
        assert len((await sdk.call("get", job=running["id"]))["outputs"]) == 1


@SIGNALS
async def test_who_watches_outlives_a_restart_of_the_gate(standing: Standing, kind: str, number: int) -> None:
    async with running_sdk(kind, standing.folder, standing.recorder.url, standing.keys["alice"]) as sdk:
        jobs = [await sdk.call("submit", graph=graph) for graph in (slow(seconds=4.0, steps=40), saving_new())]
        streams = [sdk.begin("events", job=job["id"]) for job in jobs]
        await streams[0].until(is_progress)
        await streams[1].until(lambda event: True)
        await standing.manager.restart(number)
        for stream, job in zip(streams, jobs, strict=True):
            ended = await outlived(sdk, stream, "events", job["id"], number)
            assert ended.statuses()[-1] == "succeeded"


async def until_polled(sdk: Sdk, recorder: Recorder, job_id: str) -> None:
    """Until the SDK has begun to wait: it has asked once."""
    while not [each for each in recorder.exchanges("GET") if each.target.endswith(job_id)]:
        await sdk.call("get", job=job_id)
