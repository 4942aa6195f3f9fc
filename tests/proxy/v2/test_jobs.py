"""The API's jobs through the whole gate: submit, look, list, and what stands where."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from policy.v2.jobs import Status
from proxy.persistence.operations import DatabaseUnavailable
from proxy.v2.job_views import JobViews
from standin import StandIn
from tests.contract.driver import empty_image, node, saving, slow, unique
from tests.harness import Running, running_gate
from tests.policy.tenants import uuid_of
from tests.proxy.v2.asking import JOBS, ask, audited, cancel, job, listed, submit, submitted, until

NOBODYS = uuid_of(9)
SECRET = "comfyui-0123456789abcdef-canary"
PAID = {
    "1": node("OpenAIDalle3", prompt="a fox", seed=1, quality="standard", style="natural", size="1024x1024"),
    "2": node("SaveImage", images=["1", 0], filename_prefix="paid"),
}


def broken_branch(prefix: str) -> dict[str, Any]:
    """One output of two that ComfyUI does not run."""
    return {**saving(prefix), "3": node("SaveImage", images=["1", 0])}


async def test_a_job_from_its_submission_to_its_end(gate: Running) -> None:
    prefix = unique("v2")
    answer = await submit(gate, saving(prefix), metadata={"client": "acme"})
    assert answer.status == 201
    shown = answer.body
    assert shown["status"] in ("queued", "running", "succeeded")
    assert shown["metadata"] == {"client": "acme"}
    assert shown["urls"]["self"] == f"{JOBS}/{shown['id']}"
    await until(gate, shown["id"], "succeeded")
    done = await job(gate, shown["id"])
    assert done["created_at"] == shown["created_at"]
    assert done["started_at"] <= done["completed_at"] < done["expires_at"]
    assert (done["queue_position"], done["error"]) == (None, None)
    assert done["metrics"]["execution_ms"] >= 0
    assert await listed(gate) == [shown["id"]]


async def test_both_doors_lead_to_the_same_job(gate: Running) -> None:
    by_prompt = (await gate.json("POST", "/prompt", "alice", json={"prompt": saving(unique())}))["prompt_id"]
    by_api = await submitted(gate, saving(unique()))
    for job_id in (by_prompt, by_api):
        await until(gate, job_id, "succeeded")
        assert (await gate.json("GET", f"/history/{job_id}", "alice")).keys() == {job_id}
    assert await listed(gate) == [by_api, by_prompt]


async def test_what_is_a_neighbours_is_what_is_not_there(gate: Running) -> None:
    """SECURITY: byte for byte but for the request's own id."""
    mine = await submitted(gate, saving(unique()), metadata={"canary": "of-alice"})
    await until(gate, mine, "succeeded")
    for method, tail in (("GET", ""), ("GET", "/workflow"), ("POST", "/cancel")):
        foreign = await ask(gate, method, f"{JOBS}/{mine}{tail}", "mallory")
        absent = await ask(gate, method, f"{JOBS}/{NOBODYS}{tail}", "mallory")
        assert foreign.refusal == absent.refusal == (404, "job_not_found")
        for answer in (foreign, absent):
            answer.body["error"]["details"].pop("request_id")
        assert foreign.body == absent.body
        assert "canary" not in foreign.raw.decode()
    for query in ("", "?metadata[canary]=of-alice", "?status=succeeded"):
        assert await listed(gate, query, "mallory") == []
    cursor = (await ask(gate, "GET", f"{JOBS}?limit=1", "alice")).body["next_cursor"]
    assert cursor is None
    assert (await job(gate, mine))["status"] == "succeeded"


async def test_a_neighbours_cursor_gives_ones_own_list(gate: Running) -> None:
    for _ in range(2):
        await submitted(gate, saving(unique()))
    own = await submitted(gate, saving(unique()), "mallory")
    cursor = (await ask(gate, "GET", f"{JOBS}?limit=1", "alice")).body["next_cursor"]
    assert cursor
    assert await listed(gate, f"?cursor={cursor}", "mallory") in ([], [own])
    assert len(await listed(gate, f"?cursor={cursor}", "alice")) == 1


