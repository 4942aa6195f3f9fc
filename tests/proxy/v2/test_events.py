"""What happens to a job, as it happens, over the wire: in which order, to whom, and when it ends."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import orjson
import pytest

from policy.principal import TenantId
from proxy.auth import key_file
from proxy.v2 import event_stream
from standin import StandIn
from tests.contract.driver import png
from tests.harness import Running, running_gate
from tests.proxy.test_queueing import set_limit
from tests.proxy.v2.following import TERMINAL, cancel, events_of, finished, following, saving, slow, submit

ALICE = TenantId("alice")
UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def test_a_job_from_its_place_to_its_end(gate: Running) -> None:
    job = await submit(gate, slow(1.5, 30))
    async with following(gate, job) as stream:
        seen = await stream.rest()
        headers = stream.response.headers
    assert headers["Content-Type"] == "text/event-stream"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Accel-Buffering"] == "no"
    assert "Content-Encoding" not in headers
    assert "Content-Length" not in headers
    kinds = [kind for kind, _ in seen]
    assert kinds[0] == kinds[-1] == "status"
    assert [each["status"] for each in stream.of("status")][-2:] == ["running", "succeeded"]
    values = [each["value"] for each in stream.of("progress")]
    assert values == sorted(values)
    assert values[-1] == 1.0
    assert {each["current_node_class"] for each in stream.of("progress")} >= {"SlowProgress", None}
    assert stream.of("progress")[-1]["nodes_done"] == stream.of("progress")[-1]["nodes_total"] == 4
    assert {each["node_id"] for each in stream.of("preview")} == {"3"}
    assert {each["node_id"] for each in stream.of("output")} == {"2", "4"}
    # The picture that was saved first is told while the job runs.
    assert kinds.index("output") < len(kinds) - 1 - kinds[::-1].index("progress")
    shown = await gate.json("GET", f"/api/v2/jobs/{job}", "alice")
    told = {each["id"]: each for each in stream.of("output")}
    assert {each["id"] for each in shown["outputs"]} == set(told)
    for output in shown["outputs"]:
        assert {**told[output["id"]], "url_expires_at": None} == {**output, "url_expires_at": None}


async def test_progress_comes_about_twice_a_second_and_the_last_one_always(gate: Running) -> None:
    began_s = time.monotonic()
    job = await submit(gate, slow(1.2, 600))
    async with following(gate, job) as stream:
        await stream.rest()
    assert len(stream.of("progress")) < 4 * (time.monotonic() - began_s) + 15
    assert stream.of("progress")[-1]["value"] == 1.0


async def test_two_viewers_see_the_same_and_a_late_one_what_was(gate: Running) -> None:
    job = await submit(gate, slow(1.0, 40))
    async with following(gate, job) as first:
        await first.until("output", node_id="2")
        await first.until("preview")
        async with following(gate, job) as second:
            kinds = [(await second.next() or ("", {}))[0] for _ in range(4)]
            assert kinds == ["status", "progress", "preview", "output"]
            await second.rest()
        await first.rest()
    assert second.of("output") == first.of("output")
    assert second.seen[-1] == first.seen[-1] == ("status", {"status": "succeeded"})


async def test_the_place_of_a_job_that_waits_is_told_when_it_moves(gate: Running) -> None:
    running = await submit(gate, slow())
    jobs = [await submit(gate, saving(f"w{number}", number)) for number in range(3)]
    async with following(gate, running) as first, following(gate, jobs[2]) as last:
        await first.until("status", status="running")
        assert await last.next() == ("status", {"status": "queued", "queue_position": 3})
        await cancel(gate, jobs[0])
        await last.until("status", status="queued", queue_position=2)
        await cancel(gate, running)
        await last.until("status", status="succeeded")
        assert (await first.rest())[-1] == ("status", {"status": "canceled"})
    states = [(each["status"], each.get("queue_position")) for each in last.of("status")]
    assert [each for each in states if each[0] == "queued"][:2] == [("queued", 3), ("queued", 2)]


async def test_a_job_that_is_given_to_comfyui_later_is_followed_as_any_other(gate: Running) -> None:
    """Behind more than ComfyUI's window holds."""
    before = [await submit(gate, slow()) for _ in range(3)]
    job = await submit(gate, slow(1.0, 20))
    async with following(gate, job) as stream:
        await stream.until("status", status="queued")
        for each in before:
            await cancel(gate, each)
        await stream.until("progress", current_node="3")
        await stream.until("preview", node_id="3")
        await stream.rest()
    assert stream.seen[-1] == ("status", {"status": "succeeded"})


