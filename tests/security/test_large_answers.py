"""Answers made of whole workflows: bounded in bytes, few at a time, and given up when their client leaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from policy.call import DocumentsRead, Place
from policy.documents import Document, Kind, keep
from policy.principal import TenantId
from policy.rules import joblist, jobs
from policy.rules.results import temp_files
from proxy.dependencies import LARGE_AT_ONCE
from proxy.jobs.job import Job
from tests.harness import Running, running_gate
from tests.policy.tenants import Jobs, caller_of, drive, request_of, uuid_of
from tests.proxy.jobs.following import ALICE, MALLORY, SUBMITTED
from tests.proxy.upstreams import GUARD_S, Guarded, serving

FIT = 8
IDS = [uuid_of(number) for number in range(3 * FIT)]


def entry(prompt_id: str, number: float = 1) -> dict[str, Any]:
    return {"prompt": [number, prompt_id, {}, {"client_id": "alice.x"}, []], "outputs": {}, "status": {}}


def kept(kind: Kind, shown: dict[str, Any], size: int) -> Document:
    return replace(keep(kind, shown), size=size)


def test_history_ends_with_the_oldest_that_still_fit() -> None:
    context = caller_of("alice", jobs=Jobs(ended=IDS))
    size = jobs.MAX_ANSWER_BYTES // FIT
    read = DocumentsRead({prompt_id: kept(Kind.ENTRY, entry(prompt_id, 0), size) for prompt_id in IDS})
    steps, reply = drive(jobs.history(request_of(context)), read)
    assert len(steps) == 1
    assert list(reply.body) == IDS[-FIT:]


def test_a_list_of_jobs_that_was_cut_has_more() -> None:
    context = caller_of("alice", jobs=Jobs(ended=IDS))
    newest = IDS[::-1][:FIT]
    rows = {
        each: kept(Kind.ROW, {"priority": 0, "id": each, "status": "completed"}, jobs.MAX_READ_BYTES // FIT)
        for each in newest
    }
    read = DocumentsRead(rows, tuple(IDS[::-1][FIT:]))
    reply = drive(joblist.list_jobs(request_of(context, query={"status": "completed,failed,cancelled"})), read)[1]
    assert [item["id"] for item in reply.body["jobs"]] == newest
    assert reply.body["pagination"] == {"offset": 0, "limit": None, "total": len(IDS), "has_more": True}


class Slow:
    """A ComfyUI that tells the end of a job when it is told to; everything else at once."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.asked: set[str] = set()
        self.changed = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        prompt_id = request.path.rpartition("/")[2]
        if request.path == "/api/jobs":
            return web.json_response({"jobs": [{"id": each, "status": "pending"} for each in self.jobs]})
        if prompt_id not in self.jobs:
            return await Guarded(self._nothing)(request)
        self.asked.add(prompt_id)
        self.changed.set()
        await self.go_on.wait()
        return web.json_response({prompt_id: entry(prompt_id, self.jobs[prompt_id].number)})

    async def _nothing(self, request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(GUARD_S):
            while len(self.asked) < count:
                self.changed.clear()
                await self.changed.wait()

    async def over(self, gate: Running, tenant: TenantId) -> str:
        """A job whose client has heard that it ended, and whose end is still to be read: its answer takes its time."""
        parts = gate.gate.dependencies.jobs
        job = parts.registry.claim(tenant, None)
        self.jobs[job.prompt_id] = job
        await parts.records.record(job, SUBMITTED, Place.THERE)
        parts.registry.mark_over(job.prompt_id)
        return f"/history/{job.prompt_id}"


async def test_few_at_a_time_of_one_tenant_and_none_of_them_delays_another(tmp_path: Any) -> None:
    comfy = Slow()
    async with serving(comfy) as url, running_gate(tmp_path, url) as gate:
        paths = [await comfy.over(gate, MALLORY) for _ in range(LARGE_AT_ONCE * 4)]
        own = await comfy.over(gate, ALICE)
        many = [asyncio.ensure_future(gate.status("GET", path, "mallory")) for path in paths]
        await comfy.until(LARGE_AT_ONCE)
        other = asyncio.ensure_future(gate.status("GET", own, "alice"))
        await comfy.until(LARGE_AT_ONCE + 1)
        # The others of mallory are all at the gate by now: a call of hers that is not large passes them.
        assert await gate.status("GET", "/users", "mallory") == 200
        assert len(comfy.asked) == LARGE_AT_ONCE + 1
        comfy.go_on.set()
        assert await other == 200
        assert set(await asyncio.gather(*many)) == {200}


async def test_what_only_reads_ends_with_its_client(tmp_path: Any) -> None:
    """Who has left keeps no turn from the next."""
    comfy = Slow()
    async with serving(comfy) as url, running_gate(tmp_path, url) as gate:
        paths = [await comfy.over(gate, MALLORY) for _ in range(LARGE_AT_ONCE + 1)]
        reading = [asyncio.ensure_future(gate.status("GET", path, "mallory")) for path in paths]
        await comfy.until(LARGE_AT_ONCE)
        for prompt_id in list(comfy.asked):
            reading[paths.index(f"/history/{prompt_id}")].cancel()
        await comfy.until(LARGE_AT_ONCE + 1)
        comfy.go_on.set()
        answers = await asyncio.gather(*reading, return_exceptions=True)
        assert [answer for answer in answers if not isinstance(answer, asyncio.CancelledError)] == [200]


async def test_refused_routes_are_counted_too(tmp_path: Any) -> None:
    comfy = Slow()
    async with serving(comfy) as url, running_gate(tmp_path, url) as gate:
        async with gate.call("GET", "/no/such/route", "mallory") as response:
            first = response.headers["RateLimit"]
        async with gate.call("POST", "/free", "mallory", json={}) as response:
            assert response.status == 403
            assert response.headers["RateLimit"] != first


@pytest.mark.parametrize(
    "name", ["../output/tenants/alice/x.png", "/etc/x.png", "a/../../x.png", "a\\..\\x.png", "", "x.png\n"]
)
def test_what_leads_out_of_the_temp_folder_is_nobodys_preview(name: str) -> None:
    assert temp_files({"images": [{"filename": name, "type": "temp", "subfolder": ""}]}) == []
    assert temp_files({"images": [{"filename": "x.png", "type": "temp", "subfolder": name}]}) in ([], ["x.png"])
