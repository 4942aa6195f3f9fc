"""Originals that are wiped when they are copied and their time is over: what is deleted, what never is, and that every door goes on giving the file."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from multidict import CIMultiDictProxy

from policy.copies import CopyState
from proxy.jobs.copy_requests import Copy
from standin import StandIn
from tests.contract.driver import loading
from tests.harness import TENANTS, Running, running_gate
from tests.proxy.copies.making import Ahead, copies, eventually, in_its_own_time, later, made, output_of, read, settled
from tests.proxy.copies.s3 import S3Server, moto_server, storage
from tests.proxy.v2.asking import ask, submit, until

KEEP_S = 3600.0


@asynccontextmanager
async def wiping(tmp_path: Path, comfy: StandIn, server: S3Server, tenants: str = TENANTS) -> AsyncIterator[Running]:
    seen = f'directory = "{tmp_path / "comfyui"}"'
    more = storage(server, tmp_path, f'keep_local = "{KEEP_S:.0f}s"')
    async with running_gate(tmp_path, comfy.url, more=more, upstream_more=seen, tenants=tenants) as running:
        running.comfy = comfy
        yield running


@pytest.fixture
async def gate(tmp_path: Path, comfy: StandIn, s3: S3Server) -> AsyncIterator[Running]:
    async with wiping(tmp_path, comfy, s3) as running:
        yield running


@pytest.fixture
def clock(gate: Running) -> Ahead:
    return in_its_own_time(gate)


def on_disk(gate: Running, tenant: str = "alice") -> list[str]:
    folder = gate.config_file.parent / "comfyui" / "output" / "tenants" / tenant
    return sorted(file.name for file in folder.iterdir())


def _are_wiped(found: Sequence[Copy]) -> bool:
    return all(copy.state == CopyState.WIPED and copy.due_at_s is None for copy in found)


async def wiped(gate: Running, clock: Ahead, prefix: str = "kept") -> str:
    """A job whose file the bucket alone has; a later one with the same prefix has a higher number."""
    first = await made(gate, prefix)
    await made(gate, prefix)
    await settled(gate, 2)
    later(gate, clock, KEEP_S + 1)
    await eventually(gate, _are_wiped)
    return first


async def test_an_original_goes_when_its_time_is_over_and_not_before(gate: Running, clock: Ahead, s3: S3Server) -> None:
    await made(gate, "kept")
    await made(gate, "kept")
    await settled(gate, 2)
    later(gate, clock, KEEP_S - 60)
    assert on_disk(gate) == ["kept_00001_.png", "kept_00002_.png"]
    later(gate, clock, 120)
    await eventually(gate, _are_wiped)
    assert on_disk(gate) == ["kept_00002_.png"]
    assert len(s3.objects()) == 2


async def test_every_door_gives_a_file_that_the_bucket_alone_has(gate: Running, clock: Ahead) -> None:
    bodies = {}
    first = await made(gate, "kept")
    output = await output_of(gate, first)
    doors = (
        "/view?filename=kept_00001_.png",
        "/api/view?filename=kept_00001_.png&type=output",
        "/view?filename=kept_00001_.png+%5Boutput%5D",
        f"/api/v2/assets/{output['id']}/content",
        f"/gate/jobs/{first}/outputs/2",
        f"/gate/jobs/{first}/outputs/kept_00001_.png",
    )
    for door in doors:
        bodies[door] = await read(gate, door)
    await made(gate, "kept")
    await settled(gate, 2)
    later(gate, clock, KEEP_S + 1)
    await eventually(gate, _are_wiped)
    assert on_disk(gate) == ["kept_00002_.png"]
    for door in doors:
        assert await read(gate, door) == bodies[door], door
        assert (await ask_head(gate, door, "mallory"))[0] == 404, door
    # A preview cannot be made any more: the picture itself comes.
    assert await read(gate, "/view?filename=kept_00001_.png&preview=webp") == bodies[doors[0]]
    assert (await ask(gate, "GET", f"/api/v2/assets/{output['id']}")).body["size_bytes"] == len(bodies[doors[0]])
    async with gate.session.get((await output_of(gate, first))["link"]["url"]) as answer:
        assert await answer.read() == bodies[doors[0]]


async def ask_head(gate: Running, path: str, who: str = "alice", **more: str) -> tuple[int, CIMultiDictProxy[str]]:
    async with gate.call("HEAD", path, who, headers=more) as answer:
        return answer.status, answer.headers


async def test_ranges_and_validators_hold_as_from_the_disk(tmp_path: Path, comfy: StandIn) -> None:
    async with moto_server(tmp_path) as server, wiping(tmp_path, comfy, server) as gate:
        await _compare_ranges(gate, in_its_own_time(gate))


async def _compare_ranges(gate: Running, clock: Ahead) -> None:
    path = "/view?filename=kept_00001_.png"
    await made(gate, "kept")
    _, before = await ask_head(gate, path)
    whole = await read(gate, path)
    await made(gate, "kept")
    await settled(gate, 2)
    later(gate, clock, KEEP_S + 1)
    await eventually(gate, _are_wiped)
    status, after = await ask_head(gate, path)
    same = ("ETag", "Last-Modified", "Accept-Ranges", "Content-Type", "Content-Length", "Content-Disposition")
    assert status == 200
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    for asked, start, stop in (
        ("bytes=10-19", 10, 20),
        ("bytes=-5", len(whole) - 5, len(whole)),
        ("bytes=7-", 7, None),
    ):
        async with gate.call("GET", path, "alice", headers={"Range": asked}) as answer:
            assert (answer.status, await answer.read()) == (206, whole[start:stop])
    async with gate.call("GET", path, "alice", headers={"Range": "bytes=99999999-"}) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
    async with gate.call("GET", path, "alice", headers={"If-None-Match": before["ETag"]}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


async def test_a_bucket_that_is_away_is_told_and_nothing_half_is_sent(
    gate: Running, clock: Ahead, s3: S3Server
) -> None:
    await wiped(gate, clock)
    await s3.kill()
    answer = await ask(gate, "GET", "/view?filename=kept_00001_.png")
    assert (answer.status, answer.body["error"]["type"]) == (503, "storage_unavailable")
    await s3.start()
    assert await read(gate, "/view?filename=kept_00001_.png")


async def test_of_the_file_with_the_highest_number_the_name_stays_so_that_it_does_not_come_again(
    gate: Running, clock: Ahead
) -> None:
    first = await made(gate, "alone")
    data = await read(gate, "/view?filename=alone_00001_.png")
    [copy] = await settled(gate, 1)
    later(gate, clock, KEEP_S + 1)
    await eventually(gate, _are_wiped)
    file = gate.config_file.parent / "comfyui" / "output" / "tenants" / "alice" / "alone_00001_.png"
    assert file.stat().st_size == 0
    assert f"{file.stat().st_mtime_ns:x}" == copy.stamp.partition("-")[0]
    for door in ("/view?filename=alone_00001_.png", (await output_of(gate, first))["url"]):
        assert await read(gate, door) == data
    await made(gate, "alone")
    assert on_disk(gate) == ["alone_00001_.png", "alone_00002_.png"]
    assert await read(gate, "/view?filename=alone_00001_.png") == data
    assert await read(gate, "/view?filename=alone_00002_.png") != data


async def test_a_copy_that_is_not_the_original_any_more_is_made_again_and_nothing_is_deleted(
    gate: Running, clock: Ahead, s3: S3Server
) -> None:
    await made(gate, "kept")
    await made(gate, "kept")
    await settled(gate, 2)
    good = s3.objects()
    for key in good:
        (s3.folder / key).write_bytes(bytes(len(good[key])))
    later(gate, clock, KEEP_S + 1)
    await eventually(gate, lambda found: all((copy.copied_at_s or 0) > time.time() + KEEP_S - 60 for copy in found))
    assert on_disk(gate) == ["kept_00001_.png", "kept_00002_.png"]
    await settled(gate, 2)
    assert s3.objects() == good
    folder = gate.config_file.parent / "comfyui" / "output" / "tenants" / "alice"
    assert all((folder / name).stat().st_size for name in on_disk(gate))


async def test_what_a_waiting_job_uses_stays(gate: Running, clock: Ahead) -> None:
    first = await made(gate, "kept")
    await made(gate, "kept")
    await settled(gate, 2)
    asset = (await output_of(gate, first))["id"]
    reference = {"__type": "core/ASSET", "info": {"id": asset}}
    slow = loading(reference) | {
        "3": {"class_type": "SlowProgress", "inputs": {"image": ["1", 0], "seconds": 600.0, "steps": 6000}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    running = (await submit(gate, slow)).body["id"]
    await until(gate, running, "running")
    later(gate, clock, KEEP_S + 1)
    await eventually(gate, lambda found: any(copy.note == "a job uses it" for copy in found))
    assert on_disk(gate) == ["kept_00001_.png", "kept_00002_.png"]
    assert (await ask(gate, "POST", f"/api/v2/jobs/{running}/cancel")).status == 200


async def test_a_workflow_cannot_use_what_comfyui_has_no_more_and_is_told(gate: Running, clock: Ahead) -> None:
    first = await wiped(gate, clock)
    asset = (await output_of(gate, first))["id"]
    answer = await submit(gate, loading({"__type": "core/ASSET", "info": {"id": asset}}))
    assert (answer.status, answer.code) == (422, "missing_asset")


async def test_who_deletes_a_wiped_asset_deletes_the_object(gate: Running, clock: Ahead, s3: S3Server) -> None:
    first = await wiped(gate, clock)
    asset = (await output_of(gate, first))["id"]
    async with gate.call("DELETE", f"/api/v2/assets/{asset}", "alice") as answer:
        assert answer.status == 204
    await eventually(gate, lambda found: len(found) == 1)
    assert len(s3.objects()) == 1
    assert (await ask_head(gate, "/view?filename=kept_00001_.png"))[0] == 404


async def test_an_overwritten_original_is_not_deleted(gate: Running, clock: Ahead) -> None:
    await made(gate, "kept")
    await made(gate, "kept")
    await settled(gate, 2)
    folder = gate.config_file.parent / "comfyui" / "output" / "tenants" / "alice"
    (folder / "kept_00001_.png").write_bytes(b"another one")
    later(gate, clock, KEEP_S + 1)
    await eventually(gate, lambda found: any(copy.note == "the original was deleted, or overwritten" for copy in found))
    assert on_disk(gate) == ["kept_00001_.png", "kept_00002_.png"]


async def test_nothing_is_wiped_when_the_configuration_says_so_no_more(gate: Running, clock: Ahead) -> None:
    await made(gate, "kept")
    await made(gate, "kept")
    await settled(gate, 2)
    file = gate.config_file
    file.write_text(file.read_text().replace(f'keep_local = "{KEEP_S:.0f}s"\n', ""))
    assert await gate.gate.reload(file)
    await eventually(gate, lambda found: all(copy.due_at_s is None for copy in found))
    assert len(await copies(gate)) == len(on_disk(gate)) == 2
