"""Loading the web UI through the gate beside a direct connection: nothing fails that did not fail before, and less goes over the wire."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Page

from tests.browser import graphs
from tests.browser.conftest import OUTPUT, REAL_URL, TARGETS, House, OpenHouse
from tests.browser.traffic import Traffic
from tests.browser.webui import Screenshots, WebUi
from tests.clients.record import Measurement
from tests.deploy.nginx import below_a_prefix
from tests.programs import needs

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _load(
    page: Page, base: str, key: str | None, shots: Screenshots, name: str
) -> tuple[Traffic, list[Measurement]]:
    """A cold load in an empty profile, and then a warm one. Signing in is not counted: it happens once a week."""
    ui = WebUi(page, base)
    if key is not None:
        await page.goto(f"{base}/gate/login?next=/gate/me")
        await page.get_by_label("API key").fill(key)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("link", name="Open ComfyUI").wait_for()
    cold, warm = Traffic(base), Traffic(base)
    measured = []
    for load, traffic in (("cold", cold), ("warm", warm)):
        await page.goto("about:blank")
        network = await traffic.watch(page)
        await page.goto(f"{base}/")
        await ui.wait_until_loaded()
        await traffic.settle()
        await network.detach()
        await shots.take(page, f"{name}-{load}")
        sent = traffic.requests - traffic.cached
        measured.append(Measurement(name, load, traffic.requests, sent, traffic.received_bytes))
    return cold, measured


@pytest.mark.parametrize("target", TARGETS)
async def test_nothing_fails_that_works_directly_and_less_is_sent(target: str, open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / f"loading-{target}")
    async with open_house(target) as house:
        upstream = _upstream(house)
        # ComfyUI answers 404 to whoever has never saved one, and on one that is used directly somebody has.
        for base, key in ((upstream, None), (house.url, house.keys["amber"])):
            await _save_workflow(base, key)
        async with house.profile("direct") as page:
            direct, measured_directly = await _load(page, upstream, None, shots, "direct")
        async with house.profile("gate") as page:
            gated, measured = await _load(page, house.url, house.keys["amber"], shots, "gate")
        assert gated.failed <= direct.failed
        assert gated.complaints <= direct.complaints
        for through_gate, without in zip(measured, measured_directly, strict=True):
            assert through_gate.received_bytes < without.received_bytes
        what = "loads with no failed request and no console error that a direct connection does not have"
        await house.record(what, [*measured_directly, *measured])


@pytest.mark.parametrize("target", TARGETS)
async def test_two_people_of_a_tenant_load_at_once_within_one_minutes_requests(
    target: str, open_house: OpenHouse
) -> None:
    async with open_house(target, more='[limits.small]\nrequests = "200/minute"\n') as house:
        key = await house.admit("small", limits="small")
        refused: list[str] = []
        async with house.person() as one, house.person() as other:
            for page in (one, other):
                page.on("response", lambda reply: refused.append(reply.url) if reply.status == 429 else None)
            await asyncio.gather(*(WebUi(page, house.url).start(key) for page in (one, other)))
            await one.reload()
            await WebUi(one, house.url).wait_until_loaded()
        assert refused == []


async def test_a_page_over_a_limit_waits_and_comes_by_itself(open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / "loading-limited")
    async with open_house(more='[limits.tiny]\nweb_ui_files = "1/second"\n') as house, house.person() as page:
        await page.goto(f"{house.url}/gate/login?next=/gate/me")
        await page.get_by_label("API key").fill(await house.admit("tiny", limits="tiny"))
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("link", name="Open ComfyUI").wait_for()
        answers: list[int] = []
        page.on(
            "response", lambda reply: answers.append(reply.status) if reply.request.is_navigation_request() else None
        )
        headers = {"Authorization": f"Bearer {house.keys['tiny']}"}
        assert await house.gate.status("GET", "/user.css", None, headers=headers) != 429
        await page.goto(f"{house.url}/user.css")
        await page.get_by_role("heading", name="Too many requests").wait_for()
        await shots.take(page, "waits")
        await page.get_by_role("heading", name="Too many requests").wait_for(state="detached")
        assert answers[0] == 429


@needs("nginx")
async def test_the_web_ui_works_below_a_path_prefix(open_house: OpenHouse, tmp_path: Path) -> None:
    shots = Screenshots(OUTPUT / "loading-prefix")
    async with (
        open_house(server='public_path = "/comfy"\n') as house,
        below_a_prefix(tmp_path, house.url, "/comfy") as base,
        house.person() as page,
    ):
        ui = WebUi(page, base)
        await ui.start(house.keys["amber"])
        await ui.open_workflow("quick", graphs.slow_picture("quick", seconds=0.1), graphs.SLOW_KINDS)
        await ui.run()
        assert (await ui.wait_for_image(3)).startswith(f"{base}/api/view?")
        await shots.take(page, "picture")
        await page.goto(f"{base}/gate/me")
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_role("heading", name="Sign in").wait_for()
        assert page.url.startswith(f"{base}/gate/login")


async def _save_workflow(base: str, key: str | None) -> None:
    fields = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=fields) as session,
        session.post(f"{base}/userdata/workflows%2Floaded.json", data=b"{}") as answer,
    ):
        assert answer.status in (200, 409), await answer.text()  # 409: an earlier run has


def _upstream(house: House) -> str:
    return REAL_URL if house.comfy is None else house.comfy.url
