"""Loading the web UI through the gate beside a direct connection: nothing fails that did not fail before, and less goes over the wire."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from tests.browser.conftest import OUTPUT, REAL_URL, TARGETS, House, OpenHouse
from tests.browser.traffic import Traffic
from tests.browser.webui import Screenshots, WebUi
from tests.clients.record import Measurement

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


def _upstream(house: House) -> str:
    return REAL_URL if house.comfy is None else house.comfy.url
