"""Files of ComfyUIs that come and go while the gate runs."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.needs import Needs
from policy.principal import TenantId
from proxy.jobs.queue_watchers import is_heard
from proxy.wiring import fleet
from tests.contract.driver import slow
from tests.several.changing import (
    THIRD,
    beside,
    both_are_used,
    put_back,
    put_in,
    restarted,
    running,
    table,
    take_out,
    there,
    until_gone,
)
from tests.several.making import preview_at, previewing
from tests.several.test_draining import drain, given_to, stop
from tests.several.test_files import FOLDER, body_of, made_at, view
from tests.several.test_placing import ended, quick, ran_where, submit
from tests.several.world import FIRST, SECOND, SeveralWorld, put_model, several

pytestmark = pytest.mark.usefixtures("gone_soon")


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


@pytest.mark.parametrize("has_directories", [True, False])
async def test_that_one_has_gone_is_told_to_those_alone_whose_jobs_it_ran(
    tmp_path: Path, has_directories: bool
) -> None:
    """For all others its name is as one that never was, also after a restart of the gate."""
    async with several(tmp_path, has_directories=has_directories, settings={FIRST: 'tenants = ["mallory"]'}) as world:
        [entry] = (await ended(world, [await submit(world, quick(1))])).values()
        [made] = entry["outputs"]["2"]["images"]
        await take_out(world)
        await until_gone(world)
        await _is_as_one_that_never_was(world, made["filename"])
        async with restarted(world):
            await _is_as_one_that_never_was(world, made["filename"])


async def _is_as_one_that_never_was(world: SeveralWorld, name: str) -> None:
    """For mallory; alice, whose file this is, is told."""
    for method in ("GET", "HEAD"):
        gone, unknown = [await _told(world, method, view(name, subfolder=folder)) for folder in (FOLDER, "@gpu-9")]
        assert gone == unknown
        assert gone[0] == 404
        assert await world.gate.status(method, view(name, subfolder=FOLDER), "alice") == 503


async def test_that_one_is_away_is_told_to_those_alone_whose_jobs_it_runs(tmp_path: Path) -> None:
    """For all others its name is as one that never was."""
    settings = {FIRST: 'tenants = ["mallory"]', SECOND: 'tenants = ["alice"]'}
    async with several(tmp_path, has_directories=False, settings=settings) as world:
        [entry] = (await ended(world, [await submit(world, quick(1))])).values()
        [made] = entry["outputs"]["2"]["images"]
        await world.stop(SECOND)
        await _is_as_one_that_never_was(world, made["filename"])
        put_back_to = {FIRST: 'tenants = ["alice"]', SECOND: 'tenants = ["mallory"]'}
        text = world.gate.config_file.read_text(encoding="utf-8")
        for name in (FIRST, SECOND):
            text = text.replace(settings[name], f"# {name}")
        for name in (FIRST, SECOND):
            text = text.replace(f"# {name}\n", f"{put_back_to[name]}\n")
        await put_back(world, text)
        address = view(made["filename"], subfolder=FOLDER)
        assert await world.gate.status("GET", address, "alice") == 503, "whose job was there"
        assert await world.gate.status("GET", address, "mallory") == 503, "whose jobs may be there"


async def test_nobody_is_waited_for_in_vain(tmp_path: Path) -> None:
    """Where a ComfyUI accepts connections and says nothing, its name is as one that never was, at once: it is not asked."""
    settings = {FIRST: 'tenants = ["mallory"]', SECOND: 'tenants = ["alice"]'}
    asked: list[bytes] = []

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        await reader.read()
        writer.close()

    async with several(tmp_path, has_directories=False, settings=settings) as world:
        name, comfy = await made_at(world, SECOND), world.comfyuis[SECOND]
        await world.stop(SECOND)
        while is_heard(world.gate.gate.dependencies.queue_watchers, SECOND):
            await asyncio.sleep(0.01)
        async with await asyncio.start_server(say_nothing, comfy.host, comfy.port):
            for method in ("GET", "HEAD"):
                away, unknown = [
                    await _told(world, method, view(name, subfolder=folder)) for folder in (FOLDER, "@gpu-9")
                ]
                assert away == unknown
                assert away[0] == 404
            assert not [line for line in asked if b"/view" in line]


async def _told(world: SeveralWorld, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    """All that an answer says to mallory, but for its own id and time."""
    async with world.gate.call(method, path, "mallory") as answer:
        fields = {
            name: value for name, value in answer.headers.items() if name not in ("Date", "X-Request-ID", "RateLimit")
        }
        return answer.status, fields, re.sub(rb'"request_id":"[^"]*"', b"", await answer.read())


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
        name, _ = await made_at(two, SECOND), await preview_at(two, SECOND, "alice", 3)
        await take_out(two)
        await until_gone(two)
        put_model(comfy, "third.safetensors")
        await put_in(two, table(THIRD, comfy))
        await two.gate.gate.dependencies.queue_watchers.of(THIRD).is_settled.wait()
        transfers = two.gate.gate.dependencies.transfers
        assert transfers is not None
        submitted = await two.gate.json("POST", "/prompt", "alice", json={"prompt": reading(name), "client_id": "tab"})
        assert "Invalid image file" in str(submitted)
        path = f"tenants/alice/{FOLDER}/{name}"
        needs = Needs(files=((Folder.OUTPUT, UpstreamPath(path)),))
        told_of = await transfers.bring(TenantId("alice"), needs, THIRD)
        assert told_of is not None
        assert "could not be read from the ComfyUI that has it" in str(told_of.value)


async def test_previews_of_one_address_are_not_read_at_another(tmp_path: Path) -> None:
    """There may be a neighbour's of that name."""
    async with several(tmp_path) as world, beside(world, "elsewhere") as other:
        preview = await preview_at(world, SECOND, "alice", 3)
        address = view(preview, type="temp")
        assert (await body_of(world, address)).startswith(b"\x89PNG")
        neighbours = Path(other.folders.temp, preview)
        neighbours.parent.mkdir(exist_ok=True)
        neighbours.write_bytes(b"a neighbour's")
        file, old = world.gate.config_file, world.comfyuis[SECOND]
        text = file.read_text(encoding="utf-8")
        text = text.replace(old.url, other.url).replace(str(old.folders.base), str(other.folders.base))
        file.write_text(text, encoding="utf-8")
        assert await world.gate.gate.reload(file)
        while world.gate.gate.dependencies.upstream.of(SECOND).url != other.url:
            await asyncio.sleep(0.01)
        assert await world.gate.status("GET", address, "alice") == 404


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


