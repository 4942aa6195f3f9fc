"""ComfyUI is away, and the name that is asked for has come again: no copy of an earlier file is given for a later one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from policy.principal import TenantId
from proxy.copies.work import CopyWork, Done
from proxy.jobs.copy_requests import Copy
from standin import StandIn
from tests.contract.driver import node, previewing, saving, slow
from tests.harness import Running, running_gate
from tests.proxy.copies.making import eventually, made, output_of, read, settled
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.asking import ask, cancel, submitted, until
from tests.several.test_stored_files import storage

PATH = "/view?filename=kept_00001_.png"


@pytest.fixture
async def gate(tmp_path: Path, comfy: StandIn) -> AsyncIterator[Running]:
    """One that does not see ComfyUI's folders."""
    async with running_gate(tmp_path, comfy.url, more=storage(tmp_path)) as running:
        running.comfy = comfy
        yield running


def comfy_of(gate: Running) -> StandIn:
    assert gate.comfy is not None
    return gate.comfy


def delete(gate: Running, name: str = "kept_00001_.png") -> None:
    """As the operator does: ComfyUI counts from the beginning again."""
    Path(comfy_of(gate).folders.output, "tenants/alice", name).unlink()


def fails(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """From now on."""

    async def fail(work: CopyWork, copy: Copy) -> Done:
        return Done(copy, "failed", "in this test", has_failed=True)

    monkeypatch.setattr(CopyWork, method, fail)


async def earlier(gate: Running) -> tuple[str, bytes]:
    """The address of the asset of a file that was copied and whose name has been free since, and its bytes."""
    output = await output_of(gate, await made(gate, "kept"))
    await settled(gate, 1)
    data = await read(gate, PATH)
    delete(gate)
    return f"/api/v2/assets/{output['id']}/content", data


async def test_the_copy_is_given_while_comfyui_is_away(gate: Running) -> None:
    asset, data = await earlier(gate)
    assert await gate.status("GET", PATH, "alice") == 404
    await comfy_of(gate).stop()
    assert await read(gate, PATH) == await read(gate, asset) == data
    assert await gate.status("GET", PATH, "mallory") == 502


async def test_a_later_file_that_is_not_copied_is_not_the_earlier_one(
    gate: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset, data = await earlier(gate)
    fails(monkeypatch, "_copy")
    await made(gate, "kept")
    await eventually(gate, lambda found: len(found) == 2 and any(copy.attempts for copy in found))
    await comfy_of(gate).stop()
    assert await gate.status("GET", PATH, "alice") == 502
    assert await read(gate, asset) == data, "which is this very file"


async def test_the_copy_of_the_later_file_is_given_for_its_name(gate: Running) -> None:
    asset, data = await earlier(gate)
    await made(gate, "kept")
    await settled(gate, 2)
    later = await read(gate, PATH)
    await comfy_of(gate).stop()
    assert await read(gate, PATH) == later != data
    assert await read(gate, asset) == data


async def test_a_job_whose_files_are_not_looked_up_yet_may_have_written_it(
    gate: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await earlier(gate)
    fails(monkeypatch, "_split")
    assert (await ask(gate, "POST", "/prompt", json={"prompt": saving("other", 3)})).status == 200
    await eventually(gate, lambda found: any(copy.is_whole_job and copy.attempts for copy in found))
    await comfy_of(gate).stop()
    assert await gate.status("GET", PATH, "alice") == 200, "the job has written another one"
    await comfy_of(gate).start("127.0.0.1", comfy_of(gate).port)
    assert (await ask(gate, "POST", "/prompt", json={"prompt": saving("kept", 4)})).status == 200
    await eventually(gate, lambda found: len([copy for copy in found if copy.is_whole_job and copy.attempts]) == 2)
    await comfy_of(gate).stop()
    assert await gate.status("GET", PATH, "alice") == 502


async def test_a_job_that_was_stopped_may_have_written_it(gate: Running) -> None:
    await earlier(gate)
    graph = saving("kept", 5) | {
        "3": node("SlowProgress", image=["1", 0], seconds=600.0, steps=6000),
        "4": node("PreviewImage", images=["3", 0]),
    }
    stopped = (await ask(gate, "POST", "/prompt", json={"prompt": graph})).body["prompt_id"]
    file = Path(comfy_of(gate).folders.output, "tenants/alice/kept_00001_.png")
    async with asyncio.timeout(GUARD_S):
        while not file.exists():
            await asyncio.sleep(0.01)
    await cancel(gate, stopped)
    await until(gate, stopped, "canceled")
    await comfy_of(gate).stop()
    assert await gate.status("GET", PATH, "alice") == 502


async def test_a_job_that_runs_may_just_have_written_it(gate: Running) -> None:
    asset, data = await earlier(gate)
    running = await submitted(gate, slow())
    await until(gate, running, "running")
    await comfy_of(gate).stop()
    assert await gate.status("GET", PATH, "alice") == 502
    assert await read(gate, asset) == data


async def test_a_preview_is_that_of_its_own_job(gate: Running) -> None:
    first = await submitted(gate, previewing(1))
    await until(gate, first, "succeeded")
    [copy] = await settled(gate, 1)
    path = f"/view?type=temp&filename={copy.path}"
    data = await read(gate, path)
    await comfy_of(gate).stop()
    assert await read(gate, path) == data
    assert await gate.status("GET", path, "mallory") == 502
    files = gate.gate.dependencies.registry.temp_files
    files.forget(files.older(TenantId("alice"), math.inf))
    assert await gate.status("GET", path, "alice") == 502


async def test_who_deletes_an_asset_is_given_no_copy_of_it(gate: Running) -> None:
    asset, _ = await earlier(gate)
    async with gate.call("DELETE", asset.removesuffix("/content"), "alice") as answer:
        assert answer.status == 204
    await comfy_of(gate).stop()
    assert await gate.status("GET", PATH, "alice") == 502


def test_one_that_is_configured_no_more_is_known_by_its_folder(gate: Running) -> None:
    dependencies = gate.gate.dependencies
    assert dependencies.copies is not None
    meant = dependencies.copies.meant
    assert meant.is_gone("tenants/alice/@gpu-7/x.png")
    assert not meant.is_gone("tenants/alice/x.png")
