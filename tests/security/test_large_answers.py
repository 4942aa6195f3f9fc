"""Answers made of whole workflows: bounded in bytes, few at a time, and given up when their client leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from policy.call import UpstreamReply
from policy.rules import joblist, jobs
from policy.rules.results import temp_files
from proxy.dependencies import LARGE_AT_ONCE
from tests.harness import running_gate
from tests.policy.tenants import Jobs, caller_of, drive, request_of, uuid_of
from tests.proxy.upstreams import GUARD_S, Guarded, serving

IDS = [uuid_of(number) for number in range(3 * jobs.BATCH)]
HALF = b"x" * (jobs.MAX_READ_BYTES // jobs.BATCH)


def entry(prompt_id: str) -> dict[str, Any]:
    return {prompt_id: {"prompt": [1, prompt_id, {}, {"client_id": "alice.x"}, []], "outputs": {}, "status": {}}}


def row(prompt_id: str) -> dict[str, Any]:
    return {"id": prompt_id, "status": "completed"}


def test_history_ends_with_the_oldest_that_still_fit() -> None:
    context = caller_of("alice", jobs=Jobs(ended=IDS))
    newest = [UpstreamReply(200, entry(prompt_id), HALF) for prompt_id in IDS[-jobs.BATCH :]]
    steps, reply = drive(jobs.history(request_of(context)), newest)
    assert len(steps) == 1
    assert list(reply.body) == IDS[-jobs.BATCH :]


def test_a_list_of_jobs_that_was_cut_has_more() -> None:
    context = caller_of("alice", jobs=Jobs(ended=IDS))
    newest = [UpstreamReply(200, row(prompt_id), HALF) for prompt_id in IDS[::-1][: jobs.BATCH]]
    probe = UpstreamReply(200, {"jobs": []})
    reply = drive(
        joblist.list_jobs(request_of(context, query={"status": "completed,failed,cancelled"})), probe, newest
    )[1]
    assert [item["id"] for item in reply.body["jobs"]] == IDS[::-1][: jobs.BATCH]
    assert reply.body["pagination"] == {"offset": 0, "limit": None, "total": len(IDS), "has_more": True}


class Slow:
    """A ComfyUI that answers GET /queue when it is told to; everything else at once."""

    def __init__(self) -> None:
        self.asked = 0
        self.left = 0
        self.changed = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/history/absent":
            return await Guarded(self._nothing)(request)
        self.asked += 1
        self.changed.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.left += 1
            self.changed.set()
            raise
        return web.json_response({})

    async def _nothing(self, request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404)

    async def until(self, name: str, count: int) -> None:
        async with asyncio.timeout(GUARD_S):
            while getattr(self, name) < count:
                self.changed.clear()
                await self.changed.wait()


async def test_few_at_a_time_of_one_tenant_and_none_of_them_delays_another(tmp_path: Any) -> None:
    comfy = Slow()
    async with serving(comfy) as url, running_gate(tmp_path, url) as gate:
        many = [asyncio.ensure_future(gate.status("GET", "/history/x", "mallory")) for _ in range(LARGE_AT_ONCE * 4)]
        await comfy.until("asked", LARGE_AT_ONCE)
        other = asyncio.ensure_future(gate.status("GET", "/history/x", "alice"))
        await comfy.until("asked", LARGE_AT_ONCE + 1)
        # The others of mallory are all at the gate by now: a call of hers that is not large passes them.
        assert await gate.status("GET", "/users", "mallory") == 200
        assert comfy.asked == LARGE_AT_ONCE + 1
        comfy.go_on.set()
        assert await other == 200
        assert set(await asyncio.gather(*many)) == {200}


async def test_what_only_reads_ends_with_its_client(tmp_path: Any) -> None:
    comfy = Slow()
    async with serving(comfy) as url, running_gate(tmp_path, url) as gate:
        reading = asyncio.ensure_future(gate.status("GET", "/history/x", "mallory"))
        await comfy.until("asked", 1)
        reading.cancel()
        await comfy.until("left", 1)


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