async def test_a_job_that_has_ended_is_told_at_once(gate: Running) -> None:
    job = await submit(gate, saving())
    shown = await finished(gate, job)
    for _ in range(2):
        async with following(gate, job) as stream:
            seen = await stream.rest()
        assert seen == [("output", shown["outputs"][0]), ("status", {"status": "succeeded"})]


async def test_a_job_that_waits_and_is_canceled(gate: Running) -> None:
    running, waiting = await submit(gate, slow()), await submit(gate, slow())
    last = await submit(gate, saving())
    async with following(gate, last) as stream, following(gate, waiting) as other:
        await stream.next()
        await other.next()
        await cancel(gate, last)
        assert (await stream.rest())[-1] == ("status", {"status": "canceled"})
        await cancel(gate, waiting)
        await cancel(gate, running)
        assert (await other.rest())[-1] == ("status", {"status": "canceled"})
    async with following(gate, last) as stream:
        assert await stream.rest() == [("status", {"status": "canceled"})]


async def test_a_job_that_runs_and_is_canceled_is_canceling_first(gate: Running) -> None:
    job = await submit(gate, slow())
    async with following(gate, job) as stream:
        await stream.until("progress", current_node="3")
        await cancel(gate, job)
        await stream.rest()
    assert [each["status"] for each in stream.of("status")][-3:] == ["running", "canceling", "canceled"]
    assert max(each["value"] for each in stream.of("progress")) < 1.0


async def test_a_job_that_fails(gate: Running) -> None:
    form = aiohttp.FormData()
    form.add_field("image", png()[:50], filename="broken.png", content_type="image/png")
    assert await gate.status("POST", "/upload/image", "alice", data=form) == 200
    loading = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "broken.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    job = await submit(gate, loading)
    shown = await finished(gate, job)
    assert shown["status"] == "failed"
    error = shown["error"]
    assert (error["code"], error["node_id"], error["class_type"]) == ("node_execution_error", "1", "LoadImage")
    assert error["message"]
    assert error["traceback"] is None
    assert "tenants" not in str(shown)
    async with following(gate, job) as stream:
        assert await stream.rest() == [("status", {"status": "failed"})]


