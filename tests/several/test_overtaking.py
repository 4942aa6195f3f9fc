"""While files are brought to a ComfyUI for one tenant's job, it is sent the jobs of others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.files.transfers import Transfers
from proxy.http.errors import UpstreamUnreachable
from proxy.jobs import aside
from proxy.jobs.job import JobState
from tests.harness import AUDIT_FILE
from tests.several.test_bringing import loading, upload
from tests.several.test_placing import ended, quick, ran_where, submit
from tests.several.world import FIRST, SECOND, SeveralWorld, several

AT_SECOND = {FIRST: 'tenants = ["nobody"]', SECOND: "window = 4"}


def state_of(world: SeveralWorld, prompt_id: str) -> JobState | None:
    job = world.gate.gate.dependencies.registry.job(prompt_id)
    return None if job is None else job.state


async def sent(world: SeveralWorld, prompt_id: str) -> None:
    async with asyncio.timeout(240):
        while state_of(world, prompt_id) is not JobState.SENT:
            await asyncio.sleep(0.01)


def begun_at(entry: Any) -> int:
    messages = dict(entry["status"]["messages"])
    return int(messages["execution_start"]["timestamp"])


async def test_others_do_not_wait_for_files_of_one_tenant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with several(
        tmp_path, settings=AT_SECOND, tenants="[tenants.alice]\n[tenants.mallory]\n[tenants.nobody]\n"
    ) as world:
        await upload(world, "photo.png")
        goes_on = asyncio.Event()
        bring = Transfers._bring_file

        async def slowly(self: Transfers, *arguments: Any) -> None:
            await goes_on.wait()
            await bring(self, *arguments)

        monkeypatch.setattr(Transfers, "_bring_file", slowly)
        first = await submit(world, loading("photo.png"))
        await sent(world, first)
        second = await submit(world, quick(1))
        await ended(world, [await submit(world, quick(2), "mallory")], "mallory")
        assert (state_of(world, first), state_of(world, second)) == (JobState.SENT, JobState.WAITING)
        goes_on.set()
        entries = await ended(world, [first, second])
        assert begun_at(entries[first]) <= begun_at(entries[second])


async def test_who_may_not_run_there_any_more_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration has changed while files were brought."""
    settings = {FIRST: 'tenants = ["nobody"]', SECOND: 'tenants = ["alice", "mallory"]'}
    tenants = "[tenants.alice]\n[tenants.mallory]\n[tenants.nobody]\n"
    async with several(tmp_path, settings=settings, tenants=tenants) as world:
        await upload(world, "photo.png")
        goes_on, bring = asyncio.Event(), Transfers._bring_file

        async def slowly(self: Transfers, *arguments: Any) -> None:
            await goes_on.wait()
            await bring(self, *arguments)

        monkeypatch.setattr(Transfers, "_bring_file", slowly)
        job = await submit(world, loading("photo.png"))
        await sent(world, job)
        file = world.gate.config_file
        text = file.read_text(encoding="utf-8")
        for before, after in (('["alice", "mallory"]', '["mallory"]'), ('["nobody"]', '["nobody", "alice"]')):
            text = text.replace(before, after)
        file.write_text(text, encoding="utf-8")
        assert await world.gate.gate.reload(file)
        goes_on.set()
        await ended(world, [job])
        assert ran_where(world, [job]) == {FIRST: 1}


async def test_what_cannot_be_brought_now_comes_before_its_tenants_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "TRY_AGAIN_S", 0.1)
    async with several(
        tmp_path, settings=AT_SECOND, tenants="[tenants.alice]\n[tenants.mallory]\n[tenants.nobody]\n"
    ) as world:
        await upload(world, "photo.png")
        goes_on, tries = asyncio.Event(), 0
        bring = Transfers._bring_file

        async def at_first_not(self: Transfers, *arguments: Any) -> None:
            nonlocal tries
            tries += 1
            if tries < 3:
                await goes_on.wait()
                raise UpstreamUnreachable
            await bring(self, *arguments)

        monkeypatch.setattr(Transfers, "_bring_file", at_first_not)
        first = await submit(world, loading("photo.png"))
        await sent(world, first)
        second = await submit(world, quick(1))
        goes_on.set()
        entries = await ended(world, [first, second])
        assert begun_at(entries[first]) <= begun_at(entries[second])
        assert tries == 3


async def test_what_one_tenant_has_brought_leaves_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the window that there is by default; also where what is there of the file is known to be what it was."""
    settings = {FIRST: 'tenants = ["nobody"]'}
    async with several(
        tmp_path, settings=settings, tenants="[tenants.alice]\n[tenants.mallory]\n[tenants.nobody]\n"
    ) as world:
        await upload(world, "photo.png")
        await ended(world, [await submit(world, loading("photo.png"))])
        goes_on, bring = asyncio.Event(), Transfers._bring_file

        async def slowly(self: Transfers, *arguments: Any) -> None:
            await goes_on.wait()
            await bring(self, *arguments)

        monkeypatch.setattr(Transfers, "_bring_file", slowly)
        films = [await submit(world, loading("photo.png")) for _ in range(3)]
        await sent(world, films[0])
        last = await submit(world, quick(1))
        await ended(world, [await submit(world, quick(2), "mallory")], "mallory")
        states = [state_of(world, each) for each in (*films, last)]
        assert states == [JobState.SENT, *[JobState.WAITING] * 3]
        goes_on.set()
        entries = await ended(world, [*films, last])
        begun = [begun_at(entries[each]) for each in (*films, last)]
        assert begun == sorted(begun)


@pytest.mark.parametrize("way", ["queue", "v2"])
async def test_what_is_canceled_while_its_files_are_brought_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async with several(
        tmp_path, settings=AT_SECOND, tenants="[tenants.alice]\n[tenants.mallory]\n[tenants.nobody]\n"
    ) as world:
        await upload(world, "photo.png")
        begun, goes_on, bring = asyncio.Event(), asyncio.Event(), Transfers._bring_file

        async def slowly(self: Transfers, *arguments: Any) -> None:
            begun.set()
            await goes_on.wait()
            await bring(self, *arguments)

        monkeypatch.setattr(Transfers, "_bring_file", slowly)
        canceled = await submit(world, loading("photo.png"))
        await begun.wait()
        if way == "queue":
            assert await world.gate.status("POST", "/queue", "alice", json={"delete": [canceled]}) == 200
        else:
            assert await world.gate.status("POST", f"/api/v2/jobs/{canceled}/cancel", "alice") < 300
        goes_on.set()
        await ended(world, [await submit(world, quick(1))])
        async with asyncio.timeout(240):
            while state_of(world, canceled) is not None:
                await asyncio.sleep(0.01)
        sent_calls = [call for call in world.comfyuis[SECOND].received if call.raw_path == "/prompt"]
        assert len(sent_calls) == 1
        assert canceled not in await world.gate.json("GET", "/history", "alice")
        lines = (tmp_path / AUDIT_FILE).read_text(encoding="utf-8").splitlines()
        told = [line for line in map(json.loads, lines) if line.get("prompt_id") == canceled and "outcome" in line]
        assert [line["outcome"] for line in told] == ["cancelled"]
