"""Names that come back: a temp file that was deleted, a job id that somebody has beside the gate. Who made it last owns it, nobody else."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.principal import TenantId
from proxy.app import Gate
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.jobs.temp_files import CLOCK_SLACK_S
from tests.contract.conftest import REAL_URL, TARGETS
from tests.contract.driver import images_of, loading, node, previewing, saving, slow
from tests.matrix.people import COLORS, NUMBERS, Tenant, is_color, picture_in, png, told, unique
from tests.matrix.test_restarts import restarted_gate
from tests.matrix.world import REAL_BASE, World, open_world
from tests.proxy.upstreams import GUARD_S

DAY = '\n[limits.alices]\nrequests = "100000/minute"\nprompts = "100000/minute"\nretention = "1ms"\n'


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    if request.param == "real" and REAL_BASE is None:
        pytest.skip("COMFYUI_DIRECTORY does not say where its files lie")
    return REAL_URL if request.param == "real" else ""


@asynccontextmanager
async def seeing(folder: Path, target: str, *, more: str = "") -> AsyncIterator[World]:
    """A gate that sees ComfyUI's folders."""
    base = REAL_BASE if target else folder / "comfyui"
    async with open_world(folder, real_url=target, upstream_more=f'directory = "{base}"', more=more) as world:
        yield world


async def with_one_name(world: World) -> tuple[dict[str, Any], dict[str, Any], dict[str, str], Path]:
    """The history entries of alice's job and of mallory's later one, whose file got the name of hers, which is gone; the name, the file."""
    alices = await world.alice.run(previewing(NUMBERS["alice"]))
    name = images_of(alices)[0]
    assert (await world.alice.file(name)).status == 200
    assert world.base is not None
    file = world.base / "temp" / name["filename"]
    written_s = file.stat().st_mtime
    file.unlink()
    while time.time() < written_s + 4 * CLOCK_SLACK_S:
        await world.alice.get("/queue")
    mallorys = await world.mallory.run(previewing(NUMBERS["mallory"]))
    assert images_of(mallorys)[0] == name, "else this test tries nothing"
    return alices, mallorys, name, file


async def read_everything(tenant: Tenant, prompt_id: str) -> None:
    """Each way in which a client is told of a job that ended long ago."""
    for path in (f"/history/{prompt_id}", "/history", f"/api/jobs/{prompt_id}", "/api/jobs", "/queue"):
        await tenant.get(path)


async def sees_nothing(tenant: Tenant, name: dict[str, str]) -> None:
    absent = await tenant.view(f"absent-{name['filename']}", type="temp")
    seen = await tenant.file(name)
    assert (seen.status, seen.body) == (404, absent.body), told(seen)
    assert (await tenant.view(name["filename"], type="temp", preview="webp;80")).status == 404
    assert (await tenant.submit(loading(f"{name['filename']} [temp]"))).status != 200


async def sees_its_own(tenant: Tenant, name: dict[str, str]) -> None:
    picture = picture_in((await tenant.file(name)).body)
    assert picture is not None
    assert is_color(picture, COLORS[tenant.who])


async def test_an_old_history_gives_no_name_back(tmp_path: Path, target: str) -> None:
    """The former owner reads its history, by every way, after each step of the name's life."""
    async with seeing(tmp_path, target) as world:
        alice, mallory = world.alice, world.mallory
        alices, mallorys, name, _ = await with_one_name(world)
        await read_everything(alice, alices["prompt"][1])
        await sees_nothing(alice, name)
        await sees_its_own(mallory, name)
        await mallory.post("/history", json={"delete": [mallorys["prompt"][1]]})
        await read_everything(alice, alices["prompt"][1])
        await sees_nothing(alice, name)
        await sees_nothing(mallory, name)


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_a_gate_that_was_started_anew_gives_no_name_back(tmp_path: Path, target: str, is_deleted: bool) -> None:
    """It knows the histories alone, and not even both when the new owner deleted its job."""
    async with seeing(tmp_path, target) as world:
        alice, mallory = world.alice, world.mallory
        alices, mallorys, name, _ = await with_one_name(world)
        if is_deleted:
            await mallory.post("/history", json={"delete": [mallorys["prompt"][1]]})
        async with restarted_gate(world):
            await sees_nothing(alice, name)
            await read_everything(alice, alices["prompt"][1])
            await sees_nothing(alice, name)
            if not is_deleted:
                await read_everything(mallory, mallorys["prompt"][1])


