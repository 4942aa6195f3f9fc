"""Pictures that ComfyUI makes for a call: one at a time, tenants in turn, of bounded pixels, and never held up by a slow client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from policy.principal import TenantId
from proxy.http.errors import LimitExceeded
from proxy.upstream.preview_queue import HEAVY_S, MAX_REST_S, MAX_WAITING, REST, PreviewQueue
from standin import StandIn
from tests.harness import running_gate
from tests.matrix.world import REAL_BASE, open_world
from tests.policy.test_pictures import picture
from tests.proxy.upstreams import GUARD_S, comfy_like
from tests.wire.raw import connect

ALICE, BOB = TenantId("alice"), TenantId("bob")
PREVIEWS = (
    "/view?filename=a.png&preview=webp",
    "/view?filename=a.png&channel=a",
    "/api/view?filename=a.png&channel=rgb",
)


class Maker:
    """A ComfyUI that makes a picture when it is told to."""

    def __init__(self) -> None:
        self.come = asyncio.Queue[str]()
        self.go_on = asyncio.Semaphore(0)
        self.running = self.most = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path not in ("/view", "/upload/mask"):
            return web.json_response([])
        await request.read()
        self.running += 1
        self.most = max(self.most, self.running)
        self.come.put_nowait(request.query.get("subfolder", request.path))
        await self.go_on.acquire()
        self.running -= 1
        return web.json_response({"name": "a.png", "subfolder": "tenants/alice", "type": "input"})


async def test_one_picture_at_a_time_and_a_neighbour_waits_for_one(tmp_path: Path) -> None:
    comfy = Maker()
    async with comfy_like(comfy) as url, running_gate(tmp_path, url) as gate, asyncio.timeout(GUARD_S):
        many = [asyncio.ensure_future(gate.status("GET", path, "mallory")) for path in PREVIEWS * 3]
        assert await comfy.come.get() == "tenants/mallory"
        lane = gate.gate.dependencies.pictures
        while len(lane._waiting.get(TenantId("mallory"), ())) < len(many) - 1:
            await asyncio.sleep(0)
        own = asyncio.ensure_future(gate.status("GET", PREVIEWS[0], "alice"))
        while TenantId("alice") not in lane._waiting:
            await asyncio.sleep(0)
        assert await gate.status("GET", "/models", "alice") == 200, "all else passes"
        comfy.go_on.release()
        comfy.go_on.release()
        assert [await comfy.come.get(), await comfy.come.get()] == ["tenants/mallory", "tenants/alice"]
        for _ in many:
            comfy.go_on.release()
        assert await own == 200
        assert set(await asyncio.gather(*many)) == {200}
        assert comfy.most == 1


async def test_a_mask_that_comes_slowly_holds_up_nobody(tmp_path: Path) -> None:
    comfy = Maker()
    comfy.go_on = asyncio.Semaphore(100)
    async with comfy_like(comfy) as url, running_gate(tmp_path, url) as gate, asyncio.timeout(GUARD_S):
        _, writer = await connect(gate.url)
        part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="m.png"\r\n\r\n' + picture("PNG")
        writer.write(
            b"POST /upload/mask HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 100000\r\nAuthorization: Bearer " + gate.keys["mallory"].encode() + b"\r\n\r\n" + part
        )
        under_way = gate.gate.dependencies.under_way
        while not under_way.running(TenantId("mallory")):
            await asyncio.sleep(0)
        assert await gate.status("GET", PREVIEWS[0], "alice") == 200
        writer.transport.abort()


async def test_pixels_are_bounded_at_upload_and_before_a_preview(tmp_path: Path, visible: str) -> None:
    server, folder = "max_picture_pixels = 5000", (REAL_BASE if visible else None) or tmp_path / "comfyui"
    seen = f'directory = "{folder}"'
    async with open_world(tmp_path, real_url=visible, server=server, upstream_more=seen) as world:
        gate = world.running
        for width, status in ((50, 200), (51, 413)):
            form = aiohttp.FormData()
            form.add_field("image", picture("PNG", width, 100), filename="a.png")
            assert await gate.status("POST", "/upload/image", "alice", data=form) == status
        made = folder / "output" / "tenants" / "alice" / "large.png"
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(picture("PNG", 51, 100))
        view = "/view?type=output&filename="
        assert await gate.status("GET", view + "large.png", "alice") == 200
        async with gate.call("GET", view + "large.png&preview=webp", "alice") as response:
            assert (response.status, b"picture_too_large" in await response.read()) == (413, True)
        assert await gate.status("GET", view + "absent.png&preview=webp", "alice") == 404


async def test_previews_have_a_budget_of_their_own(tmp_path: Path, comfy: StandIn) -> None:
    async with running_gate(tmp_path, comfy.url) as gate:
        async with gate.call("GET", PREVIEWS[0], "alice") as response:
            assert "previews-per-minute" in response.headers["RateLimit-Policy"]
        async with gate.call("GET", "/view?filename=a.png", "alice") as response:
            assert "previews-per-minute" not in response.headers["RateLimit-Policy"]


async def test_so_many_wait_and_who_leaves_takes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    lane = PreviewQueue()
    await lane.take(ALICE)
    waiting = [asyncio.ensure_future(lane.take(ALICE)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceeded):
        await lane.take(ALICE)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    for turn in waiting[1:]:
        lane.release()
        await turn
    lane.release()
    await lane.take(BOB)
    monkeypatch.setattr(PreviewQueue, "wait_s", 0.01)
    with pytest.raises(LimitExceeded):
        await lane.take(ALICE)
    late = asyncio.ensure_future(lane.take(ALICE))
    await asyncio.sleep(0)
    lane.release()
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    await lane.take(BOB)


async def test_a_tenant_of_heavy_pictures_leaves_comfyui_to_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture holds up everybody: after a heavy one its tenant rests, as long as there are neighbours to be held up."""
    now_s, neighbours, rests = 0.0, {ALICE}, list[float]()

    async def sleep(rest_s: float) -> None:
        nonlocal now_s
        rests.append(rest_s)
        now_s += rest_s

    monkeypatch.setattr("proxy.upstream.preview_queue.asyncio.sleep", sleep)
    lane = PreviewQueue(lambda tenant: tenant in neighbours, lambda: now_s)

    async def make(tenant: TenantId, took_s: float) -> None:
        nonlocal now_s
        await lane.take(tenant)
        now_s += took_s
        lane.release()

    await make(ALICE, HEAVY_S)
    await make(ALICE, 0.2)
    assert rests == [], "a light picture asks for no rest"
    await make(BOB, 0.2)
    await make(ALICE, 0.01)
    assert rests == [pytest.approx(REST * 0.2 - 0.2)], (
        "it counts from the end of the heavy one, whoever's turn it was meanwhile"
    )
    await make(ALICE, 60.0)
    neighbours.clear()
    await make(ALICE, 0.01)
    assert len(rests) == 1, "nobody is there to be held up"
    neighbours.add(ALICE)
    await make(ALICE, 60.0)
    await make(ALICE, 0.01)
    assert rests[1:] == [pytest.approx(MAX_REST_S)]


async def test_so_many_rest_and_not_for_longer_than_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    lane = PreviewQueue(lambda tenant: True, lambda: now_s)
    await lane.take(ALICE)
    now_s += 0.2
    lane.release()
    resting = [asyncio.ensure_future(lane.take(ALICE)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0.01)
    with pytest.raises(LimitExceeded) as caught:
        await lane.take(ALICE)
    assert caught.value.retry_after_s == pytest.approx(REST * 0.2)
    await lane.take(BOB)
    lane.release()
    for task in resting:
        task.cancel()
    await asyncio.gather(*resting, return_exceptions=True)
    monkeypatch.setattr(PreviewQueue, "wait_s", 1.0)
    with pytest.raises(LimitExceeded):
        await lane.take(ALICE)


async def test_who_asked_lately_is_a_neighbour(tmp_path: Path, comfy: StandIn) -> None:
    async with running_gate(tmp_path, comfy.url) as gate:
        under_way = gate.gate.dependencies.under_way
        assert not under_way.has_neighbours(ALICE)
        assert await gate.status("GET", "/queue", "alice") == 200
        assert not under_way.has_neighbours(ALICE)
        assert under_way.has_neighbours(BOB)
