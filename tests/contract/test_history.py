"""A.1, B.5, B.6: history and jobs."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from .driver import Comfy, empty_image, loading, node, previewing, saving, slow, unique

FAILING = loading("")


async def test_history_entry_of_a_success(comfy: Comfy) -> None:
    prefix = unique()
    entry = await comfy.run(saving(f"{prefix}/x", 31))
    assert set(entry) == {"prompt", "outputs", "status", "meta"}
    number, prompt_id, graph, extra_data, outputs = entry["prompt"][:5]
    assert isinstance(number, (int, float))
    assert graph["1"]["class_type"] == "EmptyImage"
    assert outputs == ["2"]
    assert "client_id" in extra_data
    assert entry["outputs"] == {"2": {"images": [{"filename": "x_00001_.png", "subfolder": prefix, "type": "output"}]}}
    assert entry["meta"] == {"2": {"node_id": "2", "display_node": "2", "parent_node": None, "real_node_id": "2"}}
    status = entry["status"]
    assert (status["status_str"], status["completed"]) == ("success", True)
    assert [name for name, _ in status["messages"]] == ["execution_start", "execution_cached", "execution_success"]
    assert all(data["prompt_id"] == prompt_id and data["timestamp"] > 0 for _, data in status["messages"])


async def test_history_entry_of_a_failure_tells_everything(comfy: Comfy) -> None:
    entry = await comfy.run(FAILING)
    status = entry["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    error = next(data for name, data in status["messages"] if name == "execution_error")
    assert {
        "prompt_id",
        "node_id",
        "node_type",
        "executed",
        "exception_message",
        "exception_type",
        "traceback",
        "current_inputs",
        "current_outputs",
        "timestamp",
    } == set(error)
    assert (error["node_id"], error["node_type"]) == ("1", "LoadImage")
    assert error["current_inputs"] == {"image": [""]}
    assert isinstance(error["traceback"], list)


async def test_unknown_id_is_an_empty_object(comfy: Comfy) -> None:
    assert (await comfy.get(f"/history/{uuid.uuid4()}")).json() == {}


async def test_paging_counts_from_the_newest_or_from_the_oldest(local: Comfy) -> None:
    ids = [(await local.run(previewing(40 + n)))["prompt"][1] for n in range(4)]
    for query, expected in (
        ("", ids),
        ("?max_items=2", ids[2:]),
        ("?max_items=9", ids),
        ("?offset=1", ids[1:]),
        ("?offset=1&max_items=2", ids[1:3]),
        ("?offset=9", []),
        ("?max_items=0", []),
        ("?max_items=-1", []),
        ("?max_items=0&offset=0", ids[:1]),
    ):
        assert list((await local.get(f"/history{query}")).json()) == expected, query


async def test_history_is_paged_on_any_server(comfy: Comfy) -> None:
    newest = (await comfy.run(previewing(45)))["prompt"][1]
    assert newest in (await comfy.get("/history?max_items=3")).json()
    assert (await comfy.get("/history?max_items=0")).json() == {}
    assert (await comfy.get("/history?max_items=abc")).status == 500


async def test_delete_removes_an_entry(comfy: Comfy) -> None:
    prompt_id = (await comfy.run(previewing(46)))["prompt"][1]
    answer = await comfy.post("/history", json={"delete": [prompt_id, "unknown"]})
    assert (answer.status, answer.body) == (200, b"")
    assert (await comfy.get(f"/history/{prompt_id}")).json() == {}


async def test_clear_wipes_everybodys_entries(local: Comfy) -> None:
    await local.run(previewing(47))
    await local.post("/history", json={"clear": True})
    assert (await local.get("/history")).json() == {}


async def _job(comfy: Comfy, prompt_id: str) -> dict[str, Any]:
    answer = await comfy.get(f"/api/jobs/{prompt_id}")
    assert answer.status == 200
    job: dict[str, Any] = answer.json()
    return job


@pytest.fixture(autouse=True)
def _only_where_jobs_exist(request: pytest.FixtureRequest) -> None:
    if "job" in request.node.name and "comfy" in request.fixturenames:
        comfy = request.getfixturevalue("comfy")
        if not comfy.is_current:
            pytest.skip("/api/jobs is new in 0.33")


async def test_job_of_a_success(comfy: Comfy) -> None:
    prefix, workflow_id = unique(), unique("wf")
    extra = {"extra_pnginfo": {"workflow": {"id": workflow_id}}}
    entry = await comfy.run(saving(f"{prefix}/x", 51) | {"3": node("PreviewImage", images=["1", 0])}, extra_data=extra)
    job = await _job(comfy, entry["prompt"][1])
    assert job["status"] == "completed"
    assert (job["outputs_count"], job["previewable_outputs_count"]) == (2, 2)
    saved = entry["outputs"]["2"]["images"][0]
    assert job["preview_output"] == saved | {"nodeId": "2", "mediaType": "images"}
    assert job["workflow_id"] == workflow_id
    assert job["priority"] == entry["prompt"][0]
    assert job["execution_start_time"] <= job["execution_end_time"]
    assert job["outputs"] == entry["outputs"]
    assert job["execution_status"] == entry["status"]
    assert job["workflow"] == {"prompt": entry["prompt"][2], "extra_data": entry["prompt"][3]}


async def test_job_list_row_has_no_outputs(comfy: Comfy) -> None:
    workflow_id = unique("wf")
    extra = {"extra_pnginfo": {"workflow": {"id": workflow_id}}}
    await comfy.run(previewing(52), extra_data=extra)
    answer = (await comfy.get(f"/api/jobs?workflow_id={workflow_id}")).json()
    assert answer["pagination"] == {"offset": 0, "limit": None, "total": 1, "has_more": False}
    row = answer["jobs"][0]
    assert set(row) == {
        "id",
        "status",
        "priority",
        "create_time",
        "execution_start_time",
        "execution_end_time",
        "outputs_count",
        "previewable_outputs_count",
        "preview_output",
        "workflow_id",
    }
    assert row["preview_output"]["type"] == "temp"


async def test_job_that_failed_carries_its_error_in_the_list(comfy: Comfy) -> None:
    workflow_id = unique("wf")
    extra = {"extra_pnginfo": {"workflow": {"id": workflow_id}}}
    await comfy.run(FAILING, extra_data=extra)
    row = (await comfy.get(f"/api/jobs?status=failed&workflow_id={workflow_id}")).json()["jobs"][0]
    assert row["status"] == "failed"
    assert row["execution_error"]["node_type"] == "LoadImage"


async def test_job_states_of_running_pending_and_cancelled(comfy: Comfy) -> None:
    async with comfy.blocked() as running_id:
        pending_id = await comfy.queue(previewing(53))
        running, pending = await _job(comfy, running_id), await _job(comfy, pending_id)
        assert (running["status"], pending["status"]) == ("in_progress", "pending")
        assert set(pending) == {
            "id",
            "status",
            "priority",
            "create_time",
            "outputs_count",
            "previewable_outputs_count",
        }
        assert (await comfy.post(f"/api/jobs/{pending_id}/cancel")).json() == {"cancelled": True}
        assert (await comfy.get(f"/api/jobs/{pending_id}")).status == 404
    assert (await _job(comfy, running_id))["status"] == "cancelled"


async def test_job_cancel_is_idempotent(comfy: Comfy) -> None:
    done_id = (await comfy.run(previewing(54)))["prompt"][1]
    for prompt_id in (done_id, str(uuid.uuid4()), "any%20string"):
        answer = await comfy.post(f"/api/jobs/{prompt_id}/cancel")
        assert (answer.status, answer.json()) == (200, {"cancelled": False})


async def test_job_cancel_in_a_batch(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        running_id = await comfy.queue(slow(), client_id=socket.sid)
        await socket.event("progress", running_id)
        pending_id = await comfy.queue(previewing(55), number=1e9)
        answer = await comfy.post("/api/jobs/cancel", json={"job_ids": [pending_id, running_id, str(uuid.uuid4())]})
        assert answer.json() == {"cancelled": True}
        await socket.event("execution_interrupted", running_id)
    assert (await comfy.post("/api/jobs/cancel", json={"job_ids": []})).json() == {"cancelled": False}


async def test_job_cancel_in_a_batch_refuses_bad_bodies(comfy: Comfy) -> None:
    answer = await comfy.post("/api/jobs/cancel", json={"job_ids": ["x", 5, {}]})
    assert answer.status == 400
    assert answer.json() == {"error": "job_ids contains invalid id(s)", "invalid_ids": ["x", "5", "{}"]}
    for body in (b"{}", b"[]", b'{"job_ids": "x"}'):
        answer = await comfy.post("/api/jobs/cancel", data=body)
        assert (answer.status, answer.json()) == (400, {"error": "job_ids must be a list"})
    answer = await comfy.post("/api/jobs/cancel", data=b"nonsense")
    assert (answer.status, answer.json()) == (400, {"error": "Request body must be valid JSON"})


async def test_job_routes_exist_under_api_api_too(comfy: Comfy) -> None:
    assert (await comfy.get("/api/api/jobs")).status == 200
    assert (await comfy.get(f"/api/api/jobs/{uuid.uuid4()}")).json() == {"error": "Job not found"}
    assert (await comfy.post(f"/api/api/jobs/{uuid.uuid4()}/cancel")).status == 200


async def test_unknown_job_is_404(comfy: Comfy) -> None:
    answer = await comfy.get(f"/api/jobs/{uuid.uuid4()}")
    assert (answer.status, answer.json()) == (404, {"error": "Job not found"})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "status=bogus",
            "Invalid status value(s): bogus. Valid values: pending, in_progress, completed, failed, cancelled",
        ),
        ("sort_by=x", "sort_by must be 'created_at' or 'execution_duration'"),
        ("sort_order=x", "sort_order must be 'asc' or 'desc'"),
        ("limit=0", "limit must be a positive integer"),
        ("limit=x", "limit must be an integer"),
        ("offset=x", "offset must be an integer"),
    ],
)
async def test_job_list_refuses_bad_queries(comfy: Comfy, query: str, message: str) -> None:
    answer = await comfy.get(f"/api/jobs?{query}")
    assert (answer.status, answer.json()) == (400, {"error": message})


async def test_job_list_is_sorted_and_paged(comfy: Comfy) -> None:
    workflow_id = unique("wf")
    extra = {"extra_pnginfo": {"workflow": {"id": workflow_id}}}
    ids = [(await comfy.run(previewing(56 + n), extra_data=extra))["prompt"][1] for n in range(3)]
    base = f"/api/jobs?workflow_id={workflow_id}"

    async def listed(query: str) -> list[str]:
        return [job["id"] for job in (await comfy.get(base + query)).json()["jobs"]]

    assert await listed("") == ids[::-1]
    assert await listed("&sort_order=asc") == ids
    assert await listed("&sort_order=ASC&limit=1&offset=1") == [ids[1]]
    assert await listed("&offset=-5&limit=2") == ids[:0:-1]
    assert sorted(await listed("&sort_by=execution_duration")) == sorted(ids)
    page = (await comfy.get(f"{base}&limit=2")).json()["pagination"]
    assert page == {"offset": 0, "limit": 2, "total": 3, "has_more": True}


async def test_job_preview_of_text_is_its_content(comfy: Comfy) -> None:
    text = "t" * 2000
    entry = await comfy.run({"1": node("PrimitiveString", value=text), "2": node("PreviewAny", source=["1", 0])})
    job = await _job(comfy, entry["prompt"][1])
    assert entry["outputs"]["2"] == {"text": [text]}
    assert job["outputs_count"] == 0
    assert job["preview_output"] == {"content": text[:1024], "truncated": True, "nodeId": "2", "mediaType": "text"}


async def test_job_prefers_a_picture_to_a_text_file(comfy: Comfy) -> None:
    prefix = unique()
    graph = {
        "1": node("PrimitiveString", value="hello"),
        "2": node("SaveText", text=["1", 0], filename_prefix=f"{prefix}/t", format="txt"),
        "3": empty_image(58),
        "4": node("PreviewImage", images=["3", 0]),
    }
    entry = await comfy.run(graph)
    saved = {"filename": "t_00001.txt", "subfolder": prefix, "type": "output"}
    assert entry["outputs"]["2"] == {"text": ["hello"], "files": [saved]}
    job = await _job(comfy, entry["prompt"][1])
    assert (job["outputs_count"], job["previewable_outputs_count"]) == (2, 2)
    assert job["preview_output"]["nodeId"] == "4"
    only_text = await comfy.run({each: graph[each] for each in ("1", "2")})
    assert (await _job(comfy, only_text["prompt"][1]))["preview_output"]["filename"] == "t_00001.txt"
