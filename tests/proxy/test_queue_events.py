from __future__ import annotations

import asyncio
import json

from aiohttp import ClientWebSocketResponse

from tests.harness import Running

SLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
    "2": {"class_type": "SlowProgress", "inputs": {"image": ["1", 0], "seconds": 60.0, "steps": 600}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "slow"}},
}


async def until_told(socket: ClientWebSocketResponse, count: int) -> None:
    """Returns when a status event says that so many of one's own jobs wait or run."""
    async with asyncio.timeout(240):
        while True:
            message = await socket.receive()
            if isinstance(message.data, str):
                event = json.loads(message.data)
                if event["type"] == "status" and event["data"]["status"]["exec_info"]["queue_remaining"] == count:
                    return


async def test_a_queued_job_is_announced_to_its_tenant_at_once(gate: Running) -> None:
    """The web UI reads the queue anew only when an event says so: without one, what waits would not be seen until it runs."""
    headers = gate.headers("alice")
    async with gate.session.ws_connect(gate.address("/ws?clientId=a"), headers=headers) as socket:
        for count in (1, 2, 3):
            await gate.json("POST", "/prompt", "alice", json={"prompt": SLOW, "client_id": "elsewhere"})
            await until_told(socket, count)
        await gate.status("POST", "/queue", "alice", json={"clear": True})
        await until_told(socket, 1)
        await gate.status("POST", "/interrupt", "alice")
        await until_told(socket, 0)


async def test_neighbours_are_told_nothing(gate: Running) -> None:
    async with gate.session.ws_connect(gate.address("/ws?clientId=m"), headers=gate.headers("mallory")) as socket:
        await until_told(socket, 0)
        await gate.json("POST", "/prompt", "alice", json={"prompt": SLOW})
        await gate.json("POST", "/prompt", "mallory", json={"prompt": SLOW, "client_id": "m"})
        first = await asyncio.wait_for(socket.receive_str(), 10)
        assert json.loads(first)["data"]["status"]["exec_info"]["queue_remaining"] == 1
