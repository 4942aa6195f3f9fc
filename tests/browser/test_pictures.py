"""The pictures of the documentation: what a person sees of the gate in ComfyUI's own web UI. `make pictures` puts them into docs/pictures."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser import graphs
from tests.browser.conftest import OUTPUT, OpenHouse
from tests.browser.webui import WebUi

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("PICTURES", OUTPUT / "pictures"))
MAX_BYTES = 150_000
SIZE = {"width": 1400, "height": 700}


@pytest.mark.asyncio(loop_scope="session")
async def test_a_refused_node_and_its_sentence(open_house: OpenHouse) -> None:
    async with open_house() as house, house.person(viewport=SIZE) as page:
        ui = WebUi(page, house.url)
        await ui.start(house.keys["amber"])
        await ui.open_workflow("harbour", graphs.inverted_picture("harbour", width=1024), graphs.INVERTED_KINDS)
        async with page.expect_response(lambda reply: reply.url.endswith("/api/prompt")) as reply:
            await ui.run()
        assert (await reply.value).status == 403
        await page.get_by_role("button", name="View details").click()
        await page.get_by_role("button", name="Info for Empty Image").click()
        await expect(page.get_by_text("width, found 1024, allowed: at most 512")).to_be_visible()
        await page.evaluate("() => app.extensionManager.setting.set('Comfy.Minimap.Visible', false)")
        await expect(page.get_by_text("Job queuing")).to_have_count(0)
        await _keep(ui, "refused")


def test_every_picture_is_one_of_these_and_small() -> None:
    made = {
        f"{name}.png" for name in re.findall(r'_keep\(ui, "([a-z]+)"\)', Path(__file__).read_text(encoding="utf-8"))
    }
    kept = {file.name: file.stat().st_size for file in (ROOT / "docs" / "pictures").iterdir()}

    assert set(kept) == made
    assert all(size <= MAX_BYTES for size in kept.values()), kept


async def _keep(ui: WebUi, name: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    await ui.page.screenshot(path=FOLDER / f"{name}.png", animations="disabled", caret="hide")
