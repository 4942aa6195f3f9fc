"""Comfy API v2 with several ComfyUIs: results are measured, given and deleted wherever they are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from blake3 import blake3

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.needs import Needs
from policy.principal import TenantId
from tests.several.making import saving
from tests.several.world import SECOND, SeveralWorld, several
from tests.v2.world import painted


async def result_of(world: SeveralWorld, number: int) -> tuple[str, dict[str, Any]]:
    """Where the job ran, and its one output."""
    submitted = await world.gate.json("POST", "/api/v2/jobs", "alice", json={"workflow": saving("x", number)})
    async with asyncio.timeout(240):
        while True:
            job = await world.gate.json("GET", f"/api/v2/jobs/{submitted['id']}", "alice")
            if job["status"] not in ("queued", "running"):
                break
            await asyncio.sleep(0.02)
    assert job["status"] == "succeeded"
    found = world.gate.gate.dependencies.registry.job(job["id"])
    assert found is not None
    [output] = job["outputs"]
    return found.comfyui, output


@pytest.mark.parametrize("has_directories", [True, False])
async def test_results_are_measured_and_given_wherever_they_are(tmp_path: Path, has_directories: bool) -> None:
    only = {"gpu-1": 'tenants = ["mallory"]'}
    async with several(tmp_path, has_directories=has_directories, settings=only) as world:
        place, output = await result_of(world, 5)
        assert place == SECOND
        async with world.gate.call("GET", f"/api/v2/assets/{output['id']}/content", "alice") as answer:
            data = await answer.read()
            assert answer.status == 200
        assert (output["size_bytes"], output["hash"]) == (len(data), f"blake3:{blake3(data).hexdigest()}")
        assert await world.gate.status("GET", f"/api/v2/assets/{output['id']}/content", "mallory") == 404
        made = Path(world.comfyuis[SECOND].folders.output, "tenants/alice", f"@{SECOND}")
        assert await world.gate.status("DELETE", f"/api/v2/assets/{output['id']}", "alice") == 204
        assert bool(list(made.glob("*.png"))) is not has_directories


async def test_copies_of_an_asset_go_with_it(two: SeveralWorld) -> None:
    form = FormData()
    form.add_field("file", painted((1, 2, 3)), filename="a.png", content_type="image/png")
    asset = await two.gate.json("POST", "/api/v2/assets", "alice", data=form)
    [file] = Path(two.first.folders.input, "tenants/alice").rglob("*.png")
    path = UpstreamPath(file.relative_to(two.first.folders.input).as_posix())
    transfers = two.gate.gate.dependencies.transfers
    assert transfers is not None
    assert await transfers.bring(TenantId("alice"), Needs(files=((Folder.INPUT, path),)), SECOND) is None
    copy = Path(two.comfyuis[SECOND].folders.input, path)
    assert copy.exists()
    assert await two.gate.status("DELETE", f"/api/v2/assets/{asset['id']}", "alice") == 204
    assert not copy.exists()