async def test_the_list_is_paged_and_filtered(gate: Running) -> None:
    ids = [await submitted(gate, saving(unique()), metadata={"n": str(number % 2)}) for number in range(5)]
    for job_id in ids:
        await until(gate, job_id, "succeeded")
    pages: list[list[str]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await ask(gate, "GET", f"{JOBS}?limit=2&cursor={cursor}")).body
        pages.append([row["id"] for row in page["jobs"]])
        cursor = page["next_cursor"]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [each for page in pages for each in page] == ids[::-1]
    assert await listed(gate, "?metadata[n]=1") == [ids[3], ids[1]]
    assert await listed(gate, "?metadata%5Bn%5D=1&limit=1") == [ids[3]]
    assert await listed(gate, "?metadata[n]=1&status=failed,canceled") == []
    assert len(await listed(gate, "?status=" + ",".join(Status))) == 5


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ("limit=0", (400, "invalid_request")),
        ("limit=101", (400, "invalid_request")),
        ("status=done", (400, "invalid_request")),
        ("cursor=x", (400, "invalid_cursor")),
        ("metadata[]=x", (400, "invalid_metadata_filter")),
        ("metadata[a]=1&metadata[b]=1&metadata[c]=1&metadata[d]=1", (400, "invalid_metadata_filter")),
        ("metadata[a]=%00", (400, "invalid_metadata_filter")),
        ("cursor=%00", (400, "invalid_request")),
    ],
)
async def test_a_bad_query_is_told_in_the_apis_words(gate: Running, query: str, refusal: tuple[int, str]) -> None:
    answer = await ask(gate, "GET", f"{JOBS}?{query}")
    assert answer.status == 400
    assert answer.code in (refusal[1], "invalid_request")


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"", (400, "invalid_request")),
        (b"[]", (400, "invalid_request")),
        (b"{", (400, "invalid_request")),
        (b"{}", (422, "invalid_workflow")),
        (b'{"workflow":{}}', (422, "invalid_workflow")),
        (b'{"workflow":{"nodes":[],"links":[],"last_node_id":1,"version":0.4}}', (422, "workflow_format_ui")),
        (b'{"workflow":{"1":{"class_type":"Nope","inputs":{}}}}', (403, "forbidden")),
        (b'{"workflow":{"1":{"class_type":"SaveImage","inputs":{"filename_prefix":"x"}}}}', (422, "invalid_workflow")),
        (b'{"workflow":{},"webhook_url":"http://127.0.0.1/"}', (422, "invalid_workflow")),
        (b'{"workflow":{},"inputs":{}}', (422, "invalid_workflow")),
        (b'{"workflow":{},"metadata":"x"}', (422, "metadata_invalid")),
        (b'{"workflow":{},"metadata":{"a":"\\ud800"}}', (400, "invalid_request")),
        (
            b'{"workflow":{"1":{"class_type":"LoadImage","inputs":{"image":{"__type":"core/ASSET","info":{"id":"x"}}}}}}',
            (422, "missing_asset"),
        ),
        (
            b'{"workflow":{"1":{"class_type":"LoadImage","inputs":{"image":{"__type":"core/ASSET","info":{"id":"\\u0000"}}}}}}',
            (422, "missing_asset"),
        ),
    ],
)
async def test_a_bad_submission_is_told_in_the_apis_words(gate: Running, body: bytes, refusal: tuple[int, str]) -> None:
    answer = await ask(gate, "POST", JOBS, data=body)
    assert answer.refusal == refusal
    assert answer.body["error"]["details"]["request_id"] == answer.headers["X-Comfy-Request-Id"]
    assert await listed(gate) == []


async def test_a_refused_workflow_names_its_nodes(gate: Running) -> None:
    graph = saving(unique())
    graph["1"]["inputs"]["width"] = "wide"
    answer = await submit(gate, graph)
    assert answer.refusal == (422, "invalid_workflow")
    assert answer.body["error"]["details"]["node_errors"].keys() == {"1"}
    graph["1"] = node("NotAllowed")
    answer = await submit(gate, graph)
    assert answer.refusal == (403, "forbidden")
    assert "1" in answer.body["error"]["details"]["node_errors"]


async def test_what_of_a_workflow_is_not_run_is_told_beside_the_job(gate: Running) -> None:
    answer = await submit(gate, broken_branch(unique()))
    assert answer.status == 201
    assert answer.body["node_errors"].keys() == {"3"}
    await until(gate, answer.body["id"], "succeeded")


async def test_labels_reach_nobody_but_their_tenant(gate: Running) -> None:
    assert gate.comfy is not None
    job_id = await submitted(gate, saving(unique()), metadata={"canary": "label-canary"})
    await until(gate, job_id, "succeeded")
    assert not [call for call in gate.comfy.received if b"label-canary" in call.body]
    assert "label-canary" not in gate.log.getvalue().decode()


async def test_the_workflow_is_given_back_in_the_tenants_words(gate: Running) -> None:
    graph = saving(unique("out/mine"))
    running = await submitted(gate, slow())
    job_id = await submitted(gate, graph)
    for _ in range(2):
        answer = await ask(gate, "GET", f"{JOBS}/{job_id}/workflow")
        assert (answer.status, answer.body) == (200, {"workflow": graph, "format": "api"})
        await cancel(gate, running)
        await until(gate, job_id, "succeeded")


