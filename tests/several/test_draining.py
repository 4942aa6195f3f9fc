"""One of several is taken out and put back while the gate runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.jobs import warmups
from tests.commands.cli import Said, aside
from tests.contract.driver import loading, slow
from tests.several.test_metrics import until
from tests.several.test_placing import ended, quick, ran_where, submit
from tests.several.test_warmups import sample, write_function
from tests.several.world import FIRST, SECOND, SeveralWorld, several

NAMES = "There are gpu-1, gpu-2."


async def comfygate(world: SeveralWorld, *words: object) -> Said:
    return await aside(*words, "--config", world.gate.config_file)


async def drain(world: SeveralWorld, *words: object) -> Said:
    return await comfygate(world, "jobs", "drain", *words)


async def listed(world: SeveralWorld) -> dict[str, dict[str, Any]]:
    said = await comfygate(world, "comfyui", "list", "--json")
    assert said.code == 0, said.err
    return {each["name"]: each for each in map(orjson.loads, said.out.splitlines())}


def given_to(world: SeveralWorld, name: str) -> list[str]:
    return [job.prompt_id for job in world.gate.gate.dependencies.registry.given_to(name)]


async def stop(world: SeveralWorld, prompt_ids: Iterable[str]) -> None:
    for prompt_id in prompt_ids:
        await world.gate.status("POST", "/queue", "alice", json={"delete": [prompt_id]})
        await world.gate.status("POST", "/interrupt", "alice", json={"prompt_id": prompt_id})


async def test_one_is_taken_out_and_put_back(two: SeveralWorld) -> None:
    ids = [await submit(two, slow()) for _ in range(4)]
    while not given_to(two, SECOND):
        await asyncio.sleep(0.02)
    said = await drain(two, "--comfyui", SECOND, "--wait", "0")
    assert said.code == 1
    assert "gpu-2 has " in said.err
    assert "No job is given to gpu-2, until `comfygate jobs drain --comfyui gpu-2 --off`." in said.err
    had = given_to(two, SECOND)
    assert had
    draining = asyncio.create_task(drain(two, "--comfyui", SECOND))
    await stop(two, had)
    said = await draining
    assert said.code == 0, said.err
    assert said.out.startswith("gpu-2 has none of the gate's jobs; ")

    seen = await listed(two)
    assert (seen[SECOND]["jobs"], seen[SECOND]["drained"], seen[FIRST]["drained"]) == (0, True, False)
    table = (await comfygate(two, "comfyui", "list")).out.splitlines()
    assert table[0].split() == ["NAME", "URL", "JOBS", "RUNNING", "NOTE"]
    assert table[2].split() == [SECOND, two.comfyuis[SECOND].url, "0", "of", "2", "0", "drained"]
    assert "No job is given to gpu-2" in (await comfygate(two, "jobs", "list")).err
    await stop(two, set(ids) - set(had))
    after = [await submit(two, quick(number)) for number in range(6)]
    await ended(two, after)
    assert ran_where(two, after) == {FIRST: 6}

    said = await drain(two, "--comfyui", SECOND, "--off")
    assert (said.code, said.out) == (0, "Jobs are given to gpu-2 again.\n")
    assert (await drain(two, "--comfyui", FIRST)).code == 0
    again = [await submit(two, quick(10 + number)) for number in range(3)]
    await ended(two, again)
    assert ran_where(two, again) == {SECOND: 3}


async def test_nothing_is_tried_at_the_first_while_it_is_drained(two: SeveralWorld) -> None:
    """Of such a job only ComfyUI knows whether it is valid."""
    assert (await drain(two, "--comfyui", FIRST)).code == 0
    two.first.received.clear()
    prompt_id = await submit(two, loading(""))
    await ended(two, [prompt_id])
    assert "/prompt" not in {call.raw_path for call in two.first.received}
    assert ran_where(two, [prompt_id]) == {SECOND: 1}


async def test_nor_while_the_first_has_still_something_to_do(two: SeveralWorld) -> None:
    busy = [await submit(two, slow()) for _ in range(4)]
    while not (len(given_to(two, FIRST)) == len(given_to(two, SECOND)) == 2):
        await asyncio.sleep(0.02)
    assert (await drain(two, "--comfyui", FIRST, "--wait", "0")).code == 1
    two.first.received.clear()
    prompt_id = await submit(two, loading(""))
    await stop(two, busy)
    await ended(two, [prompt_id])
    assert "/prompt" not in {call.raw_path for call in two.first.received}


async def test_all_of_them_and_one_are_drained_apart(two: SeveralWorld) -> None:
    assert (await drain(two)).code == 0
    assert (await drain(two, "--comfyui", SECOND)).code == 0
    assert {name: each["drained"] for name, each in (await listed(two)).items()} == {FIRST: True, SECOND: True}
    all_said = (await drain(two, "--off")).out.splitlines()
    assert all_said == [
        "Jobs are given to ComfyUI again.",
        "No job is given to gpu-2, until `comfygate jobs drain --comfyui gpu-2 --off`.",
    ]
    assert (await drain(two)).code == 0
    said = await drain(two, "--comfyui", SECOND, "--off")
    assert said.out == "No job is given to ComfyUI, until `comfygate jobs drain --off`.\n"


async def test_a_name_that_there_is_not(two: SeveralWorld) -> None:
    for words in (["--comfyui", "gpu-9"], ["--comfyui", "gpu-9", "--off"]):
        said = await drain(two, *words)
        assert (said.code, said.out, said.err) == (1, "", f"There is no ComfyUI 'gpu-9'. {NAMES}\n")
    assert "\x1b" not in (await drain(two, "--comfyui", "a\x1b[31m")).err
    assert not any(each["drained"] for each in (await listed(two)).values())


async def test_one_that_is_drained_can_be_left_out_of_the_configuration(two: SeveralWorld) -> None:
    assert (await drain(two, "--comfyui", SECOND)).code == 0
    file = two.gate.config_file
    written = file.read_text(encoding="utf-8")
    file.write_text(written.replace(SECOND, "gpu-7"), encoding="utf-8")
    assert not (await listed(two))["gpu-7"]["drained"]
    assert (await drain(two, "--comfyui", SECOND, "--off")).out == "Jobs are given to gpu-2 again.\n"
    assert (await drain(two, "--comfyui", SECOND, "--off")).code == 1


async def test_while_it_is_drained_it_is_warmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a warm-up that came into the configuration meanwhile."""
    monkeypatch.setattr(warmups, "BEGIN_AFTER_S", 0.05)
    write_function(tmp_path, "paint", quick(3))
    async with several(tmp_path) as world:
        assert (await drain(world, "--comfyui", SECOND)).code == 0
        name = f'name = "{SECOND}"'
        await reload(world, name, f'{name}\nwarmup = ["paint"]')
        await world.stop(SECOND)
        await world.start(SECOND)
        await until(world, sample(SECOND, "done"), 1)


