"""A ComfyUI more, and one less, while two gates are restarted one after the other, as docs/several.md says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from standin import StandIn
from tests.commands.cli import aside
from tests.harness import Running, running_gate
from tests.several.test_placing import quick

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
    async with asyncio.timeout(120):
        while not set(ids) <= set(history := await gate.json("GET", "/history", "alice")):
            await asyncio.sleep(0.05)
    return [history[prompt_id] for prompt_id in ids]


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
