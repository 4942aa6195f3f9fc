"""A signed-in person opens somebody else's page: what that page tries with the person's session fails, and the session lives on."""

from __future__ import annotations

import pytest
from aiohttp import web
from playwright.async_api import expect

from tests.browser.conftest import OpenHouse

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRICKS = """async gate => {
  const post = async (path, body) => {
    try { return (await fetch(gate + path, {method: 'POST', mode: 'no-cors', credentials: 'include', body})).type; }
    catch { return 'failed'; }
  };
  const socket = await new Promise(resolve => {
    const ws = new WebSocket(gate.replace('http', 'ws') + '/ws');
    ws.onopen = () => resolve('open');
    ws.onerror = () => resolve('refused');
  });
  return [await post('/queue', '{"clear": true}'), await post('/gate/logout', ''), socket];
}"""
FORM = '<form method="post" action="{gate}/gate/logout"><button>Win a prize</button></form>'


async def test_a_foreign_page_can_do_nothing_with_the_session(open_house: OpenHouse) -> None:
    async def foreign(request: web.BaseRequest) -> web.Response:
        return web.Response(text=FORM.format(gate=house.url), content_type="text/html")

    runner = web.ServerRunner(web.Server(foreign))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    # Another port is another origin but the same site: the browser adds the cookie, and only the gate's own check is left.
    elsewhere = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        async with open_house() as house, house.person() as page:
            await page.goto(f"{house.url}/gate/login?next=/gate/me")
            await page.get_by_label("API key").fill(house.keys["amber"])
            await page.keyboard.press("Enter")
            account = page.get_by_role("heading", name=house.tenants["amber"])
            await expect(account).to_be_visible()

            await page.goto(elsewhere)
            *_, socket = await page.evaluate(TRICKS, house.url)
            assert socket == "refused"
            await page.get_by_role("button", name="Win a prize").click()
            await expect(page).to_have_url(f"{house.url}/gate/logout")

            await page.goto(f"{house.url}/gate/me")
            await expect(account).to_be_visible()
            await page.reload()
            await expect(account).to_be_visible()
            await page.get_by_role("button", name="Sign out").click()
            await expect(page.get_by_label("API key")).to_be_visible()
            await page.goto(f"{house.url}/gate/me")
            await expect(page.get_by_label("API key")).to_be_visible()
    finally:
        await runner.cleanup()
