"""A bucket that is down, slow, or refuses; an original that is gone; a ComfyUI that is away: no job waits, and nothing is lost."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from policy.attempts import SCHEDULE_S
from policy.copies import CopyState
from proxy.app import Gate
from proxy.config import load_config
from proxy.copies.copier import AT_ONCE
from proxy.copies.copy_operations import resend
from proxy.copies.work import CopyWork, Done
from proxy.jobs.copy_requests import Copy
from proxy.observability.access_log import RequestLog
from standin import StandIn
from tests.harness import Running, running_gate
from tests.proxy.copies.making import (
    copier_of,
    copies,
    database_of,
    eventually,
    in_its_own_time,
    later,
    made,
    output_of,
    read,
    settled,
)
from tests.proxy.copies.s3 import S3Server, credentials, storage
from tests.proxy.v2.asking import ask, audited


@pytest.fixture(autouse=True)
def _obstore_does_not_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.copies.opening._RETRY", {"max_retries": 0})


async def test_a_bucket_that_is_down_holds_up_no_job_and_gets_everything_later(gate: Running, s3: S3Server) -> None:
    clock = in_its_own_time(gate)
    await s3.kill()
    jobs = [await made(gate) for _ in range(3)]
    await eventually(gate, lambda found: len(found) == 3 and all(copy.attempts == 1 for copy in found))
    for job in jobs:
        assert await read(gate, (await output_of(gate, job))["url"])
    assert all(copy.due_at_s and copy.due_at_s > clock() for copy in await copies(gate))
    await s3.start()
    later(gate, clock, SCHEDULE_S[1] + 1)
    await settled(gate, 3)
    assert len(s3.objects()) == 3


def _has_failed(attempts: int, found: Sequence[Copy]) -> bool:
    return bool(found and found[0].attempts == attempts and not found[0].gate)


async def test_what_never_works_is_given_up_after_a_day_and_the_original_stays(gate: Running, s3: S3Server) -> None:
    clock = in_its_own_time(gate)
    await s3.kill()
    job = await made(gate)
    for attempts in range(1, len(SCHEDULE_S) + 1):
        await eventually(gate, partial(_has_failed, attempts))
        later(gate, clock, SCHEDULE_S[-1])
    [copy] = await copies(gate)
    assert (copy.state, copy.due_at_s) == (CopyState.FAILED, None)
    assert await read(gate, (await output_of(gate, job))["url"])
    await s3.start()
    await database_of(gate).run(resend, [copy.copy_id], clock())
    copier_of(gate).wake()
    await settled(gate, 1)


async def test_a_refused_credential_is_told_and_tried_again(tmp_path: Path, comfy: StandIn, s3: S3Server) -> None:
    section = storage(s3, tmp_path)
    credentials(tmp_path, secret="another-secret")
    async with running_gate(tmp_path, comfy.url, more=section) as gate:
        await made(gate)
        [copy] = await eventually(gate, lambda found: bool(found and found[0].attempts == 1))
        assert copy.state == CopyState.WAITING
        assert "\n" not in copy.note
        assert copy.note.endswith("(SignatureDoesNotMatch)")
    assert s3.objects() == {}


async def test_an_original_that_was_overwritten_or_deleted_is_not_copied(gate: Running, s3: S3Server) -> None:
    clock = in_its_own_time(gate)
    await s3.kill()
    for name in ("gone", "other", "same"):
        await made(gate, name)
    await eventually(gate, lambda found: len(found) == 3 and all(copy.attempts == 1 for copy in found))
    folder = gate.config_file.parent / "comfyui" / "output" / "tenants" / "alice"
    (folder / "gone_00001_.png").unlink()
    (folder / "other_00001_.png").write_bytes(b"another one")
    await s3.start()
    later(gate, clock, SCHEDULE_S[1] + 1)
    found = await eventually(gate, lambda found: not any(copy.state == CopyState.WAITING for copy in found))
    assert {copy.path: (copy.state, copy.note) for copy in found} == {
        "gone_00001_.png": (CopyState.FAILED, "the original is gone"),
        "other_00001_.png": (CopyState.FAILED, "the original is another file by now"),
        "same_00001_.png": (CopyState.COPIED, ""),
    }
    assert [key.rpartition("/")[2] for key in s3.objects()] == ["same_00001_.png"]


async def test_while_comfyui_is_away_what_it_alone_has_waits(
    tmp_path: Path, comfy: StandIn, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()
    copy = CopyWork._copy

    async def later_on(work: CopyWork, wanted: Copy) -> Done:
        begun.set()
        await goes_on.wait()
        return await copy(work, wanted)

    monkeypatch.setattr(CopyWork, "_copy", later_on)
    async with running_gate(tmp_path, comfy.url, more=storage(s3, tmp_path)) as gate:
        clock = in_its_own_time(gate)
        await made(gate)
        await begun.wait()
        await comfy.stop()
        goes_on.set()
        [found] = await eventually(gate, partial(_has_failed, 1))
        assert (found.state, found.note) == (CopyState.WAITING, "ComfyUI does not give the original")
        assert s3.objects() == {}
        await comfy.start(port=comfy.port)
        later(gate, clock, SCHEDULE_S[1] + 1)
        await settled(gate, 1)


async def test_what_a_job_made_that_is_gone_before_it_is_looked_up_is_counted(
    gate: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked, goes_on = asyncio.Event(), asyncio.Event()
    split = CopyWork._split

    async def later_on(work: CopyWork, job: Copy) -> Done:
        looked.set()
        await goes_on.wait()
        return await split(work, job)

    monkeypatch.setattr(CopyWork, "_split", later_on)
    job = await made(gate)
    await looked.wait()
    assert (await ask(gate, "POST", "/history", json={"delete": [job]})).status == 200
    goes_on.set()
    await eventually(gate, lambda found: not found)
    [line] = audited(gate, "copy")
    assert (line["prompt_id"], line["tenant"], line["result"]) == (job, "alice", "lost")
    assert f"nothing of what job {job} of tenant alice made is copied" in caplog.text
    async with gate.session.get(f"{gate.ops_url}/metrics") as answer:
        assert 'comfygate_copy_attempts_total{result="lost",tenant="alice"} 1.0' in await answer.text()


async def test_tenants_take_turns(gate: Running, s3: S3Server) -> None:
    s3.freeze()
    for _ in range(4):
        await made(gate)
    await made(gate, who="mallory")
    await eventually(gate, lambda found: len(found) == 5 and sum(bool(copy.gate) for copy in found) == AT_ONCE)
    # Of two places alice has both by now: the next one that is free is mallory's.
    s3.thaw()
    await settled(gate, 5)
    order = sorted(await copies(gate), key=lambda copy: copy.copied_at_s or 0)
    assert "mallory" in [copy.tenant for copy in order[: AT_ONCE + 2]]


async def test_a_gate_that_stops_leaves_its_work_to_the_next_one(tmp_path: Path, comfy: StandIn, s3: S3Server) -> None:
    async with running_gate(tmp_path, comfy.url, more=storage(s3, tmp_path)) as gate:
        s3.freeze()
        await made(gate)
        await eventually(gate, lambda found: any(copy.asset_id and copy.gate for copy in found))
    s3.thaw()
    await s3.kill()
    await s3.start()
    second = Gate(load_config(tmp_path / "config.toml", {}), RequestLog(io.BytesIO(), "json"))
    await second.start()
    try:
        async with asyncio.timeout(240):
            while not s3.objects():
                await asyncio.sleep(0.01)
    finally:
        await second.stop()


async def test_a_full_disk_fails_a_copy_and_nothing_else(tmp_path: Path, comfy: StandIn) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("NOT TESTED: mounting a small file system needs root")
    try:
        (folder / "filler").write_bytes(bytes(4096))
        more = f'[storage]\nurl = "file://{folder}"\n'
        async with running_gate(tmp_path, comfy.url, more=more) as gate:
            clock = in_its_own_time(gate)
            job = await made(gate)
            [copy] = await eventually(gate, lambda found: bool(found and found[0].attempts == 1))
            assert copy.state == CopyState.WAITING
            assert await read(gate, (await output_of(gate, job))["url"])
            assert "link" not in await output_of(gate, job)
            subprocess.run(["mount", "-o", "remount,size=1m", str(folder)], check=True)
            later(gate, clock, SCHEDULE_S[1] + 1)
            [copy] = await settled(gate, 1)
            assert (folder / copy.object_key).read_bytes() == await read(gate, (await output_of(gate, job))["url"])
            assert (await ask(gate, "GET", f"/gate/jobs/{job}", "mallory")).status == 404
    finally:
        subprocess.run(["umount", str(folder)], check=True)
