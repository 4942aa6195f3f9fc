"""One of several that answers and runs nothing: it is given nothing more until it runs again, and the operator sees it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from proxy.jobs import queue_watcher, standstill
from standin import StandIn
from tests.commands.cli import aside
from tests.contract.driver import slow
from tests.several.test_metrics import told, until
from tests.several.test_placing import ended, quick, ran_where, submit
from tests.several.world import BOTH, FIRST, SECOND, SeveralWorld, several

STUCK = f'comfygate_comfyui_stuck{{comfyui="{SECOND}"}}'


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "STUCK_AFTER_S", 0.5)
    monkeypatch.setattr(standstill, "UNSTOPPED_AFTER_S", 0.5)
    monkeypatch.setattr(queue_watcher, "_POLL_BUSY_S", 0.2)


@contextmanager
def dead_worker(comfy: StandIn) -> Iterator[Callable[[], None]]:
    """Its HTTP lives; its worker may take one more job, and then none until what is given is called."""
    assert comfy._engine is not None
    queue, is_over = comfy._engine.life.queue, threading.Event()
    take = queue.take

    def wait() -> None:
        is_over.wait()

    def lives_again() -> None:
        vars(queue).pop("take", None)
        is_over.set()

    vars(queue)["take"] = wait
    assert take is not None
    try:
        yield lives_again
    finally:
        lives_again()


async def all_there(world: SeveralWorld) -> None:
    await asyncio.gather(*(watcher.is_settled.wait() for watcher in world.gate.gate.dependencies.queue_watchers))


async def notes(world: SeveralWorld) -> dict[str, tuple[bool, bool]]:
    """Of each whether it answers, and is stuck, as the operator is told."""
    said = await aside("comfyui", "list", "--json", "--config", world.gate.config_file)
    return {each["name"]: (each["answers"], each["stuck"]) for each in map(orjson.loads, said.out.splitlines())}


async def until_stuck(world: SeveralWorld) -> list[str]:
    """Jobs that have ended, of which the second one was given more than it takes: on a slow machine the first one may end most of them meanwhile."""
    ids: list[str] = []
    async with asyncio.timeout(240):
        while (await told(world))[STUCK] != 1:
            if not world.gate.gate.dependencies.registry.given_to(SECOND):
                ids.append(await submit(world, slow(0.3, 3)))
            await asyncio.sleep(0.05)
    await ended(world, ids)
    return ids


async def test_one_that_runs_nothing_is_given_nothing_until_it_runs_again(tmp_path: Path) -> None:
    async with several(tmp_path) as world:
        await all_there(world)
        assert await notes(world) == dict.fromkeys(BOTH, (True, False))
        with dead_worker(world.comfyuis[SECOND]) as lives_again:
            ids = await until_stuck(world)

            for number in range(3):
                after = [await submit(world, quick(10 * number + each)) for each in range(4)]
                await ended(world, after)
                assert ran_where(world, after) == {FIRST: 4}, "though it has nothing of the gate's"
                assert (await told(world))[STUCK] == 1
            assert not world.gate.gate.dependencies.registry.given_to(SECOND)
            assert await notes(world) == {FIRST: (True, False), SECOND: (True, True)}
            assert "stuck" in (await aside("comfyui", "list", "--config", world.gate.config_file)).out.splitlines()[2]
            assert set(await world.gate.json("GET", "/history", "alice")) >= set(ids)
            listed = await world.gate.json("GET", "/queue", "alice")
            assert listed == {"queue_running": [], "queue_pending": []}, "what stands there is nobody's"

            lives_again()
            await until(world, STUCK, 0)
        ids = [await submit(world, slow(0.3, 3)) for _ in range(6)]
        await ended(world, ids)
        assert set(ran_where(world, ids)) == set(BOTH)


async def test_one_that_was_restarted_is_well(tmp_path: Path) -> None:
    async with several(tmp_path) as world:
        await all_there(world)
        with dead_worker(world.comfyuis[SECOND]):
            await until_stuck(world)
        await world.stop(SECOND)
        await until(world, f'comfygate_comfyui_up{{comfyui="{SECOND}"}}', 0)
        assert (await notes(world))[SECOND] == (False, False)
        await world.start(SECOND)
        await until(world, STUCK, 0)


async def test_what_stands_behind_one_that_does_not_stop_goes_on_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with several(tmp_path) as world:
        await all_there(world)
        engine = world.comfyuis[SECOND]._engine
        assert engine is not None
        registry = world.gate.gate.dependencies.registry
        held = [await submit(world, slow()) for _ in range(2)]
        async with asyncio.timeout(240):
            while not all(registry.given_to(name) for name in BOTH):
                await asyncio.sleep(0.02)
        hangs = next(job.prompt_id for job in registry.given_to(SECOND))
        async with asyncio.timeout(240):
            while hangs not in {job.prompt_id for job in registry.given_to(SECOND) if job.started_at_s is not None}:
                await asyncio.sleep(0.02)
        [other] = [prompt_id for prompt_id in held if prompt_id != hangs]
        behind = [await submit(world, quick(number)) for number in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(type(engine), "interrupt", lambda self: None)
            canceling = asyncio.create_task(aside("jobs", "cancel", hangs, "--config", world.gate.config_file))
            await until(world, STUCK, 1)
        try:
            await world.gate.status("POST", "/interrupt", "alice", json={"prompt_id": other})
            await ended(world, behind)
            assert ran_where(world, behind) == {FIRST: 2}
        finally:
            await world.gate.status("POST", "/interrupt", "alice", json={"prompt_id": hangs})
        await canceling
        await until(world, STUCK, 0)
