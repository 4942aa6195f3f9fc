"""What one of two ComfyUIs has made is read from that one, by its tenant alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from policy.call import UpstreamCall
from policy.principal import TenantId
from proxy.jobs.job import Job, JobState
from proxy.jobs.temp_files import Made
from proxy.upstream.client import UpstreamStream
from tests.several.making import preview_at, run_at, saving
from tests.several.world import FIRST, SECOND, SeveralWorld, several

FOLDER = f"@{SECOND}"


def view(filename: str, **more: str) -> str:
    return "/view?" + urlencode({"filename": filename, **more})


async def made_at(world: SeveralWorld, name: str, color: int = 0, tenant: str = "alice") -> str:
    """A file of the tenant's, by its name: all have the same."""
    folder = "" if name == FIRST else f"@{name}/"
    [made] = await run_at(world, name, saving(f"tenants/{tenant}/{folder}x", color))
    return made["filename"]


async def body_of(world: SeveralWorld, path: str, who: str = "alice", **more: Any) -> bytes:
    async with world.gate.call("GET", path, who, **more) as answer:
        assert answer.status in (200, 206), await answer.text()
        return await answer.read()


@pytest.mark.parametrize("has_directories", [True, False])
async def test_each_file_comes_from_the_one_that_made_it(tmp_path: Path, has_directories: bool) -> None:
    async with several(tmp_path, has_directories=has_directories) as world:
        first, second = await made_at(world, FIRST, 1), await made_at(world, SECOND, 2)
        assert first == second
        one, two = await body_of(world, view(first)), await body_of(world, view(second, subfolder=FOLDER))
        assert one != two
        part = await body_of(world, view(second, subfolder=FOLDER), headers={"Range": "bytes=8-19"})
        assert part == two[8:20]
        assert await world.gate.status("HEAD", view(second, subfolder=FOLDER), "alice") == 200
        assert await body_of(world, view(second, subfolder=FOLDER, preview="webp;80")) != b""


@pytest.mark.parametrize("has_directories", [True, False])
async def test_a_preview_comes_from_the_one_whose_job_it_is_of(tmp_path: Path, has_directories: bool) -> None:
    async with several(tmp_path, has_directories=has_directories) as world:
        name = await preview_at(world, SECOND, "alice", 3)
        world.comfyuis[FIRST].received.clear()
        assert (await body_of(world, view(name, type="temp"))).startswith(b"\x89PNG")
        assert await world.gate.status("GET", view(name, type="temp"), "mallory") == 404
        assert not [
            each for each in world.comfyuis[FIRST].received if name in each.raw_path and "alice" in each.raw_path
        ]


@pytest.mark.parametrize("has_directories", [True, False])
async def test_previews_of_one_name_at_two_of_them_are_each_its_own_tenants(
    tmp_path: Path, has_directories: bool
) -> None:
    path = view("same.png", type="temp")
    async with several(tmp_path, has_directories=has_directories) as world:
        registry = world.gate.gate.dependencies.registry
        jobs = []
        for name, tenant, data in ((FIRST, "alice", b"alices"), (SECOND, "mallory", b"mallorys")):
            folder = Path(world.comfyuis[name].folders.temp)
            folder.mkdir(exist_ok=True)
            (folder / "same.png").write_bytes(data)
            job = registry.claim(TenantId(tenant), None)
            job.comfyui, job.over_at_s = name, time.time()
            registry.add_temp_files(job.prompt_id, ["same.png"], Made.NOW)
            job.state, job.ended_at_s = JobState.ENDED, job.over_at_s
            jobs.append(job)
        assert await body_of(world, path, "mallory") == b"mallorys"
        assert await world.gate.status("GET", path, "alice") == 404, "by this name there is the other one"
        for tenant in ("alice", "mallory"):
            [(name, left)] = registry.old_temp_files(TenantId(tenant), -1.0)
            assert (name, left.comfyui) == ("same.png", FIRST if tenant == "alice" else SECOND)
        registry.temp_files.release(jobs[1])
        assert await body_of(world, path, "alice") == b"alices"
        assert await world.gate.status("GET", path, "mallory") == 404