async def test_what_the_first_one_shared_with_one_that_has_gone_is_still_there(tmp_path: Path) -> None:
    async with several(tmp_path, is_shared=True) as world:
        name = await made_at(world, SECOND, 2)
        address = view(name, subfolder=FOLDER)
        before = await body_of(world, address)
        await take_out(world)
        await until_gone(world)
        assert await body_of(world, address) == before
        assert await world.gate.status("GET", address, "mallory") == 404


def reading(name: str) -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": f"{FOLDER}/{name} [output]"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


async def test_one_that_leaves_stays_for_jobs_of_others_that_read_what_it_has_made(tmp_path: Path) -> None:
    """Those that wait, and those whose files are just brought."""
    async with several(tmp_path, has_directories=False) as world:
        name = await made_at(world, SECOND)
        assert (await drain(world, "--comfyui", SECOND)).code == 0
        busy = [await submit(world, slow()) for _ in range(2)]
        while len(given_to(world, FIRST)) < 2:
            await asyncio.sleep(0.02)
        waits = await submit(world, reading(name))
        leaving = world.gate.gate._fleet
        assert leaving is not None
        await take_out(world)
        assert await leaving._is_read(SECOND)

        preparation, begun, go_on = world.gate.gate.dependencies.jobs.preparation, asyncio.Event(), asyncio.Event()
        bring = preparation.bring

        async def slowly(tenant: TenantId, needs: Needs, comfyui: str) -> Any:
            begun.set()
            await go_on.wait()
            return await bring(tenant, needs, comfyui)

        preparation.bring = slowly
        await stop(world, busy)
        await begun.wait()
        assert waits in given_to(world, FIRST)
        assert await leaving._is_read(SECOND)
        assert there(world) == [FIRST, SECOND]
        go_on.set()
        entry = (await ended(world, [waits]))[waits]
        assert entry["status"]["status_str"] == "success"
        await until_gone(world)


async def test_but_not_for_ever(two: SeveralWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant may send jobs that no ComfyUI runs for long."""
    monkeypatch.setattr(fleet, "READ_WITHIN_S", 0.0)
    name = await made_at(two, SECOND)
    assert (await drain(two)).code == 0
    await submit(two, reading(name))
    await take_out(two)
    await until_gone(two)
