"""What a gate's metrics say after some work, as Prometheus reads them."""

from __future__ import annotations

import aiohttp

from tests.contract.driver import png, saving, slow
from tests.harness import Running
from tests.proxy.upstreams import GUARD_S


async def series(gate: Running) -> dict[str, float]:
    """Values by name and labels, as they stand in the text format."""
    async with gate.session.get(f"{gate.ops_url}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        lines = (await answer.text()).splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


async def log_in(gate: Running, key: str) -> int:
    return await gate.status("POST", "/gate/login", None, data={"key": key}, headers={"Origin": gate.url})


async def until_idle(gate: Running) -> None:
    while gate.gate.dependencies.registry.active():
        await gate.gate.dependencies.queue_watchers.first.sync()


async def test_logins_by_result(gate: Running) -> None:
    begun = await series(gate)
    assert begun['comfygate_logins_total{result="good"}'] == begun['comfygate_logins_total{result="bad"}'] == 0
    assert await log_in(gate, gate.keys["alice"]) == 303
    assert [await log_in(gate, "no key") for _ in range(2)] == [401, 401]
    gate.session.cookie_jar.clear()
    assert await gate.status("GET", "/queue", None, headers={"X-API-Key": "no key"}) == 401
    found = await series(gate)
    assert found['comfygate_logins_total{result="good"}'] == 1
    assert found['comfygate_logins_total{result="bad"}'] == 2, "of people in a browser alone"


async def test_uploads_and_bytes_by_tenant(gate: Running) -> None:
    form = aiohttp.FormData()
    form.add_field("image", png(), filename="a.png", content_type="image/png")
    assert await gate.status("POST", "/upload/image", "alice", data=form) == 200
    assert await gate.status("POST", "/upload/image", "mallory", data=b"no form") == 400
    async with gate.call("GET", "/view?filename=a.png&type=input", "alice") as response:
        body = await response.read()
    found = await series(gate)
    assert found['comfygate_uploads_total{tenant="alice"}'] == 1
    assert 'comfygate_uploads_total{tenant="mallory"}' not in found
    assert found['comfygate_received_bytes_total{tenant="alice"}'] > len(png())
    assert found['comfygate_sent_bytes_total{tenant="alice"}'] >= len(body)


async def test_jobs_by_outcome_and_what_they_used(gate: Running) -> None:
    await gate.json("POST", "/prompt", "alice", json={"prompt": slow(0.05, 1)})
    await until_idle(gate)
    await gate.json("POST", "/prompt", "alice", json={"prompt": slow()})
    await gate.json("POST", "/prompt", "mallory", json={"prompt": saving("waits")})
    while not (await gate.json("GET", "/queue", "alice"))["queue_running"]:
        pass
    await gate.gate.dependencies.queue_watchers.first.sync()
    found = await series(gate)
    jobs = {name: value for name, value in found.items() if name.startswith("comfygate_jobs{")}
    assert jobs == {
        'comfygate_jobs{state="queued",tenant="alice"}': 0,
        'comfygate_jobs{state="running",tenant="alice"}': 1,
        'comfygate_jobs{state="queued",tenant="mallory"}': 1,
        'comfygate_jobs{state="running",tenant="mallory"}': 0,
    }
    await gate.status("POST", "/interrupt", "alice", json={})
    await until_idle(gate)
    found = await series(gate)
    ended = {name: value for name, value in found.items() if name.startswith("comfygate_jobs_ended_total")}
    assert ended == {
        'comfygate_jobs_ended_total{outcome="completed",tenant="alice"}': 1,
        'comfygate_jobs_ended_total{outcome="cancelled",tenant="alice"}': 1,
        'comfygate_jobs_ended_total{outcome="completed",tenant="mallory"}': 1,
    }
    assert found['comfygate_gpu_seconds_total{tenant="alice"}'] >= 0.05
    assert found['comfygate_job_wait_seconds_count{tenant="mallory"}'] == 1
    assert found['comfygate_jobs{state="queued",tenant="mallory"}'] == 0


async def test_a_class_that_fails_is_named(gate: Running) -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "broken.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    form = aiohttp.FormData()
    form.add_field("image", png()[:50], filename="broken.png", content_type="image/png")
    assert await gate.status("POST", "/upload/image", "alice", data=form) == 200
    assert await gate.status("POST", "/prompt", "alice", json={"prompt": graph}) == 200
    await until_idle(gate)
    found = await series(gate)
    assert found['comfygate_jobs_failed_total{node_class="LoadImage"}'] == 1
    assert found['comfygate_jobs_ended_total{outcome="failed",tenant="alice"}'] == 1


async def test_websockets_and_their_frames(gate: Running) -> None:
    async with gate.session.ws_connect(gate.address("/ws"), headers=gate.headers("alice")) as socket:
        size = len((await socket.receive()).data)
        found = await series(gate)
        assert found["comfygate_websockets"] == 1
        assert found["comfygate_websocket_frames_sent"] >= 1
        assert found["comfygate_websocket_bytes_sent"] >= size
        assert found["comfygate_upstream_up"] == 1
        assert found["comfygate_worker_stuck"] == 0
    while (await series(gate))["comfygate_websockets"]:
        pass
    found = await series(gate)
    assert found["comfygate_websocket_frames_sent"] >= 1, "what was sent stays counted"


async def test_a_websocket_that_ends_is_no_failure_and_no_slow_request(gate: Running) -> None:
    """However its client leaves, and however long it stayed."""
    for number in range(4):
        who = "alice" if number % 2 else "admin"
        socket = await gate.session.ws_connect(gate.address("/ws"), headers=gate.headers(who))
        await socket.receive()
        if number < 2:
            await socket.close()
        else:
            transport = socket._conn.transport if socket._conn else None
            assert transport is not None
            transport.abort()
    assert await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
    found = {name: value for name, value in (await series(gate)).items() if "GET /ws" in name}
    assert found.pop('comfygate_requests_total{method="GET",route="GET /ws",status="101",tenant="alice"}') == 4
    assert not [name for name in found if not name.startswith("comfygate_requests_created")]
    assert (await series(gate))["comfygate_websocket_seconds_count"] == 4
    assert gate.log.getvalue().count(b'"status":101') == 4
