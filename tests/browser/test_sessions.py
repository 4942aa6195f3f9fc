"""A session that ends while its page is open, and a browser that several people use: nothing of one's own is lost, nothing of another's is found."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Page, Route, expect

from proxy.auth.credentials import SessionCookie
from tests.browser import graphs
from tests.browser.conftest import OUTPUT, TARGETS, House, OpenHouse
from tests.browser.webui import Screenshots, WebUi

pytestmark = pytest.mark.asyncio(loop_scope="session")

ADD_NODE = """() => {
  app.graph.add(LiteGraph.createNode('PreviewImage'));
  const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
  (tracker.captureCanvasState ?? tracker.checkState).call(tracker);
  app.api.dispatchCustomEvent('graphChanged', app.graph.serialize());
}"""
KINDS = "() => app.graph._nodes.map(each => each.type)"
TOLD = "The session has ended. Sign in at /gate/login in another tab, then go on here: nothing is lost."


async def end_session(house: House, page: Page) -> None:
    """As time does it, or an operator."""
    authenticator = house.gate.gate.dependencies.compiled.authenticator
    for cookie in await page.context.cookies():
        if cookie["name"].endswith("comfygate_session"):
            assert authenticator.sessions.end(SessionCookie(cookie["value"]), authenticator.keys)


async def sign_in_elsewhere(house: House, page: Page, key: str) -> Page:
    """In another tab of the same browser."""
    tab = await page.context.new_page()
    await tab.goto(f"{house.url}/gate/login?next=/gate/me")
    await tab.get_by_label("API key").fill(key)
    await tab.get_by_role("button", name="Sign in").click()
    await expect(tab.get_by_role("button", name="Sign out")).to_be_visible()
    return tab


async def saved_kinds(house: House, name: str) -> list[str]:
    headers = {"Authorization": f"Bearer {house.keys['amber']}"}
    path = quote(f"workflows/{name}.json", safe="")
    document: dict[str, Any] = await house.gate.json("GET", f"/userdata/{path}", None, headers=headers)
    return [node["type"] for node in document["nodes"]]


@pytest.mark.parametrize("target", TARGETS)
async def test_a_tenant_works_through_an_ended_session(target: str, open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / f"sessions-{target}")
    async with open_house(target) as house, house.person() as page:
        ui = WebUi(page, house.url)
        await ui.start(house.keys["amber"])
        await ui.open_workflow("work", graphs.saved_upload("work"), graphs.UPLOAD_KINDS)
        await ui.save_as("kept")
        kinds = [*graphs.UPLOAD_KINDS, "PreviewImage"]
        await page.evaluate(ADD_NODE)
        await end_session(house, page)
        async with page.expect_response(lambda reply: "/userdata/workflows" in reply.url) as reply:
            await page.keyboard.press("Control+s")
        assert (await reply.value).status == 401
        await expect(page.get_by_text(TOLD).first).to_be_visible()
        await shots.take(page, "save-failed")
        await page.evaluate(ADD_NODE)
        assert await page.evaluate(KINDS) == [*kinds, "PreviewImage"]
        tab = await sign_in_elsewhere(house, page, house.keys["amber"])
        await shots.take(tab, "signed-in-elsewhere")
        await page.bring_to_front()
        await ui.wait_until_loaded()
        assert await page.evaluate(KINDS) == [*kinds, "PreviewImage"]
        async with page.expect_response(lambda reply: "/userdata/workflows" in reply.url) as reply:
            await page.keyboard.press("Control+s")
        assert (await reply.value).status == 200
        await shots.take(page, "saved")
        assert await saved_kinds(house, "kept") == [*kinds, "PreviewImage"]


@pytest.mark.parametrize("target", TARGETS)
async def test_a_workflow_that_was_never_saved_is_saved_after_the_login(target: str, open_house: OpenHouse) -> None:
    """The page loads parts of itself when they are first used, here the dialog for the name: also after they were refused once."""
    shots = Screenshots(OUTPUT / f"sessions-unsaved-{target}")
    async with open_house(target) as house, house.person() as page:
        ui = WebUi(page, house.url)
        await ui.start(house.keys["amber"])
        await ui.open_workflow("work", graphs.saved_upload("work"), graphs.UPLOAD_KINDS)
        await end_session(house, page)
        await page.evaluate(ADD_NODE)
        async with page.expect_response(lambda reply: reply.status == 401):
            await ui.run()
        await page.keyboard.press("Control+s")
        await shots.take(page, "not-saved")
        await page.keyboard.press("Escape")
        await sign_in_elsewhere(house, page, house.keys["amber"])
        await page.bring_to_front()
        await ui.wait_until_loaded()
        await ui.save_as("kept")
        await shots.take(page, "saved")
        assert await saved_kinds(house, "kept") == [*graphs.UPLOAD_KINDS, "PreviewImage"]


@pytest.mark.parametrize("target", TARGETS)
async def test_a_reload_after_the_end_of_a_session_finds_what_was_not_saved(target: str, open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / f"sessions-reload-{target}")
    async with open_house(target) as house, house.person() as page:
        ui = WebUi(page, house.url)
        await ui.start(house.keys["amber"])
        await ui.open_workflow("work", graphs.saved_upload("work"), graphs.UPLOAD_KINDS)
        await end_session(house, page)
        await page.evaluate(ADD_NODE)
        await page.wait_for_function("() => Object.values(localStorage).some(text => text.includes('PreviewImage'))")
        await page.keyboard.press("Control+s")
        await page.reload()
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        await page.get_by_label("API key").fill(house.keys["amber"])
        await page.get_by_role("button", name="Sign in").click()
        await ui.wait_until_loaded()
        await page.wait_for_function(
            f"kinds => JSON.stringify(({KINDS})()) === JSON.stringify(kinds)",
            arg=[*graphs.UPLOAD_KINDS, "PreviewImage"],
        )
        await shots.take(page, "found-again")


async def test_the_next_person_on_a_browser_finds_nothing_of_the_one_before(open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / "sessions-two-people")
    async with open_house() as house, house.person() as page:
        ui = WebUi(page, house.url)
        await ui.start(house.keys["amber"])
        await ui.open_workflow("secret", graphs.saved_upload("secret"), graphs.UPLOAD_KINDS)
        await page.evaluate(ADD_NODE)
        await page.wait_for_function("() => Object.values(localStorage).some(text => text.includes('PreviewImage'))")
        await page.evaluate("() => new Promise(done => { indexedDB.open('left').onsuccess = done; })")
        await end_session(house, page)
        await page.goto("about:blank")
        await ui.start(house.keys["birch"])
        everything = "() => JSON.stringify([Object.entries(localStorage), Object.entries(sessionStorage)])"
        assert "LoadImage" not in await page.evaluate(everything)
        assert await page.evaluate(KINDS) == []
        assert "left" not in [each["name"] for each in await page.evaluate("() => indexedDB.databases()")]
        await shots.take(page, "the-next-person")
        await ui.open_workflow("mine", graphs.slow_picture("mine"), graphs.SLOW_KINDS)
        await page.wait_for_function("() => Object.values(localStorage).some(text => text.includes('SlowProgress'))")
        await end_session(house, page)
        await page.goto("about:blank")
        await ui.sign_in(house.keys["birch"])
        await ui.wait_until_loaded()
        await page.wait_for_function(f"kinds => ({KINDS})().join() === kinds", arg=",".join(graphs.SLOW_KINDS))
        await shots.take(page, "the-same-person")


async def test_a_sign_out_says_what_goes_and_leaves_nothing(open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / "sessions-sign-out")
    async with open_house() as house, house.person() as page:
        # As over plain http to a machine in the LAN, where browsers heed no Clear-Site-Data.
        await page.route("**/gate/logout", _without_clear_site_data)
        ui = WebUi(page, house.url)
        await ui.start(house.keys["amber"])
        assert await page.evaluate("localStorage.length") > 0
        await page.goto(f"{house.url}/gate/me")
        await expect(page.get_by_text("Signing out removes what this browser keeps of your work")).to_be_visible()
        await shots.take(page, "what-goes")
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert await page.evaluate("localStorage.length + sessionStorage.length") == 0


async def test_one_tab_too_many_works_and_so_does_the_one_before_when_it_is_used(open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / "sessions-tabs")
    async with open_house(more="[limits.one]\nwebsockets = 1\n") as house, house.person() as page:
        key = await house.admit("one", limits="one")
        tabs = [WebUi(page, house.url), WebUi(await page.context.new_page(), house.url)]
        await tabs[0].start(key)
        await tabs[1].page.goto(f"{house.url}/")
        await tabs[1].wait_until_loaded()
        for name, ui in (("second", tabs[1]), ("first", tabs[0]), ("second-again", tabs[1])):
            await ui.page.bring_to_front()
            await ui.open_workflow(name, graphs.slow_picture(name, seconds=0.5), graphs.SLOW_KINDS)
            await ui.run()
            assert f"filename={name}_00001_.png" in await ui.wait_for_image(3)
            await shots.take(ui.page, name)


async def _without_clear_site_data(route: Route) -> None:
    answer = await route.fetch()
    headers = {name: value for name, value in answer.headers.items() if name != "clear-site-data"}
    await route.fulfill(response=answer, headers=headers)
