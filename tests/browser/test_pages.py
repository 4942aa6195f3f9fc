"""The gate's own pages on every kind of screen: light and dark, wide and as narrow as a phone."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import OUTPUT, OpenHouse
from tests.browser.webui import Screenshots

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCREENS = {
    "wide": {"width": 1280, "height": 800},
    "phone": {"width": 320, "height": 640},
    "tall": {"width": 360, "height": 780},
}
CONTRAST = """() => {
  const luminance = text => {
    const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map(each => Number(each) / 255)
      .map(each => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour.endsWith(', 0)') && element.parentElement ? ground(element.parentElement) : colour;
  };
  const contrast = element => {
    const both = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => b - a);
    return (both[0] + 0.05) / (both[1] + 0.05);
  };
  const shown = [...document.querySelectorAll('h1, h2, p, label, dt, dd, li, th, td, button, a')];
  return Math.min(...shown.filter(each => each.offsetParent && each.innerText.trim()).map(contrast));
}"""


# Words of the table that stand on two lines: a word as wide as its line would be cut in two.
CUT_WORDS = """() => {
  const cut = [];
  for (const cell of document.querySelectorAll('th, td')) {
    const text = [...cell.childNodes].find(each => each.nodeType === Node.TEXT_NODE);
    for (const word of text ? text.data.matchAll(/\\S+/g) : []) {
      const range = document.createRange();
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map(each => Math.round(each.top))).size > 1) cut.push(word[0]);
    }
  }
  return cut;
}"""


async def fits(page: Page) -> None:
    """Nothing to scroll sideways, and every text readable (WCAG 2.2, 1.4.3: at least 4.5 to 1)."""
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await page.evaluate(CONTRAST) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", list(SCREENS))
async def test_login_account_and_refusal(screen: str, scheme: str, open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / f"pages-{screen}-{scheme}")
    async with (
        open_house() as house,
        house.person(viewport=SCREENS[screen], color_scheme=scheme, java_script_enabled=True) as page,
    ):
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        await page.goto(f"{house.url}/gate/login")
        await expect(page.get_by_label("API key")).to_be_focused()
        await fits(page)
        await shots.take(page, "login")
        await page.keyboard.type("not a key")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("This is not an API key")
        await fits(page)
        await shots.take(page, "not-a-key")
        await page.goto(f"{house.url}/gate/login?next=/gate/me")
        await expect(page.get_by_label("API key")).to_be_focused()
        await page.keyboard.type(house.keys["amber"])
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name=house.tenants["amber"])).to_be_visible()
        await fits(page)
        await shots.take(page, "me")
        assert await page.evaluate(CUT_WORDS) == []
        await page.screenshot(path=OUTPUT / f"pages-{screen}-{scheme}" / "me-whole.png", full_page=True)
        await page.goto(f"{house.url}/gate/nowhere")
        await expect(page.get_by_role("heading", name="Not found")).to_be_visible()
        await fits(page)
        await shots.take(page, "not-found")
        expected = "Failed to load resource: the server responded with a status of "
        assert {text.removeprefix(expected) for text in complaints} == {"401 (Unauthorized)", "404 (Not Found)"}
