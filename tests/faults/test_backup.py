"""SQLite's own online backup of a gate that works: what it holds is a whole gate, whose jobs go on."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import orjson

from proxy.persistence.sqlite_file import STATE_FILE
from tests.faults.clients import Client
from tests.faults.judge import Case, Submission, judge
from tests.faults.recording import work
from tests.faults.world import World, open_world
from tests.programs import needs

pytestmark = needs("sqlite3")
KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"', "Content-Type": "application/json"}


def sqlite3(file: Path, command: str) -> str:
    return subprocess.run(["sqlite3", file, command], check=True, capture_output=True, text=True).stdout.strip()


async def submitting(client: Client, sent: list[Submission]) -> None:
    """Writes into the database while it is copied."""
    for number in range(200):
        name = f"later-{number:03}"
        sent.append(await client.submit(name, work(name, 0.0), is_repeated=True))


async def put_back(world: World, copy: Path) -> None:
    """Both are killed, and come back with the database of the copy: ComfyUI knows nothing any more."""
    state = world.gates[0].config.parent / "state"
    for program in (world.gates[0], world.comfyui):
        await world.kill(program)
    for file in state.glob(f"{STATE_FILE}*"):
        file.unlink()
    copy.replace(state / STATE_FILE)
    world.record.hold.unlink()
    for program in (world.comfyui, world.gates[0]):
        await program.start()
    for program in (world.comfyui, world.gates[0]):
        await program.is_up()


async def keyed(client: Client) -> tuple[int, Any]:
    return await client.ask("POST", "/prompt", data=orjson.dumps({"prompt": work("keyed", 0.0)}), headers=KEY)


async def test_a_backup_by_sqlite_of_a_running_gate_restores_to_a_working_gate() -> None:
    async with open_world({"alice": 1.0}) as world:
        (alice,) = world.clients
        ended = [
            await alice.submit(f"ended-{number}", work(f"ended-{number}", 0.0), is_repeated=True) for number in range(5)
        ]
        status, first = await keyed(alice)
        assert status == 200
        await alice.is_idle()
        world.record.hold.touch()
        waiting = [
            await alice.submit(f"waits-{number}", work(f"waits-{number}", 0.0, waits=True), is_repeated=True)
            for number in range(5)
        ]
        later: list[Submission] = []
        copy = world.folder / "copy.sqlite3"
        writer = asyncio.ensure_future(submitting(alice, later))
        while not later:
            await asyncio.sleep(0)
        await asyncio.to_thread(sqlite3, world.gates[0].config.parent / "state" / STATE_FILE, f".backup '{copy}'")
        await writer
        assert sqlite3(copy, "PRAGMA integrity_check") == "ok"

        await put_back(world, copy)
        await alice.is_idle()
        told = await alice.told()
        known = [each for each in later if each.prompt_id in told.history]
        assert known == later[: len(known)], "the copy is of one moment"
        submissions = [*ended, Submission("alice", "keyed", first["prompt_id"], [200]), *waiting, *known]
        lines = [line for line in world.record.lines() if line.name in {each.name for each in submissions}]
        assert not judge(Case(submissions, lines, world.deaths, {"alice": told})).wrong
        assert await keyed(alice) == (200, first), "what was answered is remembered"
        again = await alice.submit("again", work("again", 0.0), is_repeated=False)
        await alice.is_idle()
        assert (await alice.told()).history[str(again.prompt_id)] == "success"
