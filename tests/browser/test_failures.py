"""What a person meets when things go wrong: a sentence that says what to do, never an empty page and never a trace of a program."""

from __future__ import annotations

import random

import pytest
from PIL import Image
from playwright.async_api import Locator, Page, expect

from proxy.app import Gate
from proxy.auth import key_file
from proxy.config import load_config
from proxy.observability.access_log import RequestLog
from tests.browser import graphs
from tests.browser.conftest import OUTPUT, House, OpenHouse
from tests.browser.webui import Screenshots, WebUi

pytestmark = pytest.mark.asyncio(loop_scope="session")


def noise(side: int) -> bytes:
    """A picture that no compression makes smaller."""
    content = random.Random(1).randbytes(side * side * 3)
    return graphs.encode(Image.frombytes("RGB", (side, side), content))


async def test_over_the_limits(open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / "failures-limits")
    async with open_house(server='max_upload_bytes = "1MiB"\n') as house, house.person() as page:
        ui = WebUi(page, house.url)
        await ui.start(await house.admit("few", limits="few"))
        await ui.open_workflow("upload", graphs.saved_upload("used"), graphs.UPLOAD_KINDS)
        await ui.upload_by_widget(1, "large.png", noise(700))
        await expect(page.get_by_text("File is too large to upload").first).to_be_visible()
        await shots.take(page, "upload-too-large")
        await ui.open_workflow("quick", graphs.slow_picture("quick", seconds=0.1), graphs.SLOW_KINDS)
        await ui.run()
        await ui.wait_for_image(3)
        await ui.run()
        sentence = page.get_by_text("The limit of 1 prompts per minute of the tenant is reached. Try again in").first
        await expect(sentence).to_be_visible()
        await shots.take(page, "rate-limit")
        await page.goto(f"{house.url}/nowhere")
        await expect(page.get_by_role("heading", name="Not found")).to_be_visible()
        await shots.take(page, "no-such-page")
        await house.record("an upload too large, a rate limit, a page that is not there: each is told in a sentence")


async def test_outages_and_an_ended_session(open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / "failures-outages")
    async with open_house() as house, house.person() as page:
        ui = WebUi(page, house.url)
        await ui.start(house.keys["amber"])
        await ui.open_workflow("work", graphs.slow_picture("work", seconds=0.1), graphs.SLOW_KINDS)
        await _comfyui_goes_and_comes(ui, house, shots)
        gate = await _gate_goes_and_comes(ui, house, shots)
        try:
            await _session_ends(ui, gate, house, shots)
            house.gate.url = gate.public.url
            await house.record("ComfyUI goes and comes, the gate restarts, the session ends: told, and work goes on")
        finally:
            await gate.stop()


async def _comfyui_goes_and_comes(ui: WebUi, house: House, shots: Screenshots) -> None:
    assert house.comfy is not None
    port = house.comfy.port
    await house.comfy.stop()
    await ui.run()
    await expect(ui.page.get_by_text("ComfyUI does not answer. Try again in a moment.").first).to_be_visible()
    await expect(_toast(ui.page, "Reconnecting")).to_be_visible()
    await shots.take(ui.page, "comfyui-down")
    await ui.page.goto(f"{house.url}/")
    await expect(ui.page.get_by_role("heading", name="ComfyUI is not reachable")).to_be_visible()
    await shots.take(ui.page, "comfyui-down-page")
    await house.comfy.start(port=port)
    await house.gate.gate.dependencies.queue_watchers.first.is_settled.wait()
    await ui.page.get_by_role("link", name="Try again").click()
    await ui.wait_until_loaded()


async def _gate_goes_and_comes(ui: WebUi, house: House, shots: Screenshots) -> Gate:
    """The page stays open, finds the gate again by itself, and works on."""
    port = house.url.rpartition(":")[2]
    await house.gate.gate.stop()
    await expect(_toast(ui.page, "Reconnecting")).to_be_visible()
    await shots.take(ui.page, "gate-down")
    file = house.gate.config_file
    file.write_text(file.read_text(encoding="utf-8").replace("port = 0", f"port = {port}", 1), encoding="utf-8")
    gate = Gate(load_config(file, {}), RequestLog(house.gate.log, "json"))
    await gate.start()
    await expect(_toast(ui.page, "Reconnected")).to_be_visible()
    await ui.run()
    await ui.wait_for_image(3)
    await shots.take(ui.page, "gate-back")
    return gate


async def _session_ends(ui: WebUi, gate: Gate, house: House, shots: Screenshots) -> None:
    """The key is revoked while its page is open."""
    file = house.gate.config_file
    key_file.revoke_key(file, house.keys["amber"].split("_")[1])
    assert await gate.reload(file)
    await expect(_toast(ui.page, "Reconnecting")).to_be_visible()
    async with ui.page.expect_response(lambda reply: reply.url.endswith("/api/prompt")) as reply:
        await ui.run()
    assert (await reply.value).status == 401
    await expect(
        ui.page.get_by_text("The session has ended. Sign in at /gate/login in another tab").first
    ).to_be_visible()
    await shots.take(ui.page, "session-ended")
    await ui.page.reload()
    await expect(ui.page.get_by_role("heading", name="Sign in")).to_be_visible()
    await ui.page.get_by_label("API key").fill(house.keys["birch"])
    await ui.page.get_by_role("button", name="Sign in").click()
    await ui.wait_until_loaded()
    await shots.take(ui.page, "signed-in-again")


def _toast(page: Page, text: str) -> Locator:
    return page.get_by_text(text, exact=True).first
