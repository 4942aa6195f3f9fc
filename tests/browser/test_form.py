"""The form of a function, from the address to the picture, in a real browser."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import Page, Route, expect

from proxy.app import Gate
from proxy.config import load_config
from proxy.observability.access_log import RequestLog
from tests.browser import graphs
from tests.browser.conftest import OUTPUT, TARGETS, House, OpenHouse
from tests.browser.forms import CLEAN, Form, forms
from tests.browser.test_sessions import end_session, sign_in_elsewhere
from tests.browser.webui import DROP, Screenshots

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIDDLE = """image => {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""
RED = graphs.encode(Image.new("RGB", (48, 24), (200, 30, 30)))
BLUE = graphs.encode(Image.new("RGB", (24, 48), (0, 0, 255)))


def _wav() -> bytes:
    """A tenth of a second of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return file.getvalue()


WAV = _wav()


@pytest.mark.parametrize("target", TARGETS)
async def test_from_the_address_to_the_picture(target: str, open_house: OpenHouse, tmp_path: Path) -> None:
    shots = Screenshots(OUTPUT / f"form-{target}")
    async with forms(open_house, tmp_path, target) as house, house.person() as page:
        form = Form(page, house.url, "all")
        await form.open(house.keys["cedar"])
        await shots.take(page, "empty")
        await form.fill(prompt="a harbour", seconds="60")
        await form.run()
        card = await form.until("Runs")
        await expect(card.get_by_role("img", name="Preview")).to_be_visible()
        await expect(card.locator(".state")).to_contain_text("SlowProgress, step")
        await shots.take(page, "runs")
        await card.get_by_role("button", name="Cancel").click()
        await form.until("Canceled")
        await expect(card.get_by_role("img", name="Preview")).to_have_count(0)
        await form.fill(seconds="0")
        await form.run()
        card = await form.until("Done", 2)
        shown = card.get_by_role("img", name="picture: ")
        await expect(shown).to_have_js_property("naturalWidth", 32)
        await expect(card.locator(".state")).to_contain_text("Took ")
        async with page.expect_download() as download:
            await card.get_by_role("link", name="Download").click()
        with Image.open(await (await download.value).path()) as kept:
            assert kept.size == (32, 64)
        await _again_and_kept(form)
        await shots.take(page, "done")
        form.check()


async def _again_and_kept(form: Form) -> None:
    """The same call sent again draws anew, unless what was drawn is kept."""
    card = form.card(2)
    number = str(await card.locator(".drawn").text_content()).split()[3]
    await card.get_by_role("button", name=f"Keep {number}").click()
    await expect(form.field("Color")).to_have_value(number)
    await expect(form.field("Color")).to_be_focused()
    await card.get_by_role("button", name="Run again").click()
    again = await form.until("Done", 3)
    await expect(again.locator(".drawn")).to_contain_text("Drawn for Color")
    await form.run()
    kept = await form.until("Done", 4)
    await expect(kept.locator(".drawn")).to_be_hidden()


async def test_a_text_arrives_as_it_was_written_and_comes_back_as_text(open_house: OpenHouse, tmp_path: Path) -> None:
    """A browser's own form would have sent CR LF for each line break."""
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "echo")
        await form.open(house.keys["cedar"])
        text = 'one\n two "three" \\ ü \U0001d4b3\n\n--form-1\n'
        await form.fill(text=text)
        await form.run()
        said = (await form.until("Done")).locator("pre")
        await expect(said).to_have_text(text, use_inner_text=False)
        assert await said.evaluate("each => each.textContent") == text
        form.check()


async def test_what_is_wrong_is_said_beside_the_field(open_house: OpenHouse, tmp_path: Path) -> None:
    shots = Screenshots(OUTPUT / "form-wrong")
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "all")
        await form.open(house.keys["cedar"])
        # What the browser can tell is told without a word to the gate.
        await form.fill(width="17", seconds="4000")
        async with _no_call(page):
            await form.run()
            await expect(form.field("Prompt")).to_be_focused()
        for name in ("prompt", "width", "seconds"):
            await expect(form.wrong(name)).not_to_be_empty()
            await expect(page.locator(f"#field-{name}")).to_have_attribute("aria-invalid", "true")
        await shots.take(page, "browser")
        # What the policy says of an input that the field fills.
        await form.fill(prompt="a", width="600", seconds="0")
        await form.run()
        await expect(form.wrong("width")).to_contain_text("at most 512")
        await expect(form.field("Width")).to_be_focused()
        await expect(form.wrong("prompt")).to_be_empty()
        # What the gate says of an argument.
        await form.fill(width="64", color="16777216")
        await form.run()
        await expect(form.wrong("color")).to_have_text("It is at most 16777215.")
        await shots.take(page, "gate")
        await form.fill(color="5")
        await expect(form.wrong("color")).to_be_empty()
        await form.run()
        await form.until("Done")
        form.check()