async def test_texts_are_results_too(gate: Running) -> None:
    await set_limit(gate, '"PrimitiveString"', '"PrimitiveString", "PreviewAny"')
    text = {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": "one\u2028two\u0085three"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    async with following(gate, await submit(gate, text)) as stream:
        await stream.rest()
    (output,) = stream.of("output")
    body = "one\u2028two\u0085three".encode()
    assert (output["type"], output["size_bytes"]) == ("text", len(body))
    assert output["content_type"].startswith("text/plain")
    async with gate.call("GET", f"/api/v2/assets/{output['id']}/content", "alice") as answer:
        assert (answer.status, await answer.read()) == (200, body)


async def test_nobody_else_follows_a_job(gate: Running) -> None:
    job = await submit(gate, slow())
    for path in (events_of(job), events_of(UNKNOWN), events_of("nonsense")):
        for method in ("GET", "HEAD"):
            who = "mallory" if job in path else "alice"
            async with gate.call(method, path, who) as answer:
                body = await answer.read()
                assert answer.status == 404
                assert job.encode() not in body
                if method == "GET":
                    assert orjson.loads(body)["error"]["code"] == "job_not_found"
    assert await gate.status("GET", events_of(job), "admin") == 403
    assert await gate.status("POST", events_of(job), "alice") == 405
    await cancel(gate, job)


async def test_a_head_has_no_body(gate: Running) -> None:
    job = await submit(gate, slow())
    async with gate.call("HEAD", events_of(job), "alice") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert await answer.read() == b""
    assert len(gate.gate.dependencies.sockets) == 0
    await cancel(gate, job)


async def test_streams_are_limited_as_websockets_are(gate: Running) -> None:
    await set_limit(gate, "websockets = 100", "websockets = 1")
    job = await submit(gate, slow())
    async with following(gate, job) as stream:
        await stream.next()
        async with gate.call("GET", events_of(job), "alice") as answer:
            assert answer.status == 429
            assert (await answer.json())["error"]["code"] == "too_many_streams"
            assert int(answer.headers["Retry-After"]) >= 1
        # What is not the tenant's takes no place.
        assert await gate.status("GET", events_of(job), "mallory") == 404
    while len(gate.gate.dependencies.sockets):
        await asyncio.sleep(0)
    async with following(gate, job) as stream:
        await stream.next()
        await cancel(gate, job)
        await stream.rest()


async def test_a_stream_is_no_request_that_is_under_way(gate: Running) -> None:
    await set_limit(gate, "websockets = 100", "websockets = 100\nconcurrent_requests = 1")
    job = await submit(gate, slow())
    async with following(gate, job) as one, following(gate, job) as two:
        await one.next()
        await two.next()
        await cancel(gate, job)
        await one.rest()
        await two.rest()


async def test_a_key_that_is_revoked_ends_its_streams(gate: Running) -> None:
    own = key_file.create_key(gate.config_file, tenant="alice")
    assert await gate.gate.reload(gate.config_file)
    job = await submit(gate, slow())
    headers = {"Authorization": f"Bearer {own.text}"}
    async with gate.session.get(gate.address(events_of(job)), headers=headers) as answer, following(gate, job) as other:
        await answer.content.readline()
        await other.next()
        key_file.revoke_key(gate.config_file, own.id)
        assert await gate.gate.reload(gate.config_file)
        rest = await answer.read()
        assert not any(status.encode() in rest for status in TERMINAL)
        await cancel(gate, job)
        assert (await other.rest())[-1][1]["status"] == "canceled"


async def test_a_gate_that_stops_ends_all_streams(tmp_path: Path, comfy: StandIn) -> None:
    async with running_gate(tmp_path, comfy.url) as gate:
        job = await submit(gate, slow())
        async with following(gate, job) as stream:
            await stream.until("status", status="running")
            await gate.gate.stop()
            await stream.rest()
        assert not {each["status"] for each in stream.of("status")} & TERMINAL
        await gate.gate.start()


async def test_a_client_that_waits_hears_that_the_gate_is_there(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "COMMENT_EACH_S", 0.14)
    running, job = await submit(gate, slow()), await submit(gate, slow())
    waiting = await submit(gate, saving())
    async with following(gate, waiting) as stream:
        await stream.until("status", queue_position=2)  # the first one runs, and nothing moves any more
        await stream.comment()
        await stream.comment()
    for each in (waiting, job, running):
        await cancel(gate, each)


async def test_an_old_client_is_told_without_chunks(gate: Running) -> None:
    job = await submit(gate, saving())
    await finished(gate, job)
    host, port = gate.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {events_of(job)} HTTP/1.0\r\nAuthorization: Bearer {gate.keys['alice']}\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body.startswith(b"event: output\n")
    assert body.endswith(b'data: {"status":"succeeded"}\n\n')
    writer.close()


@pytest.mark.parametrize("sent", [b"x" * (event_stream.MAX_UNREAD_BYTES + 1), None], ids=["says much", "says no more"])
async def test_a_client_that_does_anything_but_listen_is_let_go(gate: Running, sent: bytes | None) -> None:
    job = await submit(gate, slow())
    host, port = gate.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {events_of(job)} HTTP/1.1\r\nHost: x\r\nX-API-Key: {gate.keys['alice']}\r\n\r\n".encode())
    await reader.readuntil(b"event: status\n")
    assert len(gate.gate.dependencies.sockets) == 1
    if sent is None:
        writer.write_eof()
    else:
        writer.write(sent)
    while len(gate.gate.dependencies.sockets):
        await asyncio.sleep(0)
    writer.close()
    await cancel(gate, job)


async def test_jobs_that_came_natively_are_followed_through_their_clients_socket(gate: Running) -> None:
    address = gate.address("/ws?clientId=tab")
    async with gate.session.ws_connect(address, headers=gate.headers("alice"), max_msg_size=0) as socket:
        document = {"prompt": slow(1.0, 20), "client_id": "tab"}
        job = (await gate.json("POST", "/prompt", "alice", json=document))["prompt_id"]
        async with following(gate, job) as stream:
            await stream.until("progress", current_node="3")
            await stream.until("preview", node_id="3")
            await stream.rest()
        await socket.close()
    assert {each["node_id"] for each in stream.of("output")} == {"2", "4"}
    assert stream.seen[-1] == ("status", {"status": "succeeded"})


async def test_jobs_that_nobody_hears_are_told_their_states_and_results(gate: Running) -> None:
    job = (await gate.json("POST", "/prompt", "alice", json={"prompt": slow(0.3, 4)}))["prompt_id"]
    async with following(gate, job) as stream:
        await stream.rest()
    assert {each["node_id"] for each in stream.of("output")} == {"2", "4"}
    assert stream.seen[-1] == ("status", {"status": "succeeded"})


async def test_a_result_can_be_had_while_its_job_runs(gate: Running) -> None:
    job = await submit(gate, slow())
    async with following(gate, job) as stream:
        output = await stream.until("output", node_id="2")
        path = f"/api/v2/assets/{output['id']}/content"
        async with gate.call("GET", path, "alice") as answer:
            assert (answer.status, len(await answer.read())) == (200, output["size_bytes"])
        assert await gate.status("GET", path, "mallory") == 404
    await cancel(gate, job)


async def test_progress_and_results_stand_in_a_job_that_runs(gate: Running) -> None:
    job = await submit(gate, slow())
    async with following(gate, job) as stream:
        output = await stream.until("output", node_id="2")
        await stream.until("progress", current_node="3")
    shown = await gate.json("GET", f"/api/v2/jobs/{job}", "alice")
    assert shown["status"] == "running"
    assert shown["progress"]["nodes_total"] == 4
    assert shown["progress"]["current_node_class"] == "SlowProgress"
    assert [each["id"] for each in shown["outputs"]] == [output["id"]]
    await cancel(gate, job)


async def test_the_gates_own_client_id_is_not_shown(gate: Running) -> None:
    job = await submit(gate, saving())
    await finished(gate, job)
    for path in (f"/history/{job}", "/history", f"/api/jobs/{job}"):
        assert "api-v2" not in str(await gate.json("GET", path, "alice"))


async def test_a_neighbours_stream_has_nothing_of_ones_own(gate: Running) -> None:
    jobs = {who: await submit(gate, slow(0.5, 10, prefix=f"canary-{who}"), who) for who in ("alice", "mallory")}
    async with following(gate, jobs["alice"]) as alice, following(gate, jobs["mallory"], "mallory") as mallory:
        seen = {"alice": str(await alice.rest()), "mallory": str(await mallory.rest())}
    for who, other in (("alice", "mallory"), ("mallory", "alice")):
        assert f"canary-{who}" in seen[who]
        assert f"canary-{other}" not in seen[who]
        assert jobs[other] not in seen[who]
        assert "tenants/" not in seen[who]
