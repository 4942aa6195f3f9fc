"""Jobs that read files, at whichever ComfyUI they run and wherever the files are."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import FormData

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.needs import Needs
from policy.principal import TenantId
from tests.contract.driver import slow
from tests.several.making import run_at, saving
from tests.several.test_placing import ended, ran_where, submit
from tests.several.world import BOTH, FIRST, SECOND, SeveralWorld, several
from tests.v2.world import painted

MADE = f"@{SECOND}/x_00001_.png [output]"


def loading(image: str, number: int = 0, seconds: float = 0.0) -> dict[str, Any]:
    """A job that no cache knows."""
    graph: dict[str, Any] = {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": f"@{SECOND}/n{number}"}},
    }
    if seconds:
        graph["3"] = {"class_type": "SlowProgress", "inputs": {"image": ["1", 0], "seconds": seconds, "steps": 4}}
        graph["2"]["inputs"]["images"] = ["3", 0]
    return graph


async def upload(world: SeveralWorld, name: str) -> None:
    form = FormData()
    form.add_field("image", painted((1, 2, 3)), filename=name, content_type="image/png")
    assert await world.gate.status("POST", "/upload/image", "alice", data=form) == 200


async def run_many(world: SeveralWorld, image: str) -> Counter[str]:
    """Where jobs have run that read this, until each has had one. All end well, and what they made can be read."""
    places: Counter[str] = Counter()
    while set(places) != set(BOTH):
        ids = [await submit(world, loading(image, number, 0.3)) for number in range(3)]
        for entry in (await ended(world, ids)).values():
            assert entry["status"]["status_str"] == "success", entry["status"]
            [made] = entry["outputs"]["2"]["images"]
            path = "filename={filename}&subfolder={subfolder}&type={type}".format(**made)
            assert await world.gate.status("GET", f"/view?{path}", "alice") == 200, made
        places += ran_where(world, ids)
    return places


async def test_an_upload_is_read_by_whoever_runs_the_job(two: SeveralWorld) -> None:
    await upload(two, "photo.png")
    assert set(await run_many(two, "photo.png")) == set(BOTH)


async def test_what_another_one_made_is_read_by_whoever_runs_the_job(two: SeveralWorld) -> None:
    await run_at(two, SECOND, saving(f"tenants/alice/@{SECOND}/x"))
    assert set(await run_many(two, MADE)) == set(BOTH)


async def test_a_job_runs_where_its_files_are_where_that_is_all_the_same(two: SeveralWorld) -> None:
    """Uploads are at the first, and where they have been brought."""
    await run_at(two, SECOND, saving(f"tenants/alice/@{SECOND}/x"))
    ids = []
    for number in range(3):
        ids.append(await submit(two, loading(MADE, number)))
        await ended(two, ids)
    assert ran_where(two, ids) == {SECOND: 3}
    await upload(two, "photo.png")
    await ended(two, [first := await submit(two, loading("photo.png", 7))])
    assert ran_where(two, [first]) == {FIRST: 1}
    transfers = two.gate.gate.dependencies.transfers
    assert transfers is not None
    file = (Folder.INPUT, UpstreamPath("tenants/alice/photo.png"))
    assert transfers.brought.bytes_to(SECOND, [file]) == [0]
    await transfers.bring(TenantId("alice"), Needs(files=(file,)), SECOND)
    assert transfers.brought.bytes_to(SECOND, [file]) == []


async def test_a_job_whose_file_is_away_keeps_nobody_waiting(tmp_path: Path) -> None:
    """It waits until who has the file is there again; what stands behind it goes on meanwhile."""
    async with several(tmp_path, has_directories=False, settings=dict.fromkeys(BOTH, 'gone_after = "600s"')) as world:
        await run_at(world, SECOND, saving(f"tenants/alice/@{SECOND}/x"))
        watchers = world.gate.gate.dependencies.jobs.watchers
        await world.stop(SECOND)
        while watchers.of(SECOND).is_settled.is_set():
            await asyncio.sleep(0.02)
        waiting = await submit(world, loading(MADE))
        others = [await submit(world, slow(0.1, 1), "mallory") for _ in range(3)]
        await ended(world, others, "mallory")
        [job] = [each for each in world.gate.gate.dependencies.registry.active() if each.prompt_id == waiting]
        assert not job.attempts, "it was not even tried"
        await world.start(SECOND)
        entries = await ended(world, [waiting])
        assert entries[waiting]["status"]["status_str"] == "success"


async def test_a_file_that_is_nowhere_is_told_by_comfyui(two: SeveralWorld) -> None:
    answer = await two.gate.json("POST", "/prompt", "alice", json={"prompt": loading("none.png")})
    assert answer["error"]["type"] == "prompt_outputs_failed_validation"
    answer = await two.gate.json("POST", "/prompt", "alice", json={"prompt": loading(MADE), "client_id": "tab"})
    if "prompt_id" in answer:  # it is told when its turn comes
        entries = await ended(two, [answer["prompt_id"]])
        assert entries[answer["prompt_id"]]["status"]["status_str"] == "error"


async def test_the_neighbours_file_of_that_name_is_not_brought(two: SeveralWorld) -> None:
    await run_at(two, SECOND, saving(f"tenants/alice/@{SECOND}/x"))
    answer = await two.gate.json("POST", "/prompt", "mallory", json={"prompt": loading(MADE), "client_id": "tab"})
    if "prompt_id" in answer:
        entries = await ended(two, [answer["prompt_id"]], "mallory")
        assert entries[answer["prompt_id"]]["status"]["status_str"] == "error"
    for comfy in two.comfyuis.values():
        assert not [each for each in Path(comfy.folders.base).rglob("*") if "mallory" in str(each) and each.is_file()]
