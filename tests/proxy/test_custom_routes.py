"""Routes of custom nodes through a whole gate: closed until they are named, in force with the next request, and counted as what they are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from standin import StandIn
from tests.harness import Running, running_gate
from tests.proxy.upstreams import comfy_like

HEAVY = """
[[routes]]
path = "/pack/video"
methods = ["GET"]
kind = "own-file"
heavy = true
"""

ROWS = """
[[routes]]
path = "/pack/files/{file...}"
methods = ["GET"]
kind = "static"

[[routes]]
path = "/pack/list"
methods = ["GET"]
kind = "shared-read"

[[routes]]
path = "/pack/reboot"
methods = ["GET", "POST"]
kind = "admin"
note = "it starts ComfyUI anew"

[[routes]]
path = "/pack/disk"
methods = ["GET"]
kind = "never"
note = "it lists the disk"
"""


def asked(comfy: StandIn) -> list[str]:
    return [f"{call.method} {call.raw_path}" for call in comfy.received if "/pack/" in call.raw_path]


@pytest.fixture
async def comfy(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path / "comfyui", frontend=False)


async def test_what_is_not_named_is_closed_to_everybody(tmp_path: Path, comfy: StandIn) -> None:
    await comfy.start()
    async with running_gate(tmp_path, comfy.url) as running:
        for who, status in (("alice", 404), ("admin", 404), (None, 401)):
            for path in ("/pack/files/a.js", "/pack/list", "/rgthree/config.js", "/vhs/getpath"):
                assert await running.status("GET", path, who) == status
    await comfy.stop()
    assert asked(comfy) == []


async def test_a_changed_file_is_in_force_with_the_next_request(tmp_path: Path, comfy: StandIn) -> None:
    await comfy.start()
    async with running_gate(tmp_path, comfy.url) as running:
        text = running.config_file.read_text(encoding="utf-8")
        assert await running.status("GET", "/pack/list", "alice") == 404
        assert asked(comfy) == []
        running.config_file.write_text(text + ROWS, encoding="utf-8")
        assert await running.gate.reload(running.config_file)
        await running.status("GET", "/api/pack/list", "alice")
        assert asked(comfy) == ["GET /pack/list"]
        running.config_file.write_text(text, encoding="utf-8")
        assert await running.gate.reload(running.config_file)
        assert await running.status("GET", "/pack/list", "alice") == 404
        assert asked(comfy) == ["GET /pack/list"]
    await comfy.stop()


async def test_who_may_what(tmp_path: Path, comfy: StandIn) -> None:
    await comfy.start()
    async with running_gate(tmp_path, comfy.url, more=ROWS) as running:
        for method, path in (("GET", "/pack/reboot"), ("POST", "/pack/reboot")):
            assert await _refusal(running, method, path, "alice") == (403, "admins_only")
        for who in ("alice", "admin"):
            assert await _refusal(running, "GET", "/pack/disk", who) == (403, "route_refused")
        assert await running.status("DELETE", "/pack/disk", "alice") == 405
        assert asked(comfy) == []
        await running.status("POST", "/pack/reboot?now=1", "admin", data=b"x=1")
        assert asked(comfy) == ["POST /pack/reboot?now=1"]
    await comfy.stop()


async def test_no_secret_of_a_query_goes_along(tmp_path: Path, comfy: StandIn) -> None:
    await comfy.start()
    async with running_gate(tmp_path, comfy.url, more=ROWS) as running:
        await running.status("GET", f"/pack/files/a.js?token={running.keys['alice']}&v=2", None)
        await running.status("HEAD", "/pack/files/a.js?secret=1", "alice")
        assert asked(comfy) == ["GET /pack/files/a.js", "HEAD /pack/files/a.js"]
    await comfy.stop()


async def _refusal(running: Running, method: str, path: str, who: str) -> tuple[int, str]:
    async with running.call(method, path, who) as response:
        document = await response.json()
        return response.status, document["error"]["type"]


async def test_answers_that_another_program_makes_are_two_of_a_tenant_at_a_time(tmp_path: Path) -> None:
    """Until they have gone out: the program runs as long as its answer is sent. The neighbour waits for none of them."""
    begun: list[str] = []
    came, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def convert(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/webm"})
        await response.prepare(request)
        await response.write(b"x")
        begun.append(request.query["rate"])
        came.release()
        await go_on.wait()
        return response

    async with comfy_like(convert) as url, running_gate(tmp_path, url, more=HEAVY, wait=False) as gate:

        async def ask(who: str, rate: str) -> int:
            return await gate.status("GET", f"/pack/video?filename=a.mp4&rate={rate}", who)

        asking = [asyncio.ensure_future(ask("alice", f"a{index}")) for index in range(5)]
        for _ in range(2):
            await came.acquire()
        neighbour = asyncio.ensure_future(ask("mallory", "m"))
        await came.acquire()
        assert [rate[0] for rate in begun] == ["a", "a", "m"]
        go_on.set()
        assert await asyncio.gather(*asking, neighbour) == [200] * 6
    assert len(begun) == 6
