"""The pages of functions on every kind of screen, by keyboard, and by the rules of accessibility."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.accessibility import complaints
from tests.browser.conftest import OUTPUT, OpenHouse
from tests.browser.forms import Form, forms
from tests.browser.test_form import RED
from tests.browser.test_pages import SCREENS, fits
from tests.browser.webui import Screenshots
from tests.programs import needs

pytestmark = [pytest.mark.asyncio(loop_scope="session"), needs("npm")]


async def good(page: Page) -> None:
    await fits(page)
    assert await complaints(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["wide", "phone"])
async def test_every_state_of_the_form(screen: str, scheme: str, open_house: OpenHouse, tmp_path: Path) -> None:
    shots = Screenshots(OUTPUT / f"form-{screen}-{scheme}")
    async with (
        forms(open_house, tmp_path) as house,
        house.person(viewport=SCREENS[screen], color_scheme=scheme, reduced_motion="reduce") as page,
    ):
        form = Form(page, house.url, "all")
        await form.open(house.keys["cedar"])
        await good(page)
        await form.run()
        await expect(form.wrong("prompt")).not_to_be_empty()
        await form.fill(prompt="a", color="16777216", seconds="60")
        await form.run()
        await expect(form.wrong("color")).not_to_be_empty()
        await good(page)
        await shots.take(page, "wrong")
        place = await page.locator("#field-prompt").bounding_box()
        await form.fill(color="")
        await form.run()
        card = await form.until("Runs")
        await expect(card.get_by_role("img", name="Preview")).to_be_visible()
        await good(page)
        await shots.take(page, "runs")
        await card.get_by_role("button", name="Cancel").click()
        await form.until("Canceled")
        await form.fill(seconds="0")
        await form.run()
        await expect((await form.until("Done", 2)).get_by_role("img", name="picture: ")).to_be_visible()
        await good(page)
        await page.evaluate("() => scrollTo(0, 0)")
        await page.screenshot(path=OUTPUT / f"form-{screen}-{scheme}" / "whole.png", full_page=True)
        now = await page.locator("#field-prompt").bounding_box()
        assert place is not None
        assert now is not None
        assert (now["x"], now["width"]) == (place["x"], place["width"]), "the form stays where it is"
        await page.goto(f"{house.url}/gate/run")
        await good(page)
        await shots.take(page, "list")
        form.check()


async def test_what_has_no_label_is_found(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "turn")
        await form.open(house.keys["dune"])
        assert await complaints(page) == []
        await page.evaluate("() => document.querySelector('label').remove()")
        assert "label" in [line.partition(":")[0] for line in await complaints(page)]


async def test_by_keyboard_alone(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "turn")
        await form.open(house.keys["dune"])
        await page.locator("#field-picture").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": RED})
        order = ["field-picture", "Remove a.png", "field-prefix", "Run"]
        for expected in order:
            await page.keyboard.press("Tab")
            focused = await page.evaluate("() => document.activeElement.id || document.activeElement.textContent")
            assert focused == expected
            outline = await page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"whoever uses the keyboard sees that {expected} has the focus"
        await page.keyboard.press("Enter")
        await form.until("Done")
        await expect(page.get_by_role("status")).to_have_text("Run 1: Done")
        await expect(page.get_by_role("button", name="Run", exact=True)).to_be_focused()
        form.check()