@asynccontextmanager
async def _no_call(page: Page) -> AsyncIterator[None]:
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url) if request.method == "POST" else None)
    yield
    assert calls == []


async def test_what_belongs_to_no_field_is_said_at_the_button(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        await house.admit("few", limits="few", more='functions = ["*"]\n')
        form = Form(page, house.url, "echo")
        await form.open(house.keys["few"])
        await form.run()
        await form.until("Done")
        await form.run()
        await expect(page.get_by_role("alert")).to_contain_text(
            "The limit of 1 prompts per minute of the tenant is reached"
        )
        await expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()
        form.check()


@pytest.mark.parametrize("target", TARGETS)
async def test_a_picture_is_chosen_shown_dropped_and_removed(
    target: str, open_house: OpenHouse, tmp_path: Path
) -> None:
    shots = Screenshots(OUTPUT / f"form-picture-{target}")
    async with (
        forms(open_house, tmp_path, target, server='max_upload_bytes = "1MiB"\n') as house,
        house.person() as page,
    ):
        form = Form(page, house.url, "turn")
        await form.open(house.keys["dune"])
        field = page.locator("#field-picture")
        await form.run()
        await expect(form.wrong("picture")).not_to_be_empty()
        await field.set_input_files({"name": "red.png", "mimeType": "image/png", "buffer": RED})
        await expect(form.wrong("picture")).to_be_empty()
        await expect(page.get_by_role("img", name="Chosen: red.png")).to_have_js_property("naturalWidth", 48)
        await page.get_by_role("button", name="Remove red.png").click()
        await expect(page.get_by_role("img", name="Chosen")).to_have_count(0)
        await expect(field).to_be_focused()
        place = await page.locator(".drop").bounding_box()
        assert place is not None
        await page.evaluate(
            DROP, ["blue.png", "image/png", base64.b64encode(BLUE).decode(), place["x"] + 9, place["y"] + 9]
        )
        await expect(page.get_by_role("img", name="Chosen: blue.png")).to_have_js_property("naturalHeight", 48)
        await form.run()
        shown = (await form.until("Done")).get_by_role("img", name="result: ")
        await expect(shown).to_have_js_property("naturalWidth", 24)
        assert await shown.evaluate(MIDDLE) == [255, 255, 0], "the function inverts it"
        await shots.take(page, "done")
        await field.set_input_files({"name": "large.png", "mimeType": "image/png", "buffer": RED + bytes(2**21)})
        async with _no_call(page):
            await form.run()
            await expect(form.wrong("picture")).to_have_text("This file has 2.0 MiB: at most 1.0 MiB are taken.")
        await field.set_input_files({"name": "page.png", "mimeType": "image/png", "buffer": b"<html>no picture</html>"})
        await form.run()
        await expect(page.get_by_role("alert")).to_contain_text("The content is not what the file's name says")
        form.check()


async def test_cancel(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "all")
        await form.open(house.keys["cedar"])
        await form.fill(prompt="a", seconds="3600")
        await form.run()
        await form.until("Runs")
        await form.run()
        waiting = await form.until("Waits", 2)
        await expect(waiting.locator(".state")).to_contain_text("Number 1 of yours that wait")
        for number in (2, 1):
            await form.card(number).get_by_role("button", name="Cancel").click()
            card = await form.until("Canceled", number)
            await expect(card.get_by_role("button", name="Cancel")).to_be_hidden()
        form.check()


@pytest.mark.parametrize("target", TARGETS)
async def test_a_sound_is_played_and_a_job_that_fails_says_why(
    target: str, open_house: OpenHouse, tmp_path: Path
) -> None:
    """The stand-in reads no sounds."""
    async with forms(open_house, tmp_path, target) as house, house.person() as page:
        form = Form(page, house.url, "fail")
        await form.open(house.keys["cedar"])
        await page.locator("#field-sound").set_input_files({"name": "a.wav", "mimeType": "audio/wav", "buffer": WAV})
        await expect(page.locator(".chosen audio")).to_be_visible()
        await form.run()
        if target == "standin":
            card = await form.until("Failed")
            await expect(card.locator(".error")).to_contain_text("LoadAudio")
        else:
            card = await form.until("Done")
            await expect(card.locator("audio")).to_be_visible()
            await page.wait_for_function("() => document.querySelector('.results audio').duration > 0.05")
        form.check()


async def test_a_reload_and_a_restart_of_the_gate_find_the_job_again(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "all")
        await form.open(house.keys["cedar"])
        await form.fill(prompt="a", seconds="3600")
        await form.run()
        await form.until("Runs")
        job = await form.job_id()
        assert page.url.endswith(f"/gate/run/all#job={job}")
        async with page.expect_request(f"**/gate/jobs/{job}/events"):
            await page.reload()
        card = await form.until("Runs")
        assert await form.job_id() == job
        await expect(card.get_by_role("button", name="Run again")).to_be_hidden()
        async with page.expect_response(f"**/gate/jobs/{job}/events"):  # by itself
            gate = await _restart(house)
        try:
            await expect(card.locator(".badge")).to_have_text("Runs")
            await card.get_by_role("button", name="Cancel").click()
            await form.until("Canceled")
            await form.fill(prompt="b", seconds="0")
            await form.run()
            done = await form.until("Done", 2)
            await expect(done.get_by_role("img", name="picture: ")).to_have_js_property("naturalWidth", 32)
        finally:
            await gate.stop()
        form.check((*CLEAN, "net::", "EventSource"))


async def _restart(house: House) -> Gate:
    """At the same port."""
    port = house.url.rpartition(":")[2]
    await house.gate.gate.stop()
    file = house.gate.config_file
    file.write_text(file.read_text(encoding="utf-8").replace("port = 0", f"port = {port}", 1), encoding="utf-8")
    gate = Gate(load_config(file, {}), RequestLog(house.gate.log, "json"))
    await gate.start()
    return gate


async def test_a_call_whose_answer_is_lost_makes_one_job(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "echo")
        await form.open(house.keys["cedar"])
        lost: list[str] = []

        async def lose(route: Route) -> None:
            if lost:
                await route.continue_()
                return
            lost.append((await (await route.fetch()).json())["id"])
            await route.abort("connectionreset")

        await page.route("**/gate/run/echo", lose)
        await form.run()
        await form.until("Done")
        assert lost == [await form.job_id()]
        form.check((*CLEAN, "net::"))


async def test_two_tabs_and_a_link(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        first, tab = Form(page, house.url, "echo"), await page.context.new_page()
        second = Form(tab, house.url, "echo")
        await first.open(house.keys["cedar"])
        await second.open()
        for form, text in ((first, "one"), (second, "two")):
            await form.page.bring_to_front()
            await form.fill(text=text)
            await form.run()
            await expect((await form.until("Done")).locator("pre")).to_have_text(text)
            await expect(form.page.get_by_role("article")).to_have_count(1)
        async with tab.context.expect_page() as opened:
            await second.card().get_by_role("link", name="Link to this job").click()
        third = Form(await opened.value, house.url, "echo")
        await expect((await third.until("Done")).locator("pre")).to_have_text("two")
        first.check()


async def test_an_ended_session_loses_nothing(open_house: OpenHouse, tmp_path: Path) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        form = Form(page, house.url, "echo")
        await form.open(house.keys["cedar"])
        await form.fill(text="kept")
        await end_session(house, page)
        await form.run()
        await expect(page.get_by_role("alert")).to_contain_text("The session has ended.")
        await expect(page.get_by_role("link", name="Sign in, in another tab")).to_be_visible()
        await sign_in_elsewhere(house, page, house.keys["cedar"])
        await page.bring_to_front()
        await form.run()
        await expect((await form.until("Done")).locator("pre")).to_have_text("kept")
        form.check()


async def test_who_has_functions_alone_comes_from_the_front_page_to_a_form(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    async with forms(open_house, tmp_path) as house, house.person() as page:
        await page.goto(f"{house.url}/")
        await page.get_by_label("API key").fill(house.keys["cedar"])
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("heading", name="Functions")).to_be_visible()
        assert page.url == f"{house.url}/gate/run"
        await page.get_by_role("link", name="Echo").click()
        form = Form(page, house.url, "echo")
        await form.run()
        await form.until("Done")
        await page.goto(f"{house.url}/gate/run/nothing")
        await expect(page.get_by_role("heading", name="Not found")).to_be_visible()