async def test_a_submission_stands_in_the_audit_trail(gate: Running) -> None:
    job_id = await submitted(gate, saving(unique()))
    assert (await submit(gate, {"1": node("NotAllowed")})).status == 403
    taken, refused = audited(gate)
    assert (taken["decision"], taken["tenant"], taken["prompt_id"]) == ("accepted", "alice", job_id)
    assert taken["classes"] == ["EmptyImage", "SaveImage"]
    assert (refused["decision"], refused["tenant"]) == ("refused", "alice")


def everything_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@asynccontextmanager
async def permitting_paid(folder: Path, comfy: StandIn) -> AsyncIterator[Running]:
    folder.mkdir()
    async with running_gate(folder, comfy.url) as gate:
        text = gate.config_file.read_text(encoding="utf-8")
        gate.config_file.write_text(text.replace('"SlowProgress"', '"SlowProgress", "OpenAIDalle3"'), encoding="utf-8")
        assert await gate.gate.reload(gate.config_file)
        yield gate


@pytest.mark.parametrize("is_paid", [True, False])
async def test_a_key_of_paid_services_goes_where_it_is_needed_and_stays_nowhere(
    tmp_path: Path, comfy: StandIn, is_paid: bool
) -> None:
    async with permitting_paid(tmp_path / "gate", comfy) as gate:
        graph = PAID if is_paid else saving(unique())
        first = await submitted(gate, graph, extra_data={"api_key_comfy_org": SECRET})
        await until(gate, first, "succeeded", "failed")
        sent = [call for call in comfy.received if SECRET.encode() in call.body]
        assert [call.raw_path for call in sent] == (["/prompt"] if is_paid else [])
        for path in (f"{JOBS}/{first}", f"{JOBS}/{first}/workflow", JOBS, "/queue", "/history"):
            assert SECRET.encode() not in (await ask(gate, "GET", path)).raw
        assert SECRET not in gate.log.getvalue().decode()
    assert SECRET.encode() not in everything_below(tmp_path / "gate")


async def test_a_key_of_paid_services_waits_with_its_job_and_goes_with_it(tmp_path: Path, comfy: StandIn) -> None:
    """What waits survives the gate, so its key is on disk until it has begun or is canceled, and no longer."""
    async with permitting_paid(tmp_path / "gate", comfy) as gate:
        ahead = [await submitted(gate, slow()) for _ in range(2)]
        waiting = await submitted(gate, PAID, extra_data={"api_key_comfy_org": SECRET})
        for path in (f"{JOBS}/{waiting}", f"{JOBS}/{waiting}/workflow", JOBS, "/queue"):
            assert SECRET.encode() not in (await ask(gate, "GET", path)).raw
        for job_id in (waiting, *ahead):
            await cancel(gate, job_id)
            await until(gate, job_id, "canceled")
    assert SECRET.encode() not in everything_below(tmp_path / "gate")


async def test_jobs_that_are_known_are_told_while_comfyui_is_away(gate: Running, comfy: StandIn) -> None:
    done = await submitted(gate, saving(unique()))
    await until(gate, done, "succeeded")
    await comfy.stop()
    assert (await job(gate, done))["status"] == "succeeded"
    assert await listed(gate) == [done]
    assert (await cancel(gate, done)).body["status"] == "succeeded"
    assert (await ask(gate, "GET", f"{JOBS}/{done}/workflow")).status == 200
    key = unique("key")
    answer = await submit(gate, saving(unique()), key=key)
    assert answer.refusal == (503, "upstream_error")
    assert int(answer.headers["Retry-After"]) >= 1
    await comfy.start(port=comfy.port)
    await gate.gate.dependencies.queue_watchers.first.is_settled.wait()
    answer = await submit(gate, {"1": empty_image(), "2": node("PreviewImage", images=["1", 0])}, key=key)
    assert answer.status == 201, "nothing came of it, so the key is good still"
    assert await listed(gate) == [answer.body["id"], done]


async def test_a_label_that_postgres_does_not_take_is_refused(gate: Running) -> None:
    answer = await submit(gate, saving(unique()), metadata={"a": "x\x00y"})
    assert answer.refusal == (422, "metadata_invalid")


async def test_a_job_that_cannot_be_shown_was_taken_all_the_same(
    gate: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is lost between the job's record and its first look: ComfyUI runs it, so nothing is let go and the key is used."""

    async def lost(self: JobViews, *args: Any) -> None:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(JobViews, "find", lost)
        answer = await submit(gate, saving(unique()), key="one", metadata={"a": "b"})
        assert (await ask(gate, "GET", f"{JOBS}/{NOBODYS}")).refusal == (503, "service_unavailable")
    assert (answer.status, answer.body["status"], answer.body["metadata"]) == (201, "queued", {"a": "b"})
    await until(gate, answer.body["id"], "succeeded")
    assert (await submit(gate, saving(unique()), key="one")).refusal == (422, "idempotency_key_reuse")
