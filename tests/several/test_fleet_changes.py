"""ComfyUIs come and go while the gate runs, by a reload of its configuration."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from policy.needs import Needs
from policy.principal import TenantId
from standin import StandIn
from tests.contract.driver import slow
from tests.harness import running_gate
from tests.several.changing import (
    THIRD,
    beside,
    both_are_used,
    put_back,
    put_in,
    running,
    table,
    take_out,
    there,
    until_gone,
    without,
)
from tests.several.test_draining import comfygate, drain, given_to, listed, stop
from tests.several.test_files import FOLDER, body_of, made_at, view
from tests.several.test_live_events import graph, listening, read_until
from tests.several.test_metrics import told, until
from tests.several.test_placing import ended, quick, ran_where, submit
from tests.several.test_warmups import sample, write_function
from tests.several.world import FIRST, SECOND, SeveralWorld, put_model, several

pytestmark = pytest.mark.usefixtures("gone_soon")


async def test_a_second_one_comes_beside_the_first_while_a_job_runs_there(tmp_path: Path) -> None:
    """It is given jobs, its files and its events are there, and nobody's socket was closed for it."""
    write_function(tmp_path, "paint", quick(3))
    async with several(tmp_path, (FIRST,)) as world, beside(world, SECOND) as comfy:
        put_model(comfy, "only-here.safetensors")
        async with listening(world.gate) as socket:
            first = await submit(world, graph(seconds=600.0, steps=600))
            await running(world, FIRST)
            assert not [name for name in await told(world) if name.startswith("comfygate_comfyui_")]
            await put_in(world, table(SECOND, comfy, 'window = 3\nwarmup = ["paint"]'))
            await until(world, sample(SECOND, "done"), 1)
            second = await submit(world, graph(seconds=0.1))
            entry = (await ended(world, [second]))[second]
            assert ran_where(world, [first, second]) == {FIRST: 1, SECOND: 1}
            await read_until(socket, "execution_success")
            assert world.gate.gate.dependencies.registry.job(first).state.value == "running"  # type: ignore[union-attr]
            await stop(world, [first])
        [made] = entry["outputs"]["3"]["images"]
        assert made["subfolder"] == FOLDER
        assert (await body_of(world, view(made["filename"], subfolder=FOLDER))).startswith(b"\x89PNG")
        info = await world.gate.json("GET", "/object_info/CheckpointLoaderSimple", "alice")
        [choices, *_] = info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
        assert "only-here.safetensors" in choices
        samples = await told(world)
        assert samples[f'comfygate_comfyui_window{{comfyui="{SECOND}"}}'] == 3
        assert samples[f'comfygate_comfyui_up{{comfyui="{FIRST}"}}'] == 1


async def test_one_that_is_taken_out_runs_what_it_has_and_is_given_nothing(two: SeveralWorld) -> None:
    ids = [await submit(two, slow()) for _ in range(4)]
    while not len(given_to(two, FIRST)) == len(given_to(two, SECOND)) == 2:
        await asyncio.sleep(0.02)
    had = given_to(two, SECOND)
    waiting = await submit(two, quick(1))
    await take_out(two)
    assert there(two) == [FIRST, SECOND]
    await stop(two, set(ids) - set(had))
    await ended(two, [waiting])
    assert ran_where(two, [waiting]) == {FIRST: 1}
    assert given_to(two, SECOND) == had, "they are followed"
    seen = await listed(two)
    assert (seen[SECOND]["jobs"], seen[SECOND]["url"], seen[FIRST]["jobs"]) == (2, None, 0)
    assert "gpu-2  -" in (await comfygate(two, "comfyui", "list")).out
    assert f'comfygate_comfyui_up{{comfyui="{SECOND}"}}' in await told(two)
    await stop(two, had)
    await until_gone(two)
    assert not [name for name in await told(two) if SECOND in name]


