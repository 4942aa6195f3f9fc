"""A ComfyUI more, and one less, while two gates are restarted one after the other, as docs/several.md says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import FormData

from proxy.files.transfers import Transfers
from proxy.jobs import unsettled
from proxy.jobs.dispatcher import LOOK_EACH_S
from proxy.wiring import fleet
from standin import StandIn
from tests.commands.cli import aside
from tests.harness import Running, running_gate
from tests.several.test_bringing import loading
from tests.several.test_placing import quick
from tests.v2.world import painted

THIRD = "gpu-3"


@asynccontextmanager
async def comfyuis(folder: Path, *names: str) -> AsyncIterator[dict[str, StandIn]]:
    made = {name: StandIn(folder / name, frontend=False) for name in names}
    for comfy in made.values():
        await comfy.start()
    try:
        yield made
    finally:
        for comfy in made.values():
            await comfy.stop()


def tables(comfyuis: dict[str, StandIn], *names: str) -> str:
    return "".join(f'[[comfyui]]\nname = "{name}"\nurl = "{comfyuis[name].url}"\n' for name in names)


async def run(gate: Running, count: int = 4) -> list[dict[str, Any]]:
    """Their history entries."""
    asked = [{"prompt": quick(number), "client_id": "tab"} for number in range(count)]
    ids = [(await gate.json("POST", "/prompt", "alice", json=each))["prompt_id"] for each in asked]
    async with asyncio.timeout(240):
        while not set(ids) <= set(history := await gate.json("GET", "/history", "alice")):
            await asyncio.sleep(0.05)
    return [history[prompt_id] for prompt_id in ids]


async def upload(gate: Running, name: str) -> None:
    form = FormData()
    form.add_field("image", painted((1, 2, 3)), filename=name, content_type="image/png")
    assert await gate.status("POST", "/upload/image", "alice", data=form) == 200


async def comfygate(gate: Running, *words: str) -> str:
    said = await aside(*words, "--config", gate.config_file)
    assert said.code == 0, said.err
    return said.out


def ran(comfy: StandIn) -> int:
    return sum(call.raw_path == "/prompt" for call in comfy.received)


async def test_one_comes_and_one_goes_and_no_job_is_lost(tmp_path: Path, postgres_url: str) -> None:
    def at(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        return folder

    database = f'\n[jobs]\ndatabase = "{postgres_url}"\n'
    async with comfyuis(tmp_path, "gpu-1", "gpu-2", THIRD) as there:
        two, three = (tables(there, "gpu-1", "gpu-2") + database, tables(there, *there) + database)
        async with running_gate(at("a"), "", more=two) as old:
            async with running_gate(at("b"), "", more=two) as other:
                other.config_file.write_text(other.config_file.read_text().replace(two, three))
                assert await other.gate.reload(other.config_file)
                await comfygate(other, "jobs", "drain", "--comfyui", THIRD)
                await run(other)
            async with running_gate(at("b2"), "", more=three) as new:
                for gate in (old, new):
                    entries = await run(gate)
                    assert {entry["status"]["status_str"] for entry in entries} == {"success"}
                assert ran(there[THIRD]) == 0
        async with running_gate(at("a2"), "", more=three) as gate:
            await comfygate(gate, "jobs", "drain", "--comfyui", THIRD, "--off")
            for name in ("gpu-1", "gpu-2"):
                await comfygate(gate, "jobs", "drain", "--comfyui", name)
            await run(gate)
            assert ran(there[THIRD]) == 4
            await comfygate(gate, "jobs", "drain", "--comfyui", "gpu-1", "--off")
            await comfygate(gate, "jobs", "drain", "--comfyui", THIRD)
            await run(gate)
        async with running_gate(at("a3"), "", more=tables(there, "gpu-1", "gpu-2") + database) as gate:
            assert len(await gate.json("GET", "/history", "alice")) == 20
            await comfygate(gate, "jobs", "drain", "--comfyui", THIRD, "--off")
            await run(gate)
        assert ran(there[THIRD]) == 4


async def test_what_two_gates_have_brought_for_one_tenant_leaves_room_for_others(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them knows what the other one has not sent yet, also when that takes longer than a tenant's next jobs wait for it."""
    copy, goes_on = Transfers._copy, asyncio.Event()

    async def held(self: Transfers, *arguments: Any) -> None:
        await goes_on.wait()
        await copy(self, *arguments)

    monkeypatch.setattr(Transfers, "_copy", held)
    monkeypatch.setattr(unsettled, "SETTLED_S", 0.1)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    tenants = "[tenants.alice]\n[tenants.mallory]\n[tenants.nobody]\n"
    async with comfyuis(tmp_path, "gpu-1", "gpu-2") as there:
        written = tables(there, "gpu-1", "gpu-2").replace('name = "gpu-1"', 'name = "gpu-1"\ntenants = ["nobody"]')
        more = f'{written}\n[jobs]\ndatabase = "{postgres_url}"\n'
        async with (
            running_gate(tmp_path / "a", "", more=more, tenants=tenants) as first,
            running_gate(tmp_path / "b", "", more=more, tenants=tenants) as second,
        ):
            for gate in (first, second):
                await gate.gate.dependencies.queue_watchers.of("gpu-2").is_settled.wait()
            for number, gate in enumerate((first, second) * 2):
                await upload(gate, f"{number}.png")
                asked = {"prompt": loading(f"{number}.png", number), "client_id": "tab"}
                assert "prompt_id" in await gate.json("POST", "/prompt", "alice", json=asked)
                await asyncio.sleep(LOOK_EACH_S / 2)  # for the gate that might give it
            asked = {"prompt": quick(1), "client_id": "tab"}
            prompt_id = (await second.json("POST", "/prompt", "mallory", json=asked))["prompt_id"]
            async with asyncio.timeout(240):
                while prompt_id not in await second.json("GET", "/history", "mallory"):
                    await asyncio.sleep(0.05)
            assert await first.json("GET", "/history", "alice") == {}
            goes_on.set()
            async with asyncio.timeout(240):
                while len(await first.json("GET", "/history", "alice")) < 4:
                    await asyncio.sleep(0.05)


