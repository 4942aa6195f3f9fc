"""The web UI's menu "comfygate": to what one may do, in another tab, and to signing out, which asks and says what goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import OUTPUT, TARGETS, OpenHouse
from tests.browser.webui import Screenshots, WebUi
from tests.deploy.nginx import below_a_prefix
from tests.programs import needs

pytestmark = pytest.mark.asyncio(loop_scope="session")

WARNING = "Signing out removes what this browser keeps of your work"


async def choose(page: Page, name: str, shots: Screenshots | None = None) -> None:
    """From the web UI's main menu."""
    await page.get_by_test_id("comfy-menu-button").or_(page.locator(".comfy-menu-button-wrapper")).first.click()
    await page.get_by_role("menuitem", name="comfygate", exact=True).hover()
    if shots is not None:
        await expect(page.get_by_role("menuitem", name=name)).to_be_visible()
        await shots.take(page, "menu")
    await page.get_by_role("menuitem", name=name).click()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("who", ["tenant", "admin"])
async def test_the_menu_leads_to_the_account_and_to_signing_out(target: str, who: str, open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / f"account-menu-{who}-{target}")
    async with open_house(target) as house, house.person() as page:
        await house.start(page, who)
        async with page.context.expect_page() as opened:
            await choose(page, "My access", shots)
        access = await opened.value
        await expect(access.get_by_role("heading", name="Limits")).to_be_visible()
        assert access.url == f"{house.url}/gate/me"
        assert await access.evaluate("window.opener") is None
        await access.close()
        page.on("dialog", lambda dialog: dialog.accept())
        await choose(page, "Sign out")
        await expect(page.get_by_text(WARNING)).to_be_visible()
        await shots.take(page, "sign-out")
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@needs("nginx")
async def test_the_menu_works_below_a_path_prefix(open_house: OpenHouse, tmp_path: Path) -> None:
    async with (
        open_house(server='public_path = "/comfy"\n') as house,
        below_a_prefix(tmp_path, house.url, "/comfy") as base,
        house.person() as page,
    ):
        await WebUi(page, base).start(house.keys["amber"])
        page.on("dialog", lambda dialog: dialog.accept())
        await choose(page, "Sign out")
        await expect(page.get_by_text(WARNING)).to_be_visible()
        assert page.url == f"{base}/gate/me#sign-out"


async def test_there_is_no_menu_when_it_is_switched_off(open_house: OpenHouse) -> None:
    async with open_house(server="account_menu = false\n") as house, house.person() as page:
        await WebUi(page, house.url).start(house.keys["amber"])
        assert await page.evaluate("app.extensions.filter(each => each.name.startsWith('comfygate')).length") == 0