async def test_nobody_is_warned_of_a_connection_that_the_gate_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of one that has gone, and of all when the gate is stopped; of one that went away itself the operator is."""
    async with several(tmp_path) as world:
        await world.gate.gate.dependencies.queue_watchers.of(SECOND).is_settled.wait()
        await take_out(world)
        await until_gone(world)
        while [task for task in asyncio.all_tasks() if task.get_name() == "the end of a ComfyUI"]:
            await asyncio.sleep(0.01)
    assert "the connection to" not in caplog.text
    async with several(tmp_path) as world:
        await world.stop(FIRST)
        async with asyncio.timeout(240):
            while f"the connection to ComfyUI {FIRST} ended" not in caplog.text:
                await asyncio.sleep(0.01)


async def test_one_at_another_address_is_taken_out_and_put_in(two: SeveralWorld) -> None:
    name = await made_at(two, SECOND, 5)
    before = await body_of(two, view(name, subfolder=FOLDER))
    jobs = [await submit(two, slow()) for _ in range(2)]
    had = await running(two, SECOND)
    moved = StandIn(two.folder / SECOND, frontend=False)
    await moved.start()
    try:
        file = two.gate.config_file
        old = two.comfyuis[SECOND].url
        file.write_text(file.read_text(encoding="utf-8").replace(old, moved.url), encoding="utf-8")
        assert await two.gate.gate.reload(file)
        assert given_to(two, SECOND) == [had]
        assert two.gate.gate.dependencies.upstream.of(SECOND).url == old, "until what it has has ended"
        await stop(two, jobs)
        while two.gate.gate.dependencies.upstream.of(SECOND).url != moved.url:
            await asyncio.sleep(0.01)
        await two.gate.gate.dependencies.queue_watchers.of(SECOND).is_settled.wait()
        await both_are_used(two)
        assert [call for call in moved.received if call.raw_path == "/prompt"]
        assert await body_of(two, view(name, subfolder=FOLDER)) == before
    finally:
        await two.gate.gate.stop()
        await moved.stop()


async def test_jobs_of_one_that_is_away_when_it_is_taken_out_go_on_with_the_others(tmp_path: Path) -> None:
    async with several(tmp_path, settings={SECOND: 'gone_after = "1s"'}) as world:
        jobs = [await submit(world, slow(3.0, 24)) for _ in range(2)]
        await running(world, SECOND)
        await world.stop(SECOND)
        await take_out(world)
        await until_gone(world)
        entries = await ended(world, jobs)
        assert {entry["status"]["status_str"] for entry in entries.values()} == {"success"}
        assert ran_where(world, jobs) == {FIRST: 2}


async def test_reloads_in_quick_succession(two: SeveralWorld) -> None:
    """The last one counts, and nothing of those between is left."""
    async with beside(two, THIRD) as comfy:
        file, gate = two.gate.config_file, two.gate.gate
        written = file.read_text(encoding="utf-8")
        jobs = [await submit(two, slow()) for _ in range(4)]
        await running(two, SECOND)
        more = f"{written}\n{table(THIRD, comfy)}"
        for text in (more, without(written, SECOND), more, without(more, SECOND), written, more):
            file.write_text(text, encoding="utf-8")
            assert await gate.reload(file)
        await gate.dependencies.queue_watchers.of(THIRD).is_settled.wait()
        assert there(two) == [FIRST, SECOND, THIRD]
        more_jobs = [await submit(two, slow()) for _ in range(2)]
        while len(given_to(two, THIRD)) < 2:
            await asyncio.sleep(0.02)
        await stop(two, [*jobs, *more_jobs])
        await ended(two, [await submit(two, quick(1))])
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "a ComfyUI that leaves"]


async def test_a_reload_that_fails_leaves_all_of_them(two: SeveralWorld, caplog: pytest.LogCaptureFixture) -> None:
    file, gate = two.gate.config_file, two.gate.gate
    written = file.read_text(encoding="utf-8")
    other = '[[comfyui]]\nname = "gpu-9"\nurl = "http://127.0.0.1:9"\ndirectory = "/nowhere"\n'
    for more in ('[[comfyui]]\nname = "GPU"\n', '[limits]\nstorage_file = "missing"\n'):
        file.write_text(f"{without(written, SECOND)}\n{other}{more}", encoding="utf-8")
        assert not await gate.reload(file)
        assert there(two) == [FIRST, SECOND]
    await both_are_used(two)


async def test_another_first_one_waits_for_a_restart_and_the_others_with_it(
    two: SeveralWorld, caplog: pytest.LogCaptureFixture
) -> None:
    await take_out(two, FIRST)
    told_of = [record.getMessage() for record in caplog.records if "restarted" in record.getMessage()]
    assert told_of == [
        "not taken up until the gate is restarted: "
        "comfyui (the first one, gpu-1, has the tenants' uploads, saved workflows and settings)"
    ]
    assert there(two) == [FIRST, SECOND]
    await ended(two, [await submit(two, quick(1))])


async def test_what_is_being_prepared_for_one_that_is_taken_out_goes_to_another(two: SeveralWorld) -> None:
    """As while large files are brought there."""
    jobs, begun, go_on = two.gate.gate.dependencies.jobs, asyncio.Event(), asyncio.Event()
    bring = jobs.preparation.bring

    async def slowly(tenant: TenantId, needs: Needs, comfyui: str) -> Any:
        if comfyui == SECOND:
            begun.set()
            await go_on.wait()
        return await bring(tenant, needs, comfyui)

    jobs.preparation.bring = slowly
    ids: list[str] = []
    async with asyncio.timeout(240):
        while not begun.is_set():  # it may be found later than the first one
            ids.append(await submit(two, slow(0.2, 4)))
            await asyncio.sleep(0.02)
    await take_out(two)
    assert there(two) == [FIRST, SECOND], "something may be on its way there"
    go_on.set()
    await ended(two, ids)
    assert ran_where(two, ids) == {FIRST: len(ids)}
    assert not [call for call in two.comfyuis[SECOND].received if call.raw_path == "/prompt"]
    await until_gone(two)


async def test_sockets_stay_when_one_goes_and_comes_back(tmp_path: Path) -> None:
    async with several(tmp_path, settings={FIRST: 'tenants = ["mallory"]'}) as world, listening(world.gate) as socket:
        await submit(world, graph())
        await read_until(socket, "execution_success")
        written = await take_out(world)
        await until_gone(world)
        await put_back(world, written)
        again = await submit(world, graph())
        seen = await read_until(socket, "execution_success")
        assert seen[-1][1]["prompt_id"] == again
        assert {"executing", "executed"} <= {kind for kind, _ in seen}


async def test_the_last_one_runs_jobs_though_it_is_drained_by_its_name(two: SeveralWorld) -> None:
    """As after a restart: with one ComfyUI nobody looks for its name."""
    assert (await drain(two, "--comfyui", FIRST)).code == 0
    await take_out(two)
    await until_gone(two)
    prompt_id = await submit(two, quick(1))
    await ended(two, [prompt_id])
    assert ran_where(two, [prompt_id]) == {FIRST: 1}


async def test_one_comfyui_by_two_names_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At the start, after a reload, and by `comfygate check`."""
    async with several(tmp_path, (FIRST,)) as world:
        address = world.first.url.replace("127.0.0.1", "localhost")
        assert address != world.first.url
        again = f'[[comfyui]]\nname = "{SECOND}"\nurl = "{address}"\n'
        told_of = f"{FIRST} and {SECOND} are one ComfyUI: both urls lead to {world.first.url.removeprefix('http://')}."
        await put_in(world, again)
        async with asyncio.timeout(240):
            while told_of not in caplog.text:
                await asyncio.sleep(0.01)
        said = await comfygate(world, "check")
        assert f"warning: {told_of}" in said.err
        caplog.clear()
        async with running_gate(tmp_path, "", wait=False, more=f"{table(FIRST, world.first)}\n{again}"):
            async with asyncio.timeout(240):
                while told_of not in caplog.text:
                    await asyncio.sleep(0.01)


