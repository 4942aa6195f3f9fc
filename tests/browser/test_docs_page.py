"""The page of what one may call, as a person reads it: on every kind of screen, without a script, and with texts that want to be more than text."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.conftest import OUTPUT, OpenHouse
from tests.browser.forms import Form, forms
from tests.browser.test_form_screens import good
from tests.browser.test_pages import SCREENS
from tests.browser.webui import Screenshots
from tests.programs import needs

pytestmark = [pytest.mark.asyncio(loop_scope="session"), needs("npm")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["wide", "phone"])
async def test_what_one_may_call(screen: str, scheme: str, open_house: OpenHouse, tmp_path: Path) -> None:
    shots = Screenshots(OUTPUT / f"docs-{screen}-{scheme}")
    async with (
        forms(open_house, tmp_path) as house,
        house.person(viewport=SCREENS[screen], color_scheme=scheme) as page,
    ):
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        await Form(page, house.url, "all").open(house.keys["cedar"])
        said.clear()
        elsewhere: list[str] = []
        page.on("request", lambda request: elsewhere.append(request.url))
        await page.goto(f"{house.url}/gate/docs")
        await expect(page).to_have_title("Functions - comfygate")
        section = page.locator("#run-all")
        for language in ("curl", "Python", "TypeScript"):
            await section.get_by_text(language, exact=True).click()
        await expect(section.get_by_text(f"{house.url}/gate/run/all").first).to_be_visible()
        assert house.keys["cedar"] not in await page.content()
        await good(page)
        await shots.take(page, "docs")
        assert said == [], "no policy of the page was broken"
        assert {url.removeprefix(house.url) for url in elsewhere if not url.startswith("data:")} == {"/gate/docs"}
        await section.get_by_role("link", name="fill in its form").click()
        await expect(page).to_have_url(f"{house.url}/gate/run/all")
