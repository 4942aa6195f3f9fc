"""The web UI's log panel: it tells a tenant whose the log is, and shows an admin the log."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from policy.rules.logs import LINE
from tests.browser.conftest import OUTPUT, TARGETS, OpenHouse
from tests.browser.webui import Screenshots

pytestmark = pytest.mark.asyncio(loop_scope="session")


SHOW = "app.extensionManager.command.execute('Workspace.ToggleBottomPanelTab.logs-terminal')"


@pytest.mark.parametrize("target", TARGETS)
async def test_the_log_panel_of_a_tenant_and_of_an_admin(target: str, open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / f"log-panel-{target}")
    async with open_house(target) as house:
        for who in ("tenant", "admin"):
            async with house.person() as page:
                await house.start(page, who)
                async with page.expect_response(lambda reply: reply.url.endswith("/internal/logs/subscribe")) as asked:
                    await page.evaluate(SHOW)
                assert (await asked.value).status == 200
                rows = page.locator(".xterm-rows")
                await expect(rows).not_to_have_text("")
                await shots.take(page, who)
                assert (LINE in await rows.inner_text()) == (who == "tenant")
                await expect(page.get_by_text("updated your ComfyUI")).to_have_count(0)