async def test_while_one_comes_and_goes_again_and_again_every_job_runs_once(two: SeveralWorld) -> None:
    """With jobs that are short, so that they come and end at every moment of it."""
    file, gate = two.gate.config_file, two.gate.gate
    written = file.read_text(encoding="utf-8")
    texts = (without(written, SECOND), written)
    async with listening(two.gate) as socket:
        ids: list[str] = []
        for turn in range(12):
            ids += [await submit(two, slow(0.02 * (number % 4), 1)) for number in range(4)]
            file.write_text(texts[turn % 2], encoding="utf-8")
            assert await gate.reload(file)
            if turn % 3 == 0:
                await ended(two, ids[-2:-1])
        entries = await ended(two, ids)
        assert not socket.closed
    assert {entry["status"]["status_str"] for entry in entries.values()} == {"success"}
    # Not what was sent: a submission that breaks off with its connection, and does not arrive, is sent again.
    assert sum([await count_runs(two, each) for each in two.comfyuis.values()]) == len(ids)


async def count_runs(world: SeveralWorld, comfy: StandIn) -> int:
    async with world.gate.session.get(f"{comfy.url}/internal/logs/raw") as logs:
        entries = (await logs.json())["entries"]
    return sum(entry["m"].startswith("Prompt executed") for entry in entries)