@pytest.mark.parametrize("is_anew", [False, True])
async def test_retention_deletes_no_neighbours_file(tmp_path: Path, target: str, is_anew: bool) -> None:
    """alice's job is old, and so is the name; the file is not."""
    async with seeing(tmp_path, target, more=DAY) as world:
        config = world.running.config_file
        config.write_text(config.read_text().replace("[tenants.alice]", '[tenants.alice]\nlimits = "alices"'))
        assert await world.running.gate.reload(config)
        alices, mallorys, _, file = await with_one_name(world)
        await read_everything(world.alice, alices["prompt"][1])
        await world.running.gate.dependencies.storage.sweep()
        assert file.exists()
        await world.mallory.post("/history", json={"delete": [mallorys["prompt"][1]]})
        await read_everything(world.alice, alices["prompt"][1])
        await world.running.gate.dependencies.storage.sweep()
        assert file.exists()
        if is_anew:
            async with restarted_gate(world) as gate:
                await gate.dependencies.storage.sweep()
                assert file.exists()


async def test_a_job_that_the_cache_answers_gives_no_name_back(tmp_path: Path, target: str) -> None:
    """ComfyUI announces the old name under the new job's id, if its cache still has the node (it does with --cache-lru)."""
    async with seeing(tmp_path, target) as world:
        _, _, name, _ = await with_one_name(world)
        again = await world.alice.run(previewing(NUMBERS["alice"]))
        if images_of(again)[0] == name:
            await sees_nothing(world.alice, name)
        else:
            await sees_its_own(world.alice, images_of(again)[0])
        await sees_its_own(world.mallory, name)


async def test_a_job_that_the_cache_answers_shows_its_picture(tmp_path: Path, target: str) -> None:
    """Also after its earlier run was deleted from the history."""
    async with seeing(tmp_path, target) as world:
        shade = new_shade()
        for _ in range(3):
            entry = await world.alice.run(previewing(NUMBERS["alice"] ^ shade))
            await sees_its_own(world.alice, images_of(entry)[0])
            await world.alice.post("/history", json={"clear": True})
            await sees_nothing(world.alice, images_of(entry)[0])


async def test_a_temp_name_that_comes_back_is_its_makers(standing: World, tmp_path: Path) -> None:
    """ComfyUI numbers on from what lies in the folder: alice's file is deleted, and mallory's gets its name."""
    alice, mallory = standing.alice, standing.mallory
    old = images_of(await alice.run(previewing(NUMBERS["alice"])))[0]
    assert (await alice.file(old)).status == 200
    (tmp_path / "comfyui" / "temp" / old["filename"]).unlink()
    new = images_of(await mallory.run(previewing(NUMBERS["mallory"])))[0]
    assert new == old, "else this test tries nothing"
    picture = picture_in((await mallory.file(new)).body)
    assert picture is not None
    assert is_color(picture, COLORS["mallory"])
    assert (await alice.file(old)).status == 404


@asynccontextmanager
async def taken_over(world: World) -> AsyncIterator[dict[str, Any]]:
    """The history entry of alice's job, the name of whose file mallory's job has taken, which still runs. Nobody hears of that."""
    alice, mallory = world.alice, world.mallory
    entry = await alice.run(previewing(NUMBERS["alice"] ^ new_shade()))
    assert world.base is not None
    file = world.base / "temp" / images_of(entry)[0]["filename"]
    written_s = file.stat().st_mtime
    file.unlink()
    while time.time() < written_s + 4 * CLOCK_SLACK_S:
        await alice.get("/queue")
    graph = previewing(NUMBERS["mallory"] ^ new_shade()) | {
        "8": node("SlowProgress", image=["1", 0], seconds=GUARD_S, steps=2400),
        "9": node("PreviewImage", images=["8", 0]),
    }
    job = (await mallory.post("/prompt", json={"prompt": graph, "client_id": "nobody-listens"})).json()["prompt_id"]
    async with asyncio.timeout(GUARD_S):
        while not file.exists():
            await asyncio.sleep(0.01)
    yield entry
    await mallory.post(f"/api/v2/jobs/{job}/cancel")


def new_shade() -> int:
    """Of a colour, as nobody else has it: else a real ComfyUI has it in its cache from a time before this gate."""
    return uuid.uuid4().int & 0x070707