async def reload(world: SeveralWorld, old: str, new: str) -> None:
    file = world.gate.config_file
    written = file.read_text(encoding="utf-8")
    assert old in written
    file.write_text(written.replace(old, new), encoding="utf-8")
    assert await world.gate.gate.reload(file)


async def test_whose_jobs_run_where_may_change(two: SeveralWorld, caplog: pytest.LogCaptureFixture) -> None:
    """Also those of jobs that wait already."""
    blocking = [await submit(two, slow()) for _ in range(4)]
    waiting = await submit(two, quick(1))
    while len(given_to(two, FIRST)) + len(given_to(two, SECOND)) < 4:
        await asyncio.sleep(0.02)
    name = f'name = "{SECOND}"'
    await reload(two, name, f'{name}\ntenants = ["mallory"]\nwindow = 3\nweight = 9.0')
    assert not [record for record in caplog.records if "restarted" in record.getMessage()]
    of_mallory = [await submit(two, slow(), "mallory") for _ in range(2)]
    await stop(two, blocking)
    await ended(two, [waiting])
    assert ran_where(two, [waiting]) == {FIRST: 1}
    while not set(of_mallory) <= {*given_to(two, FIRST), *given_to(two, SECOND)}:
        await asyncio.sleep(0.02)
    assert ran_where(two, of_mallory) == {SECOND: 2}
