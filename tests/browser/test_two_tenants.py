"""Two people of two tenants at the same time, in two browsers: each sees a ComfyUI of its own."""

from __future__ import annotations

import asyncio
import json

import pytest
from playwright.async_api import Page, WebSocket, expect

from tests.browser import graphs
from tests.browser.conftest import OUTPUT, TARGETS, OpenHouse
from tests.browser.webui import Screenshots, WebUi

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Heard:
    """All that a page's event socket received."""

    def __init__(self, page: Page) -> None:
        self.texts: list[str] = []
        self.previews = 0
        page.on("websocket", self._listen)

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framereceived", self._keep)

    def _keep(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            self.previews += 1
        else:
            self.texts.append(frame)

    def jobs(self) -> set[str]:
        found = (json.loads(text)["data"] for text in self.texts)
        return {data["prompt_id"] for data in found if "prompt_id" in data}


@pytest.mark.parametrize("target", TARGETS)
async def test_two_tenants_at_once_do_not_see_each_other(target: str, open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / f"two-tenants-{target}")
    async with open_house(target) as house, house.person() as page_of_amber, house.person() as page_of_birch:
        heard_by_amber, heard_by_birch = Heard(page_of_amber), Heard(page_of_birch)
        amber, birch = WebUi(page_of_amber, house.url), WebUi(page_of_birch, house.url)
        await asyncio.gather(amber.start(house.keys["amber"]), birch.start(house.keys["birch"]))
        red = graphs.slow_picture("same", colour=graphs.RED)
        await amber.open_workflow("red", red, graphs.SLOW_KINDS)
        await amber.run()
        await amber.wait_for_progress(2)
        await birch.wait_for_active(0)
        assert heard_by_birch.previews == 0
        await shots.take(page_of_amber, "amber-running")
        await shots.take(page_of_birch, "birch-meanwhile")

        green = graphs.slow_picture("same", colour=graphs.GREEN, seconds=4.0)  # longer than the page takes to show it
        await birch.open_workflow("green", green, graphs.SLOW_KINDS)
        await birch.run()
        await birch.wait_for_active(1)
        addresses = await asyncio.gather(amber.wait_for_image(3), birch.wait_for_image(3))
        assert all(
            "filename=same_00001_.png" in address for address in addresses
        )  # each has a first picture of that name
        assert await amber.colour_of(3) == graphs.RED
        assert await birch.colour_of(3) == graphs.GREEN
        await shots.take(page_of_amber, "amber-done")
        await shots.take(page_of_birch, "birch-done")

        await amber.save_as("only-amber")
        for ui, own in ((amber, 1), (birch, 0)):
            await ui.open_side_bar("Workflows (w)")
            await expect(ui.page.get_by_role("treeitem").filter(has_text="only-amber")).to_have_count(own)
        await expect(page_of_birch.get_by_text("No workflows found.")).to_be_visible()
        for ui in (amber, birch):
            await ui.open_side_bar("Assets (a)")
            await expect(ui.page.get_by_text("same_00001_", exact=True)).to_have_count(1)
        await shots.take(page_of_amber, "amber-side-bar")
        await shots.take(page_of_birch, "birch-side-bar")
        await house.record("two tenants at once: neither sees jobs, events, pictures or workflows of the other")

    assert len(heard_by_amber.jobs()) == len(heard_by_birch.jobs()) == 1
    assert heard_by_amber.jobs().isdisjoint(heard_by_birch.jobs())
    assert house.tenants["amber"] not in "".join(heard_by_birch.texts)
    assert heard_by_amber.previews
    assert heard_by_birch.previews