@pytest.mark.parametrize("preview", ["", "webp;80"])
async def test_a_name_that_comes_back_is_not_shown_while_its_new_maker_runs(
    tmp_path: Path, target: str, preview: str
) -> None:
    """The gate does not see the folders. The file says when it was written, or is asked for that where it is another picture that is shown."""
    async with open_world(tmp_path, real_url=target) as world, taken_over(world) as entry:
        [name], alice = images_of(entry), world.alice
        asked = {"preview": preview} if preview else {}
        absent = await alice.view(f"absent-{name['filename']}", type="temp", **asked)
        shown = await alice.view(name["filename"], type="temp", **asked)
        assert (shown.status, shown.body) == (404, absent.body), told(shown)
        await read_everything(alice, entry["prompt"][1])
        await sees_nothing(alice, name)


async def test_what_is_opened_is_what_was_looked_for(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the door of the SDKs, and by that of functions: mallory's file comes between the gate's look at the name and its opening of the file."""
    find, swapping = ComfyUIFolders.find, False

    async def swap(folders: ComfyUIFolders, folder: Folder, path: UpstreamPath) -> Path | None:
        file = await find(folders, folder, path)
        if swapping and file is not None:
            file.unlink()
            file.write_bytes(png(COLORS["mallory"], (32, 32)))
        return file

    monkeypatch.setattr(ComfyUIFolders, "find", swap)
    async with seeing(tmp_path, target) as world:
        for door in ("/api/v2/assets/{output}/content", "/gate/jobs/{job}/outputs/{node}"):
            swapping = False
            job = (await world.alice.run(previewing(NUMBERS["alice"] ^ new_shade())))["prompt"][1]
            [output] = (await world.alice.get(f"/api/v2/jobs/{job}")).json()["outputs"]
            address = door.format(output=output["id"], job=job, node=output["node_id"])
            assert (await world.alice.get(address)).status == 200
            swapping = True
            answer = await world.alice.get(address)
            assert (answer.status, picture_in(answer.body)) == (404, None), told(answer)


async def test_nothing_is_made_of_a_name_that_comes_back(tmp_path: Path, target: str) -> None:
    """By a workflow, or by a mask, which gets the pixels of the picture that it is for."""
    async with open_world(tmp_path, real_url=target) as world, taken_over(world) as entry:
        [name], alice = images_of(entry), world.alice
        assert (await alice.submit(loading(f"{name['filename']} [temp]"))).status != 200
    async with open_world(tmp_path, real_url=target) as world, taken_over(world) as entry:
        [name], alice = images_of(entry), world.alice
        original = json.dumps({"filename": name["filename"], "type": "temp"})
        mask = f"{unique()}.png"
        answer = await alice.upload(mask, png(COLORS["alice"], (32, 32)), "/upload/mask", original_ref=original)
        assert answer.status == 200, "as ComfyUI says also where it has no such original"
        assert (await alice.view(mask, type="input")).status == 404


async def test_a_preview_is_shown_while_its_job_runs(tmp_path: Path, target: str) -> None:
    graph = previewing(NUMBERS["alice"] ^ new_shade()) | {
        "8": node("SlowProgress", image=["1", 0], seconds=GUARD_S, steps=2400),
        "9": node("PreviewImage", images=["8", 0]),
    }
    async with open_world(tmp_path, real_url=target) as world, asyncio.timeout(GUARD_S), world.alice.socket() as socket:
        job = await world.alice.queue(graph, client_id=socket.sid)
        event = await socket.event("executed", job)
        [name] = event["output"]["images"]
        await sees_its_own(world.alice, name)
        picture = picture_in((await world.alice.view(name["filename"], type="temp", preview="webp;80")).body)
        assert picture is not None
        assert is_color(picture, COLORS["alice"])
        await world.alice.post(f"/api/v2/jobs/{job}/cancel")


async def test_a_result_is_not_measured_by_a_file_that_is_newer_than_its_job(tmp_path: Path, target: str) -> None:
    async with open_world(tmp_path, real_url=target) as world, taken_over(world) as entry:
        shown = (await world.alice.get(f"/api/v2/jobs/{entry['prompt'][1]}")).json()
        assert (shown["status"], shown["outputs"]) == ("succeeded", [])


async def test_a_name_is_nobodys_as_soon_as_the_gate_deletes_the_file(tmp_path: Path) -> None:
    base = tmp_path / "comfyui"
    async with open_world(tmp_path, upstream_more=f'directory = "{base}"', more=DAY) as world:
        old = images_of(await world.alice.run(previewing(NUMBERS["alice"])))[0]
        dependencies = world.running.gate.dependencies
        while dependencies.registry.active():
            await asyncio.sleep(0)
        names = dependencies.registry.old_temp_files(TenantId("alice"), -1.0)
        assert dict(names).keys() == {old["filename"]}
        dependencies.registry.temp_files.forget(names)
        assert (await world.alice.file(old)).status == 404, "before it is gone from the disk"
        assert (base / "temp" / old["filename"]).exists()


async def test_the_id_of_a_job_beside_the_gate_is_not_claimed(world: World) -> None:
    """Else two jobs had one id: mallory would read, stop and overwrite the other one by it."""
    ended, waiting = str(uuid.uuid4()), str(uuid.uuid4())
    note = unique("note")
    world.mallory.secrets.add(note.encode())
    extra = {"extra_pnginfo": {"workflow": {"id": note, "note": note}}}
    await world.direct.run(saving("direct", NUMBERS["direct"]), prompt_id=ended, extra_data=extra)
    async with world.direct.blocked() as running:
        await world.direct.queue(slow(), prompt_id=waiting, extra_data=extra)
        await world.running.gate.dependencies.queue_watchers.first.sync()
        for wish in (ended, running, waiting):
            world.mallory.own_words.add(wish.encode())
            answer = await world.mallory.submit(previewing(NUMBERS["mallory"]), prompt_id=wish)
            assert answer.status == 200, told(answer)
            assert answer.json()["prompt_id"] != wish
            assert (await world.mallory.get(f"/history/{wish}")).json() == {}
            assert (await world.mallory.get(f"/api/jobs/{wish}")).status == 404
            await world.mallory.post(f"/api/jobs/{wish}/cancel")
            await world.mallory.post("/interrupt", json={"prompt_id": wish})
        queue = (await world.direct.get("/queue")).json()
        assert [item[1] for item in queue["queue_running"]] == [running]
        assert waiting in [item[1] for item in queue["queue_pending"]]
        await world.direct.post("/queue", json={"delete": [waiting]})


async def test_a_deleted_job_is_counted_no_more(world: World) -> None:
    """A page of the history is as long as if what was deleted had never been."""
    jobs = [(await world.alice.run(saving("page", color)))["prompt"][1] for color in range(4)]
    await world.alice.post("/history", json={"delete": jobs[2:]})
    newest = (await world.alice.get("/history?max_items=1")).json()
    assert list(newest) == [jobs[1]]
    async with world.alice.socket() as socket:
        running = await world.alice.queue(slow(), client_id=socket.sid)
        await socket.event("progress", running)
        waiting = await world.alice.queue(saving("page", 9), client_id=socket.sid)
        await world.alice.post("/queue", json={"delete": [waiting]})
        await world.running.gate.dependencies.queue_watchers.first.sync()
        assert list((await world.alice.get("/history?max_items=1")).json()) == [jobs[1]]
        await world.alice.post("/interrupt", json={})
        await socket.end_of(running)


@pytest.mark.parametrize("target", TARGETS)
async def test_gpu_seconds_of_an_id_that_comes_again_are_counted_again(tmp_path: Path, target: str) -> None:
    """alice runs, deletes the job, and submits under the same id; a gate that was started anew counts on."""
    wish, real_url = str(uuid.uuid4()), REAL_URL if target == "real" else ""

    async def run(gate: Gate, expected_s: float) -> None:
        assert (await world.alice.run(slow(0.2, 2), prompt_id=wish))["prompt"][1] == wish
        while gate.dependencies.registry.active():
            await asyncio.sleep(0)
        await world.alice.post("/history", json={"delete": [wish]})
        used_s = 0.0
        while used_s < expected_s:
            await asyncio.sleep(0)
            (left,) = await gate._limits.budgets.remaining(TenantId("alice"))
            used_s = left.total - left.remaining

    more = 'gpu_seconds = "1000/day"'
    async with open_world(tmp_path, real_url=real_url, more=more) as world, asyncio.timeout(GUARD_S):
        for runs in (1, 2, 3, 4):
            await run(world.running.gate, 0.15 * runs)
        async with restarted_gate(world) as gate:
            await run(gate, 0.6 + 0.15)
