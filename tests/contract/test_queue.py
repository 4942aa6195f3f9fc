"""A.1 and B.2, B.4: the queue, its order, deletion, interruption."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from standin import StandIn

from .driver import Comfy, empty_image, node, previewing, slow, unique


async def _pending(comfy: Comfy) -> list[list[Any]]:
    pending: list[list[Any]] = (await comfy.get("/queue")).json()["queue_pending"]
    return pending


async def test_queue_item_has_number_id_graph_extra_data_and_outputs(comfy: Comfy) -> None:
    async with comfy.blocked() as running_id:
        prompt_id = await comfy.queue(previewing(21), client_id="somebody", extra_data={"note": 1})
        queue = (await comfy.get("/queue")).json()
        assert [item[1] for item in queue["queue_running"]] == [running_id]
        item = next(item for item in queue["queue_pending"] if item[1] == prompt_id)
        if comfy.is_current:
            assert len(item) == 5
        assert item[2]["1"] == empty_image(21)
        assert item[3]["client_id"] == "somebody"
        assert item[4] == ["2"]
        await comfy.post("/queue", json={"delete": [prompt_id]})


async def test_credentials_do_not_show_in_the_queue(comfy: Comfy) -> None:
    async with comfy.blocked():
        prompt_id = await comfy.queue(previewing(22), extra_data={"api_key_comfy_org": "secret-value"})
        shown = "secret-value" in (await comfy.get("/queue")).text()
        await comfy.post("/queue", json={"delete": [prompt_id]})
    assert shown is (not comfy.is_current)


async def test_run_order_is_by_number(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        async with comfy.blocked():
            order = [5, -7, 3, "7.5", 0, -1000, 4]
            ids = {
                str(number): await comfy.queue(previewing(23), client_id=socket.sid, number=number) for number in order
            }
        for prompt_id in ids.values():
            if prompt_id not in [each["data"].get("prompt_id") for each in socket.seen if _is_end(each)]:
                await socket.end_of(prompt_id)
    started = [each["data"]["prompt_id"] for each in socket.seen if each["type"] == "execution_start"]
    assert started == [ids[each] for each in ("-1000", "-7", "0", "3", "4", "5", "7.5")]


def _is_end(message: dict[str, Any]) -> bool:
    return message["type"] == "executing" and message["data"]["node"] is None


async def test_later_front_beats_earlier_front(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        async with comfy.blocked():
            plain = await comfy.queue(previewing(24), client_id=socket.sid)
            early = await comfy.queue(previewing(24), client_id=socket.sid, front=True)
            late = await comfy.queue(previewing(24), client_id=socket.sid, front=True)
        await socket.end_of(plain)
    started = [each["data"]["prompt_id"] for each in socket.seen if each["type"] == "execution_start"]
    assert started == [late, early, plain]


async def test_pending_is_the_raw_heap(comfy: Comfy) -> None:
    async with comfy.blocked():
        ids = [await comfy.queue(previewing(25), number=number) for number in (2e9, 3e9, 1e9)]
        mine = [item[1] for item in await _pending(comfy) if item[1] in ids]
        await comfy.post("/queue", json={"delete": ids})
    assert mine == [ids[2], ids[1], ids[0]]


async def test_delete_removes_pending_and_leaves_no_trace(comfy: Comfy) -> None:
    async with comfy.blocked():
        prompt_id = await comfy.queue(previewing(26))
        answer = await comfy.post("/queue", json={"delete": [prompt_id, "unknown"]})
        assert (answer.status, answer.body) == (200, b"")
        assert prompt_id not in [item[1] for item in await _pending(comfy)]
        assert (await comfy.get(f"/history/{prompt_id}")).json() == {}


async def test_delete_does_not_touch_what_runs(comfy: Comfy) -> None:
    async with comfy.blocked() as running_id:
        await comfy.post("/queue", json={"delete": [running_id]})
        assert (await comfy.get("/queue")).json()["queue_running"][0][1] == running_id


async def test_clear_wipes_everybodys_pending(local: Comfy) -> None:
    async with local.blocked() as running_id:
        for client in ("a", "b"):
            await local.queue(previewing(27), client_id=client)
        assert (await local.post("/queue", json={"clear": True})).status == 200
        queue = (await local.get("/queue")).json()
        assert queue["queue_pending"] == []
        assert queue["queue_running"][0][1] == running_id


@pytest.mark.parametrize("body", [{}, {"clear": False}, {"clear": None}, {"delete": []}, []])
async def test_queue_call_that_asks_nothing_is_200(comfy: Comfy, body: Any) -> None:
    assert (await comfy.post("/queue", json=body)).status == 200


@pytest.mark.parametrize("body", [b"", b"null", b'{"delete": null}', b'{"delete": 5}'])
async def test_queue_call_of_wrong_type_is_500(comfy: Comfy, body: bytes) -> None:
    assert (await comfy.post("/queue", data=body)).status == 500


async def test_remaining_counts_running_and_pending(comfy: Comfy) -> None:
    async with comfy.blocked():
        before = (await comfy.get("/prompt")).json()["exec_info"]["queue_remaining"]
        assert before >= 1
        prompt_id = await comfy.queue(previewing(28))
        assert (await comfy.get("/prompt")).json() == {"exec_info": {"queue_remaining": before + 1}}
        await comfy.post("/queue", json={"delete": [prompt_id]})


async def test_interrupt_by_id_stops_only_that_job(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        prompt_id = await comfy.queue(slow(), client_id=socket.sid)
        await socket.event("progress", prompt_id)
        answer = await comfy.post("/interrupt", json={"prompt_id": str(uuid.uuid4())})
        assert (answer.status, answer.body) == (200, b"")
        await socket.event("progress", prompt_id)
        await comfy.post("/interrupt", json={"prompt_id": prompt_id})
        stopped = await socket.event("execution_interrupted", prompt_id)
        await socket.end_of(prompt_id)
    assert {"node_id", "node_type", "executed", "timestamp"} <= set(stopped)
    assert (stopped["node_id"], stopped["node_type"]) == ("2", "SlowProgress")
    status = (await comfy.history(prompt_id))["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    assert "execution_interrupted" in [name for name, _ in status["messages"]]


@pytest.mark.parametrize("body", [b"", b"nonsense", b"{}", b'{"prompt_id": null}', b'{"prompt_id": ""}'])
async def test_interrupt_without_id_is_global(local: Comfy, body: bytes) -> None:
    async with local.socket() as socket:
        prompt_id = await local.queue(slow(), client_id=socket.sid)
        await socket.event("progress", prompt_id)
        assert (await local.post("/interrupt", data=body)).status == 200
        await socket.event("execution_interrupted", prompt_id)


async def test_interrupt_of_an_idle_server_does_not_hit_the_next_job(comfy: Comfy) -> None:
    await comfy.post("/interrupt", json={})
    assert (await comfy.run(previewing(29)))["status"]["completed"]


async def test_free_forgets_the_cache(local: Comfy) -> None:
    graph = previewing(30)
    await local.run(graph)
    async with local.socket() as socket:
        async with local.blocked():
            # Taken between the job that runs and the next one.
            assert (await local.post("/free", json={"free_memory": True, "unload_models": True})).status == 200
            prompt_id = await local.queue(graph, client_id=socket.sid)
        await socket.end_of(prompt_id)
    assert dict((await local.history(prompt_id))["status"]["messages"])["execution_cached"]["nodes"] == []


async def test_free_wakes_an_idle_worker(local: Comfy, standin: StandIn) -> None:
    assert (await local.post("/free", json={"free_memory": True})).status == 200
    assert (await local.run(previewing(31)))["status"]["completed"]
    assert standin.worker_alive


async def test_many_clients_can_submit_at_once(comfy: Comfy) -> None:
    prefix = unique()
    graphs = [
        {"1": empty_image(n), "2": node("SaveImage", images=["1", 0], filename_prefix=f"{prefix}/x")} for n in range(8)
    ]
    entries = await asyncio.gather(*(comfy.run(graph) for graph in graphs))
    names = {entry["outputs"]["2"]["images"][0]["filename"] for entry in entries}
    assert names == {f"x_{n:05}_.png" for n in range(1, 9)}
