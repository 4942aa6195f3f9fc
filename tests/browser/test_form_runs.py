"""Many runs of a form, and a page that nobody looks at."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Page, Request, expect

from tests.browser.accessibility import complaints
from tests.browser.conftest import OpenHouse
from tests.browser.forms import Form, forms
from tests.browser.test_form import RED
from tests.programs import needs
from tests.proxy.outside.web import a_web, giving

pytestmark = pytest.mark.asyncio(loop_scope="session")

HIDE = """is => {
  Object.defineProperty(document, 'hidden', {configurable: true, get: () => is});
  document.dispatchEvent(new Event('visibilitychange'));
}"""


@needs("npm")
async def test_a_box_that_is_ticked_says_yes(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "echo")
        await form.open(house.keys["cedar"])
        await form.run()
        await expect((await form.until("Done")).locator("pre")).to_have_text("one")
        await form.field("Loud").check()
        await form.run()
        await expect((await form.until("Done", 2)).locator("pre")).to_have_text("LOUD")
        assert await complaints(page) == []
        form.check()


async def test_a_function_that_takes_nothing(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "plain")
        await form.open(house.keys["cedar"])
        await form.run()
        await expect((await form.until("Done")).get_by_role("img")).to_have_js_property("naturalWidth", 32)
        form.check()


async def test_a_picture_in_another_form(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "small")
        await form.open(house.keys["cedar"])
        await form.run()
        card = await form.until("Done")
        await expect(card.get_by_role("img")).to_have_js_property("naturalWidth", 32)
        link = card.get_by_role("link", name="Download")
        await expect(link).to_have_text(re.compile(r"_\.webp$"))
        # Its size is known when the job has ended, also where it was shown before.
        await expect(card.locator("figcaption")).to_contain_text(re.compile(r"\([1-9][0-9.]* "))
        form.check()


async def test_what_cannot_be_given_in_its_form_says_why(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "misfit")
        await form.open(house.keys["cedar"])
        await form.run()
        card = await form.until("Done")
        await expect(card.locator(".results")).to_contain_text("This output is no picture (text/plain)")
        await expect(card.get_by_role("link", name="Download")).to_have_count(0)
        form.check()


@needs("npm")
async def test_a_picture_that_stands_elsewhere(open_house: OpenHouse, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    async with (
        a_web(tmp_path / "outside", giving(RED)) as outside,
        forms(open_house, tmp_path) as house,
        house.person() as page,
    ):
        key = await house.admit("elm", more=f'functions = ["*"]\nfetch = {outside.hosts}\n')
        house.gate.gate.dependencies.fetches.fetcher = outside.fetcher()
        form = Form(page, house.url, "turn")
        await form.open(key)
        address = form.field("or its https address")
        for text, words in (
            ("http://images.test/a.png", "Write an address that begins with https://."),
            ("https://elsewhere.test/a.png", "This host is not among those that you may name"),
        ):
            await address.fill(text)
            await form.run()
            await expect(form.wrong("picture")).to_contain_text(words)
            await expect(address).to_be_focused()
        await address.fill(outside.url("/a.png"))
        await expect(form.wrong("picture")).to_be_empty()
        await form.run()
        await expect((await form.until("Done")).get_by_role("img")).to_have_js_property("naturalWidth", 48)
        assert len(outside.asked) == 1
        await page.locator("#field-picture").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": RED})
        await expect(address).to_have_value("")
        assert await complaints(page) == []
        form.check()


async def test_the_last_twelve_runs_are_kept(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "echo")
        await form.open(house.keys["cedar"])
        for number in range(1, 14):
            await form.fill(text=f"text {number}")
            await form.run()
            await form.until("Done", number)
        await expect(page.get_by_role("article")).to_have_count(12)
        await expect(form.card(1)).to_have_count(0)
        await page.reload()
        await expect(page.locator("article pre")).to_have_text([f"text {number}" for number in range(13, 1, -1)])
        form.check()


async def test_a_run_is_run_again_after_a_reload(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "echo")
        await form.open(house.keys["cedar"])
        await form.fill(text='one "two"\nthree')
        await form.run()
        await form.until("Done")
        await page.reload()
        await form.fill(text="another")
        await form.card(1).get_by_role("button", name="Run again").click()
        await expect((await form.until("Done", 2)).locator("pre")).to_have_text('one "two"\nthree')
        kept = await page.evaluate("() => Object.keys(sessionStorage).length")
        assert kept == 2

        # Another tab knows the job, and not what it was called with.
        tab = await page.context.new_page()
        await tab.goto(page.url)
        card = tab.get_by_role("article").first
        await expect(card).to_have_attribute("data-status", "succeeded")
        await expect(card.get_by_role("button", name="Run again")).to_be_hidden()
        await tab.close()
        form.check()


async def test_what_is_kept_for_another_run_is_as_many_as_runs_are(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "echo")
        await form.open(house.keys["cedar"])
        await page.evaluate(
            "() => { for (let n = 0; n < 20; n += 1) sessionStorage.setItem(`${KEPT}old-${n}`, '[]'); sessionStorage.setItem('draft', '1'); }"
        )
        await form.run()
        await form.until("Done")
        assert await page.evaluate("() => Object.keys(sessionStorage).length") == 2, "the run's, and what others keep"
        form.check()


async def test_a_page_that_nobody_looks_at_holds_no_stream(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "all")
        await form.open(house.keys["cedar"])
        await form.fill(prompt="a", seconds="3600")
        async with page.expect_request(_is_stream):
            await form.run()
        await form.until("Runs")
        title = await page.title()
        async with page.expect_event("requestfailed", _is_stream):
            await page.evaluate(HIDE, True)
        job = await form.job_id()
        assert await _cancel(page, job) == 200
        async with page.expect_request(lambda request: request.url.endswith(f"/gate/jobs/{job}")):
            await page.evaluate(HIDE, True)  # it asks at once when that changes, and then by the clock
        await form.until("Canceled")
        await expect(page).to_have_title(f"Canceled: {title}")
        await page.evaluate(HIDE, False)
        await expect(page).to_have_title(title)
        form.check()


async def test_one_stream_follows_one_run_after_the_other(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form, streams = Form(page, house.url, "all"), []
        page.on("request", lambda request: streams.append(request.url) if _is_stream(request) else None)
        await form.open(house.keys["cedar"])
        await form.fill(prompt="a", seconds="1")
        for number in (1, 2, 3):
            await form.run()
            await expect(form.card(number)).to_be_visible()
        for number in (1, 2, 3):
            await form.until("Done", number)
        jobs = [await form.job_id(number) for number in (1, 2, 3)]
        assert [url for url in streams if jobs[0] in url] == streams[:1]
        assert {url.split("/")[-2] for url in streams} <= set(jobs)
        form.check()


def _is_stream(request: Request) -> bool:
    return request.url.endswith("/events")


async def _cancel(page: Page, job: str) -> int:
    """As from elsewhere: the page's own script does not know of it."""
    answer = await page.request.post(
        f"{page.url.partition('/gate/')[0]}/gate/jobs/{job}/cancel",
        headers={"Origin": page.url.partition("/gate/")[0]},
    )
    return answer.status
