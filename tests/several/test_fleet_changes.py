"""ComfyUIs come and go while the gate runs, by a reload of its configuration."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.needs import Needs
from policy.principal import TenantId
from proxy.wiring import fleet
from standin import StandIn
from tests.contract.driver import slow
from tests.harness import running_gate
from tests.several.making import preview_at, previewing
from tests.several.test_draining import comfygate, drain, given_to, stop
from tests.several.test_files import FOLDER, body_of, made_at, view
from tests.several.test_live_events import graph, listening, read_until
from tests.several.test_metrics import told, until
from tests.several.test_placing import ended, quick, ran_where, submit
from tests.several.test_warmups import sample, write_function
from tests.several.world import FIRST, SECOND, SeveralWorld, put_model, several

THIRD = "gpu-3"


@pytest.fixture(autouse=True)
def gone_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "STAYS_S", 0.0)
    monkeypatch.setattr(fleet, "LOOK_EACH_S", 0.01)


def table(name: str, comfy: StandIn, more: str = "", *, has_directory: bool = True) -> str:
    lines = [f'name = "{name}"', f'url = "{comfy.url}"']
    lines += [f'directory = "{comfy.folders.base}"'] if has_directory else []
    return "\n".join(["[[comfyui]]", *lines, more, ""])


async def put_in(world: SeveralWorld, *tables: str) -> None:
    file = world.gate.config_file
    file.write_text(file.read_text(encoding="utf-8") + "\n" + "\n".join(tables), encoding="utf-8")
    assert await world.gate.gate.reload(file)


def without(text: str, name: str) -> str:
    """A configuration without the table of this ComfyUI."""
    begin = text.index(f'[[comfyui]]\nname = "{name}"')
    end = text.find("\n[", begin + 1)
    return text[:begin] + (text[end + 1 :] if end >= 0 else "")


async def take_out(world: SeveralWorld, name: str = SECOND) -> str:
    """The configuration as it was."""
    file = world.gate.config_file
    written = file.read_text(encoding="utf-8")
    file.write_text(without(written, name), encoding="utf-8")
    assert await world.gate.gate.reload(file)
    return written


async def put_back(world: SeveralWorld, written: str) -> None:
    world.gate.config_file.write_text(written, encoding="utf-8")
    assert await world.gate.gate.reload(world.gate.config_file)


def there(world: SeveralWorld) -> list[str]:
    return list(world.gate.gate.dependencies.registry.comfyuis)


async def until_gone(world: SeveralWorld, name: str = SECOND) -> None:
    async with asyncio.timeout(60):
        while name in there(world):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def beside(world: SeveralWorld, name: str) -> AsyncIterator[StandIn]:
    """A ComfyUI that the configuration does not name."""
    comfy = StandIn(world.folder / name, frontend=False)
    await comfy.start()
    try:
        yield comfy
    finally:
        await comfy.stop()


async def running(world: SeveralWorld, name: str) -> str:
    """A job that runs there, and was sent just now."""
    while not (given := given_to(world, name)):
        await asyncio.sleep(0.02)
    return given[0]


async def both_are_used(world: SeveralWorld) -> None:
    ids = [await submit(world, slow()) for _ in range(4)]
    async with asyncio.timeout(60):
        while not len(given_to(world, FIRST)) == len(given_to(world, SECOND)) == 2:
            await asyncio.sleep(0.02)
    await stop(world, ids)


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
    assert f'comfygate_comfyui_up{{comfyui="{SECOND}"}}' in await told(two)
    await stop(two, had)
    await until_gone(two)
    assert not [name for name in await told(two) if SECOND in name]


async def test_what_its_last_job_made_is_there_for_a_while(two: SeveralWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "STAYS_S", 3600.0)
    name = await made_at(two, SECOND)
    jobs = [await submit(two, slow()) for _ in range(2)]
    await running(two, SECOND)
    written = await take_out(two)
    await stop(two, jobs)
    while given_to(two, SECOND):
        await asyncio.sleep(0.02)
    assert await two.gate.status("GET", view(name, subfolder=FOLDER), "alice") == 200
    await put_back(two, written)
    await both_are_used(two)


@pytest.mark.parametrize("has_directories", [True, False])
async def test_when_it_has_gone_its_files_say_so_and_are_there_when_it_is_back(
    tmp_path: Path, has_directories: bool
) -> None:
    async with several(tmp_path, has_directories=has_directories) as world:
        name, preview = await made_at(world, SECOND, 2), await preview_at(world, SECOND, "alice", 3)
        address = view(name, subfolder=FOLDER)
        before = await body_of(world, address)
        assert (await body_of(world, view(preview, type="temp"))).startswith(b"\x89PNG")
        of_first = Path(world.first.folders.temp, preview)
        of_first.parent.mkdir(exist_ok=True)
        of_first.write_bytes(b"a neighbour's")

        written = await take_out(world)
        await until_gone(world)
        async with world.gate.call("GET", address, "alice") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert "gpu-2, is not among the gate's any more" in await answer.text()
        assert await world.gate.status("HEAD", address, "alice") == 503
        assert await world.gate.status("GET", view(preview, type="temp"), "alice") == 404
        assert await world.gate.status("GET", view("x.png", subfolder="@gpu-9"), "alice") == 404

        await put_back(world, written)
        await world.gate.gate.dependencies.queue_watchers.of(SECOND).is_settled.wait()
        assert await body_of(world, address) == before


async def test_what_it_ran_is_in_the_history_and_its_previews_come_back(tmp_path: Path) -> None:
    async with several(tmp_path, settings={FIRST: 'tenants = ["mallory"]'}) as world:
        ids = [await submit(world, previewing(number)) for number in range(2)]
        entries = await ended(world, ids)
        assert ran_where(world, ids) == {SECOND: 2}
        [made] = entries[ids[0]]["outputs"]["2"]["images"]
        address = view(made["filename"], type="temp")
        before = await body_of(world, address)
        written = await take_out(world)
        await until_gone(world)
        assert set(ids) <= set(await world.gate.json("GET", "/history", "alice"))
        assert await world.gate.status("GET", address, "alice") == 404
        await put_back(world, written)
        await world.gate.gate.dependencies.queue_watchers.of(SECOND).is_settled.wait()
        assert ran_where(world, ids) == {SECOND: 2}
        assert await body_of(world, address) == before


async def test_a_job_that_reads_what_one_made_that_has_gone_is_told(two: SeveralWorld) -> None:
    async with beside(two, THIRD) as comfy:
        name = await made_at(two, SECOND)
        await take_out(two)
        await until_gone(two)
        put_model(comfy, "third.safetensors")
        await put_in(two, table(THIRD, comfy))
        await two.gate.gate.dependencies.queue_watchers.of(THIRD).is_settled.wait()
        reading = {
            "1": {"class_type": "LoadImage", "inputs": {"image": f"{FOLDER}/{name} [output]"}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        }
        transfers = two.gate.gate.dependencies.transfers
        assert transfers is not None
        submitted = await two.gate.json("POST", "/prompt", "alice", json={"prompt": reading, "client_id": "tab"})
        assert "Invalid image file" in str(submitted)
        path = f"tenants/alice/{FOLDER}/{name}"
        needs = Needs(files=((Folder.OUTPUT, UpstreamPath(path)),))
        told_of = await transfers.bring(TenantId("alice"), needs, THIRD)
        assert told_of is not None
        assert "could not be read from the ComfyUI that has it" in str(told_of.value)


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
        jobs = [await submit(world, slow(0.5, 4)) for _ in range(2)]
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
    ids = [await submit(two, slow(0.2, 4)) for _ in range(4)]
    await begun.wait()
    await take_out(two)
    assert there(two) == [FIRST, SECOND], "something may be on its way there"
    go_on.set()
    await ended(two, ids)
    assert ran_where(two, ids) == {FIRST: 4}
    assert not [call for call in two.comfyuis[SECOND].received if call.raw_path == "/prompt"]
    await until_gone(two)


async def test_a_file_that_is_being_read_is_read_to_its_end(tmp_path: Path) -> None:
    async with several(tmp_path, has_directories=False) as world:
        name, size = await made_at(world, SECOND), 64 * 1024**2
        folder = Path(world.comfyuis[SECOND].folders.output, "tenants/alice", FOLDER)
        (folder / name).write_bytes(os.urandom(1024) * (size // 1024))
        async with world.gate.call("GET", view(name, subfolder=FOLDER), "alice") as answer:
            read = len(await answer.content.read(1024))
            await take_out(world)
            await until_gone(world)
            async for piece in answer.content.iter_chunked(1024**2):
                read += len(piece)
        assert read == size


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
        async with asyncio.timeout(30):
            while told_of not in caplog.text:
                await asyncio.sleep(0.01)
        said = await comfygate(world, "check")
        assert f"warning: {told_of}" in said.err
        caplog.clear()
        async with running_gate(tmp_path, "", wait=False, more=f"{table(FIRST, world.first)}\n{again}"):
            async with asyncio.timeout(30):
                while told_of not in caplog.text:
                    await asyncio.sleep(0.01)
