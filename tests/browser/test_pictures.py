"""The pictures of the documentation: what a person sees of the gate, in ComfyUI's web UI and on its own pages. `make pictures` makes docs/pictures."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import expect

from tests.browser import graphs
from tests.browser.conftest import OUTPUT, OpenHouse
from tests.browser.forms import Form
from tests.browser.webui import WebUi
from tests.proxy.functions.calls import write_functions

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("PICTURES", OUTPUT / "pictures"))
MAX_BYTES = 150_000
SIZE = {"width": 1400, "height": 700}
FORM_SIZE = {"width": 1200, "height": 860}
POSTCARD_TOML = """\
title = "Postcard"
description = "A picture in the colors of the other side of the day."
[parameters.picture]
type = "image"
title = "Picture"
fills = ["1.image"]
[parameters.words]
type = "text"
title = "Words"
description = "What stands on the card."
fills = ["5.value"]
[parameters.title]
type = "text"
title = "Title"
max_length = 60
fills = ["3.filename_prefix"]
[parameters.color]
type = "seed"
title = "Color of the frame"
max = 16777215
fills = ["4.color"]
[outputs.postcard]
node = "3"
"""
POSTCARD = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "card"}},
    "4": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "5": {"class_type": "PrimitiveString", "inputs": {"value": ""}},
}


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


@pytest.mark.asyncio(loop_scope="session")
async def test_a_form_and_what_it_made(open_house: OpenHouse, tmp_path: Path) -> None:
    write_functions(tmp_path, {"postcard": (POSTCARD_TOML, POSTCARD)})
    async with open_house() as house, house.person(viewport=FORM_SIZE) as page:
        await house.admit("cedar", more='functions = ["*"]\n')
        ui, form = WebUi(page, house.url), Form(page, house.url, "postcard")
        await form.open(house.keys["cedar"])
        await page.locator("#field-picture").set_input_files(
            {"name": "harbour.png", "mimeType": "image/png", "buffer": _dusk()}
        )
        await form.fill(words="The harbour at dusk, lanterns on the water", title="harbour")
        await form.run()
        card = await form.until("Done")
        await expect(card.get_by_role("img", name="postcard: ")).to_have_js_property("complete", True)
        await page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
        await _keep(ui, "form")


def _dusk() -> bytes:
    """A sky that becomes water."""
    sky = Image.new("RGB", (1, 4))
    sky.putdata([(214, 160, 96), (150, 120, 90), (60, 90, 120), (230, 200, 150)])
    return graphs.encode(sky.resize((384, 240), Image.Resampling.BICUBIC))


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
