"""A gate is restarted while a ComfyUI leaves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from proxy.jobs.store_leaving import leaving, note_leaving
from standin import StandIn
from tests.contract.driver import slow
from tests.several.changing import (
    THIRD,
    both_are_used,
    put_back,
    restarted,
    running,
    take_out,
    there,
    until_gone,
    without,
)
from tests.several.test_draining import given_to, stop
from tests.several.test_files import FOLDER, made_at, view
from tests.several.test_placing import ended, ran_where, submit
from tests.several.world import FIRST, SECOND, SeveralWorld, several

pytestmark = pytest.mark.usefixtures("gone_soon")


async def noted(world: SeveralWorld) -> dict[str, str]:
    found: dict[str, str] = await vars(world.gate.gate)["_state"].read(leaving)
    return found


async def until_noted(world: SeveralWorld) -> None:
    async with asyncio.timeout(240):
        while SECOND not in await noted(world):
            await asyncio.sleep(0.01)


def prompts(comfy: StandIn) -> int:
    return len([call for call in comfy.received if call.raw_path == "/prompt"])


async def test_what_one_runs_that_leaves_is_followed_over_a_restart(two: SeveralWorld) -> None:
    """It is not tried again; what it made is there; then it goes."""
    name = await made_at(two, SECOND)
    ids = [await submit(two, slow()) for _ in range(2)]
    had = await running(two, SECOND)
    sent = prompts(two.comfyuis[SECOND]), prompts(two.first)
    await take_out(two)
    await until_noted(two)
    async with restarted(two):
        assert there(two) == [FIRST, SECOND]
        assert given_to(two, SECOND) == [had]
        await two.gate.gate.dependencies.queue_watchers.of(SECOND).is_settled.wait()
        assert await two.gate.status("GET", view(name, subfolder=FOLDER), "alice") == 200
        await stop(two, ids)
        await ended(two, ids)
        assert (prompts(two.comfyuis[SECOND]), prompts(two.first)) == sent, "none was given anew"
        await until_gone(two)
        async with asyncio.timeout(240):
            while await noted(two):
                await asyncio.sleep(0.01)


async def test_one_that_has_moved_is_asked_where_it_was_first(two: SeveralWorld) -> None:
    """What it has at the old address ends there, also after a restart; then it is asked at the new one."""
    ids = [await submit(two, slow()) for _ in range(2)]
    had = await running(two, SECOND)
    moved = StandIn(two.folder / "moved", frontend=False)
    await moved.start()
    try:
        old = two.comfyuis[SECOND].url
        text = two.gate.config_file.read_text(encoding="utf-8").replace(old, moved.url)
        await put_back(two, text)
        await until_noted(two)
        async with restarted(two):
            upstream = two.gate.gate.dependencies.upstream
            assert (there(two), upstream.of(SECOND).url) == ([FIRST, SECOND], old)
            assert given_to(two, SECOND) == [had]
            await stop(two, ids)
            async with asyncio.timeout(240):
                while upstream.of(SECOND).url != moved.url:
                    await asyncio.sleep(0.01)
            await both_are_used(two)
            assert prompts(moved) == 2
    finally:
        await moved.stop()


async def test_one_that_is_in_the_configuration_again_is_one_of_the_gates(two: SeveralWorld) -> None:
    ids = [await submit(two, slow()) for _ in range(2)]
    had = await running(two, SECOND)
    written = await take_out(two)
    await until_noted(two)
    two.gate.config_file.write_text(written, encoding="utf-8")
    async with restarted(two):
        await two.gate.gate.dependencies.queue_watchers.of(SECOND).is_settled.wait()
        assert given_to(two, SECOND) == [had]
        await stop(two, ids)
        await both_are_used(two)


async def test_one_that_stays_is_not_noted_any_more(two: SeveralWorld) -> None:
    ids = [await submit(two, slow()) for _ in range(2)]
    await running(two, SECOND)
    written = await take_out(two)
    await until_noted(two)
    await put_back(two, written)
    async with asyncio.timeout(240):
        while await noted(two):
            await asyncio.sleep(0.01)
    await stop(two, ids)


async def test_what_one_had_that_is_away_goes_on_with_the_others_after_a_restart_too(tmp_path: Path) -> None:
    async with several(tmp_path, settings={SECOND: 'gone_after = "1s"'}) as world:
        ids = [await submit(world, slow(3.0, 24)) for _ in range(2)]
        await running(world, SECOND)
        await take_out(world)
        await until_noted(world)
        await world.stop(SECOND)
        async with restarted(world):
            entries = await ended(world, ids)
            assert {entry["status"]["status_str"] for entry in entries.values()} == {"success"}
            assert ran_where(world, ids) == {FIRST: 2}
            await until_gone(world)


async def test_one_whose_address_is_anothers_by_now_is_not_followed(tmp_path: Path) -> None:
    """Two names for one ComfyUI would have each take the other's jobs for strays."""
    async with several(tmp_path) as world:
        url = world.comfyuis[SECOND].url
        file = world.gate.config_file
        file.write_text(file.read_text(encoding="utf-8").replace(f'"{SECOND}"', f'"{THIRD}"'), encoding="utf-8")
        state = vars(world.gate.gate)["_state"]
        await state.run(note_leaving, SECOND, json.dumps({"name": SECOND, "url": url}))
        async with restarted(world):
            assert there(world) == [FIRST, THIRD]


async def test_what_one_had_that_was_taken_out_while_no_gate_ran_goes_on(
    two: SeveralWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is not in the configuration when a gate starts is not asked."""
    ids = [await submit(two, slow(3.0, 24)) for _ in range(2)]
    await running(two, SECOND)
    file = two.gate.config_file
    file.write_text(without(file.read_text(encoding="utf-8"), SECOND), encoding="utf-8")
    async with restarted(two):
        assert there(two) == [FIRST]
        await ended(two, ids)
        assert ran_where(two, ids) == {FIRST: 2}
    assert (
        f"ComfyUI {SECOND} is not in the configuration, and has 1 jobs: {FIRST} is asked for them, "
        "and what it has not goes on as after a restart"
    ) in caplog.text


async def test_what_another_version_noted_stops_no_gate(two: SeveralWorld, caplog: pytest.LogCaptureFixture) -> None:
    state = vars(two.gate.gate)["_state"]
    await state.run(note_leaving, THIRD, json.dumps({"name": THIRD, "url": "http://127.0.0.1:9", "x": 1}))
    async with restarted(two):
        assert there(two) == [FIRST, SECOND]
        assert f"ComfyUI {THIRD} was leaving, and is not followed" in caplog.text
