"""What a neighbour, a file or a node could put into the form's page: it stands there as text, and nothing of it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Error, Page, Route, expect

from tests.browser.conftest import OpenHouse
from tests.browser.forms import HTML, Form, forms
from tests.browser.test_form import RED

pytestmark = pytest.mark.asyncio(loop_scope="session")

FOREIGN = """() => [...document.querySelectorAll('script, iframe, object, embed, base, meta[http-equiv], link:not([rel=icon]), [onerror], svg:not(.brand svg)')]
  .filter(each => each !== document.querySelector('main > script')).map(each => each.outerHTML)"""


async def untouched(page: Page, title: str) -> None:
    assert await page.title() == f"{title} - comfygate"
    assert await page.evaluate(FOREIGN) == []


async def test_the_operators_texts_are_text(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "all")
        await form.open(house.keys["cedar"])
        await untouched(page, f"All {HTML}")
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"All {HTML}")
        await expect(page.get_by_text(f"One of each. {HTML}")).to_be_visible()
        await expect(page.get_by_text(f"What is seen {HTML}")).to_be_visible()
        await page.goto(f"{house.url}/gate/run")
        await untouched(page, "Functions")
        await expect(page.get_by_role("link", name=f"All {HTML}")).to_be_visible()
        await page.goto(f"{house.url}/gate/me")
        await expect(page.get_by_role("link", name=f"All {HTML}")).to_be_visible()
        form.check()


async def test_what_a_job_makes_and_what_is_refused_is_text(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "echo")
        await form.open(house.keys["cedar"])
        await form.fill(text=HTML)
        await form.run()
        await expect((await form.until("Done")).locator("pre")).to_have_text(HTML)
        await untouched(page, "Echo")
        show = Form(page, house.url, "show")
        await show.open()
        await show.fill(picture="<img src=x onerror=alert(1)>.png")
        await show.run()
        await expect(show.wrong("picture")).to_contain_text("<img src=x onerror=alert(1)>.png")
        await untouched(page, "Show")
        form.check()


async def test_names_of_files_are_text(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "turn")
        await form.open(house.keys["dune"])
        name = "<img src=x onerror=alert(1)>.png"
        await page.locator("#field-picture").set_input_files({"name": name, "mimeType": "image/png", "buffer": RED})
        await expect(page.get_by_role("button", name=f"Remove {name}")).to_be_visible()
        await page.locator("#field-picture").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": RED})
        await form.fill(prefix="<b>a &amp; 'b'")
        await form.run()
        card = await form.until("Done")
        await expect(card.get_by_role("link", name="Download <b>a &amp; 'b'_00001_.png")).to_be_visible()
        await expect(card.get_by_role("img", name="result: <b>a &amp; 'b'")).to_have_js_property("naturalWidth", 48)
        await untouched(page, "Turn")
        form.check()


async def test_the_address_finds_ones_own_jobs_alone(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page, house.person() as other:
        mine = Form(page, house.url, "turn")
        await mine.open(house.keys["dune"])
        await page.locator("#field-picture").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": RED})
        await mine.run()
        await mine.until("Done")
        job = await mine.job_id()
        theirs = Form(other, house.url, "turn")
        await theirs.open(house.keys["cedar"])
        for foreign in (job, "00000000-0000-4000-8000-000000000000"):
            await other.goto("about:blank")
            await other.goto(f"{theirs.address}#job={foreign}")
            card = await theirs.until("Not found")
            await expect(card.locator(".error")).to_have_text(
                "There is no such job of yours: it is not kept any more, or was never yours."
            )
            await expect(card.get_by_role("img")).to_have_count(0)
        await other.goto("about:blank")
        asked: list[str] = []
        other.on("request", lambda request: asked.append(request.url))
        await other.goto(f"{theirs.address}#job=..%2Fme,<img src=x onerror=alert(1)>,a/b,{'a' * 65}")
        await expect(other.get_by_role("button", name="Run", exact=True)).to_be_enabled()
        await expect(other.get_by_role("article")).to_have_count(0)
        assert [url for url in asked if "/gate/jobs/" in url] == []


async def test_documents_that_a_job_makes_are_not_opened_on_the_gates_origin(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    """A custom node may make files of any type."""
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "turn")
        await form.open(house.keys["dune"])
        types = ["image/svg+xml", "text/html", "application/xhtml+xml", "IMAGE/SVG+XML;a=b", "application/pdf"]

        async def change(route: Route) -> None:
            job: Any = await (await route.fetch()).json()
            job["outputs"] = [
                {**output, "id": f"{at}", "content_type": kind}
                for output in job["outputs"]
                for at, kind in enumerate(types)
            ]
            await route.fulfill(json=job)

        await page.route("**/gate/jobs/*", change)
        await page.locator("#field-picture").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": RED})
        await form.run()
        card = await form.until("Done")
        await expect(card.get_by_role("figure")).to_have_count(len(types))
        await expect(card.locator("img, video, audio, pre")).to_have_count(0)
        for link in await card.get_by_role("link", name="Download").all():
            assert await link.get_attribute("download")
        form.check()


async def test_the_page_runs_no_other_script_and_speaks_to_no_other_host(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "echo")
        await form.open(house.keys["cedar"])
        with pytest.raises(Error, match="TrustedHTML"):
            await page.evaluate("text => { document.body.innerHTML = text; }", HTML)
        with pytest.raises(Error, match="TrustedScript"):
            await page.evaluate(
                "() => { const script = document.createElement('script'); script.textContent = 'document.title = 3';"
                " document.body.append(script); }"
            )
        with pytest.raises(Error, match="Failed to fetch"):
            await page.evaluate("() => fetch('http://127.0.0.1:9/')")
        await page.evaluate(
            "() => document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/a.png'}))"
        )
        await page.wait_for_function("() => document.querySelector('img').complete")
        refused = [text for text in form.complaints if "violates" in text]
        assert len(refused) >= 3, form.complaints
        assert await page.title() == "Echo - comfygate"
        assert house.keys["cedar"] not in await page.content()
        assert "comfygate_session" not in await page.evaluate("() => document.cookie")