async def test_a_preview_is_shown_from_where_its_own_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the name has led to a neighbour's, of which the gate heard just when it asked, and leads to the tenant's own again when the answer is
    there."""
    path = view("same.png", type="temp")
    async with several(tmp_path, has_directories=False) as world:
        registry = world.gate.gate.dependencies.registry
        jobs = {}
        for name, tenant in ((SECOND, "mallory"), (FIRST, "alice")):
            folder = Path(world.comfyuis[name].folders.temp)
            folder.mkdir(exist_ok=True)
            (folder / "same.png").write_bytes(f"{tenant}s".encode())
            jobs[tenant] = job = registry.claim(TenantId(tenant), None)
            job.comfyui, job.state = name, JobState.RUNNING
            registry.add_temp_files(job.prompt_id, ["same.png" if tenant == "alice" else "other.png"], Made.NOW)
        opened: list[UpstreamStream] = []
        upstream = world.gate.gate.dependencies.upstream
        open_stream = upstream.open

        async def open_between(call: UpstreamCall, *more: Any, **options: Any) -> UpstreamStream:
            if call.file is None or opened:
                return await open_stream(call, *more, **options)
            registry.add_temp_files(jobs["mallory"].prompt_id, ["same.png"], Made.NOW)
            opened.append(stream := await open_stream(call, *more, **options))
            jobs["mallory"].over_at_s = time.time()
            return stream

        monkeypatch.setattr(upstream, "open", open_between)
        assert await body_of(world, path) == b"alices"
        assert [stream.comfyui for stream in opened] == [SECOND]


@pytest.mark.parametrize("has_directories", [True, False])
async def test_a_preview_of_a_run_that_may_be_lost_is_not_shown(tmp_path: Path, has_directories: bool) -> None:
    """The file may be a neighbour's, whose job another gate has given since ComfyUI was restarted."""
    async with several(tmp_path, has_directories=has_directories) as world:
        registry = world.gate.gate.dependencies.registry
        name = await preview_at(world, SECOND, "alice", 3)
        job = registry.temp_files.origin(TenantId("alice"), name)
        assert isinstance(job, Job)
        path, now = view(name, type="temp"), registry.connections.to(SECOND)
        for seen_in, status in ((now, 200), (now - 1, 503)):
            job.state, job.seen_in = JobState.RUNNING, seen_in
            assert await world.gate.status("GET", path, "alice") == status


async def test_a_neighbour_reaches_nothing_by_the_name_of_a_comfyui(two: SeveralWorld) -> None:
    """Nor what lies in another one's own folder, nor anything but a ComfyUI of the configuration."""
    name = await made_at(two, SECOND)
    Path(two.comfyuis[SECOND].folders.output, "operators.png").write_bytes(b"secret")
    for subfolder, filename in [
        (FOLDER, name),
        (f"tenants/alice/{FOLDER}", name),
        (f"{FOLDER}/tenants/alice/{FOLDER}", name),
        (f"{FOLDER}/..", name),
        (f"{FOLDER}/../../alice/{FOLDER}", name),
        (FOLDER, "operators.png"),
        (FOLDER, "../../../operators.png"),
        (f"{FOLDER}/{FOLDER}", name),
        ("@127.0.0.1", name),
        ("@http:", name),
        (f"{FOLDER}%2f..", name),
        (f"@{SECOND.upper()}", name),
        (f"{FOLDER}\\", name),
    ]:
        for kind in ("output", "input", "temp"):
            path = view(filename, subfolder=subfolder, type=kind)
            assert await two.gate.status("GET", path, "mallory") in (400, 404), path


async def test_one_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    async with several(tmp_path, has_directories=False) as world:
        name = await made_at(world, SECOND)
        await world.stop(SECOND)
        async with world.gate.call("GET", view(name, subfolder=FOLDER), "alice") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert SECOND in (await answer.json(content_type=None))["error"]["message"]
        assert await world.gate.status("GET", view(name), "alice") == 404, "the first one has no such file"
        await world.start(SECOND)
        assert await body_of(world, view(name, subfolder=FOLDER))


async def test_what_lies_in_shared_folders_is_there_while_its_maker_is_gone(tmp_path: Path) -> None:
    async with several(tmp_path, is_shared=True, has_directories=False) as world:
        name = await made_at(world, SECOND)
        await world.stop(SECOND)
        assert await body_of(world, view(name, subfolder=FOLDER))


async def test_what_both_have_made_is_listed(two: SeveralWorld) -> None:
    names = [await made_at(two, FIRST), f"{FOLDER}/{await made_at(two, SECOND)}"]
    await made_at(two, SECOND, tenant="mallory")
    listed = await two.gate.json("GET", "/internal/files/output", "alice")
    assert sorted(listed) == sorted(f"{name} [output]" for name in names)


async def test_files_on_the_disk_are_there_while_their_maker_is_gone(two: SeveralWorld) -> None:
    name = await made_at(two, SECOND)
    await two.stop(SECOND)
    assert await body_of(two, view(name, subfolder=FOLDER))
    assert await two.gate.status("GET", view("none.png", subfolder=FOLDER), "alice") == 503


@pytest.mark.parametrize("has_directories", [True, False])
async def test_a_picture_says_nothing_of_where_it_was_made(tmp_path: Path, has_directories: bool) -> None:
    """Its workflow, dropped on the web UI, is the one that was sent."""
    async with several(tmp_path, has_directories=has_directories) as world:
        name = await made_at(world, SECOND)
        assert b'"filename_prefix": "x"' in await body_of(world, view(name, subfolder=FOLDER))
        part = await body_of(world, view(name, subfolder=FOLDER), headers={"Range": "bytes=0-10000"})
        assert b'"filename_prefix": "x"' in part
