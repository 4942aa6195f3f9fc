"""policy/job_rows.py says of a job what ComfyUI says of it in `/api/jobs`, in each state."""

from __future__ import annotations

from typing import Any

import pytest

from policy.job_rows import detail_of_entry, row_of_entry, row_of_item

from .driver import Comfy, Graph, empty_image, loading, node, previewing, saving, unique

TEXT: Graph = {"1": node("PrimitiveString", value="words"), "2": node("PreviewAny", source=["1", 0])}
LONG_TEXT: Graph = {"1": node("PrimitiveString", value="x" * 1100), "2": node("PreviewAny", source=["1", 0])}
TEXT_FILE: Graph = {
    "1": node("PrimitiveString", value="words"),
    "2": node("SaveText", text=["1", 0], filename_prefix="rows/text", format="txt"),
    "3": node("PreviewAny", source=["1", 0]),
}
BOTH: Graph = {
    "1": empty_image(7),
    "2": node("PreviewImage", images=["1", 0]),
    "3": node("SaveImage", images=["1", 0], filename_prefix="rows/both"),
}
GRAPHS = {
    "saved": saving("rows/x", 61),
    "shown": previewing(62),
    "text": TEXT,
    "long-text": LONG_TEXT,
    "text-file": TEXT_FILE,
    "both": BOTH,
    "failed": loading(""),
}


@pytest.fixture
async def jobs(comfy: Comfy) -> Comfy:
    if not comfy.is_current:
        pytest.skip("/api/jobs is new in 0.33")
    return comfy


async def _row(comfy: Comfy, workflow_id: str) -> Any:
    """The one row of this workflow."""
    (row,) = (await comfy.get(f"/api/jobs?workflow_id={workflow_id}")).json()["jobs"]
    return row


def _extra(workflow_id: str) -> dict[str, Any]:
    return {"extra_pnginfo": {"workflow": {"id": workflow_id}}}


async def _check_ended(comfy: Comfy, prompt_id: str, workflow_id: str) -> str:
    entry = await comfy.history(prompt_id)
    assert row_of_entry(entry, prompt_id) == await _row(comfy, workflow_id)
    assert detail_of_entry(entry, prompt_id) == (await comfy.get(f"/api/jobs/{prompt_id}")).json()
    status: str = row_of_entry(entry, prompt_id)["status"]
    return status


@pytest.mark.parametrize("name", GRAPHS)
async def test_a_job_that_ended(jobs: Comfy, name: str) -> None:
    workflow_id = unique("wf")
    entry = await jobs.run(GRAPHS[name], extra_data=_extra(workflow_id))

    status = await _check_ended(jobs, entry["prompt"][1], workflow_id)

    assert status == ("failed" if name == "failed" else "completed")


async def test_a_job_that_waits_runs_and_is_cancelled(jobs: Comfy) -> None:
    workflow_id = unique("wf")
    async with jobs.blocked() as running_id:
        waiting_id = await jobs.queue(previewing(63), extra_data=_extra(workflow_id))
        queue = (await jobs.get("/queue")).json()
        (waiting,) = (item for item in queue["queue_pending"] if item[1] == waiting_id)
        (running,) = (item for item in queue["queue_running"] if item[1] == running_id)

        assert row_of_item(waiting, "pending") == await _row(jobs, workflow_id)
        assert row_of_item(waiting, "pending") == (await jobs.get(f"/api/jobs/{waiting_id}")).json()
        assert row_of_item(running, "in_progress") == (await jobs.get(f"/api/jobs/{running_id}")).json()
        await jobs.post(f"/api/jobs/{waiting_id}/cancel")

    stopped = await jobs.history(running_id)
    assert detail_of_entry(stopped, running_id) == (await jobs.get(f"/api/jobs/{running_id}")).json()
    assert row_of_entry(stopped, running_id)["status"] == "cancelled"