async def test_two_gates_take_one_up_and_let_it_go_without_a_restart(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment they differ: what one has given to a ComfyUI that the other does not know is in its place when that does."""
    monkeypatch.setattr(fleet, "STAYS_S", 0.0)
    monkeypatch.setattr(fleet, "AGREED_S", 0.5)
    database = f'\n[jobs]\ndatabase = "{postgres_url}"\n'
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with comfyuis(tmp_path, "gpu-1", "gpu-2") as there:
        one, both = tables(there, "gpu-1") + database, tables(there, "gpu-1", "gpu-2") + database
        async with (
            running_gate(tmp_path / "a", "", more=one) as first,
            running_gate(tmp_path / "b", "", more=one) as second,
        ):
            await reload(first, one, both)
            await until_well(first, "gpu-2")
            await comfygate(first, "jobs", "drain", "--comfyui", "gpu-1")
            with monkeypatch.context() as held:
                # To the other gate gpu-1 is the only one, which is drained by no name.
                held.setattr(second.gate.dependencies.jobs.dispatcher, "senders", [])
                [entry] = await run(first, 1)
            prompt_id = entry["prompt"][1]
            [made] = entry["outputs"]["2"]["images"]
            assert made["subfolder"] == "@gpu-2"
            registry = second.gate.dependencies.registry
            while prompt_id not in await second.json("GET", "/history", "alice"):
                await asyncio.sleep(0.05)
            assert registry.job(prompt_id).comfyui == "gpu-1", "as far as this one knows"  # type: ignore[union-attr]
            path = "/view?" + urlencode(made)
            assert await second.status("GET", path, "alice") == 503
            await reload(second, one, both)
            await until_well(second, "gpu-2")
            assert registry.job(prompt_id).comfyui == "gpu-2"  # type: ignore[union-attr]
            assert await second.status("GET", path, "alice") == 200
            await comfygate(first, "jobs", "drain", "--comfyui", "gpu-1", "--off")
            for gate in (first, second):
                await reload(gate, both, one)
                while "gpu-2" in gate.gate.dependencies.registry.comfyuis:
                    await asyncio.sleep(0.05)
            for gate in (first, second):
                entries = await run(gate)
                assert {entry["status"]["status_str"] for entry in entries} == {"success"}
        assert ran(there["gpu-2"]) == 1


async def reload(gate: Running, old: str, new: str) -> None:
    file = gate.config_file
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    assert await gate.gate.reload(file)


async def until_well(gate: Running, name: str) -> None:
    while not gate.gate.dependencies.queue_watchers.is_well(name):
        await asyncio.sleep(0.02)
