"""A tenant's day in the web UI: from the login to the logout, with everything that a person does between."""

from __future__ import annotations

import secrets

import pytest
from playwright.async_api import expect

from tests.browser import graphs
from tests.browser.conftest import OUTPUT, TARGETS, House, OpenHouse
from tests.browser.webui import Screenshots, WebUi

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("target", TARGETS)
async def test_a_tenant_works_in_the_web_ui(target: str, open_house: OpenHouse) -> None:
    shots = Screenshots(OUTPUT / f"scenario-{target}")
    async with open_house(target) as house, house.person() as page:
        ui = WebUi(page, house.url)
        await _sign_in(ui, house, shots)
        await _run_a_workflow(ui, shots)
        await _upload_pictures(ui, shots)
        await _look_at_jobs_and_cancel(ui, shots)
        await _keep_workflows(ui, shots)
        await _change_a_setting(ui, house, shots)
        await _meet_a_refusal(ui, shots)
        await _sign_out(ui, house, shots)
        await house.record(
            "sign in; run, progress, preview, picture; upload by widget and by drop; queue, history, cancel; save, reopen, rename and "
            "delete a workflow; keep a setting; a refused node is marked; sign out"
        )


async def _sign_in(ui: WebUi, house: House, shots: Screenshots) -> None:
    await ui.sign_in("cg_00000000_" + "x" * 43)
    await expect(ui.page.get_by_role("alert")).to_have_text(
        "This key is not valid here. Paste all of it, or ask for a new one."
    )
    await shots.take(ui.page, "wrong-key")
    await ui.sign_in(house.keys["amber"])
    await ui.wait_until_loaded()
    await shots.take(ui.page, "first-visit")
    await ui.close_templates()
    await shots.take(ui.page, "loaded")


async def _run_a_workflow(ui: WebUi, shots: Screenshots) -> None:
    await ui.open_workflow("first", graphs.slow_picture("first"), graphs.SLOW_KINDS)
    await ui.run()
    await ui.wait_for_progress(2)
    await shots.take(ui.page, "running")
    address = await ui.wait_for_image(3)
    assert "/api/view?" in address
    assert "filename=first_00001_.png" in address
    assert "tenants" not in address
    assert await ui.colour_of(3) == graphs.BLUE
    await ui.wait_for_active(0)
    await shots.take(ui.page, "image")


async def _upload_pictures(ui: WebUi, shots: Screenshots) -> None:
    await ui.open_workflow("upload", graphs.saved_upload("used"), graphs.UPLOAD_KINDS)
    await ui.upload_by_widget(1, "red.png", graphs.picture(graphs.RED))
    await ui.wait_for_upload(1, "red.png")
    await shots.take(ui.page, "uploaded-by-widget")
    await ui.upload_by_drop(1, "green.png", graphs.picture(graphs.GREEN))
    await ui.wait_for_upload(1, "green.png")
    await ui.run()
    await ui.wait_for_image(2)
    assert await ui.colour_of(2) == graphs.GREEN
    await shots.take(ui.page, "uploaded-by-drop-and-used")


async def _look_at_jobs_and_cancel(ui: WebUi, shots: Screenshots) -> None:
    await ui.open_workflow("long", graphs.slow_picture("long", seconds=300, steps=3000), graphs.SLOW_KINDS)
    jobs = await ui.open_job_list()
    await expect(jobs.get_by_text("first_00001_.png")).to_be_visible()
    await expect(jobs.get_by_text("used_00001_.png")).to_be_visible()
    await ui.run()
    await ui.wait_for_progress(2)
    await ui.run()
    await ui.wait_for_active(2)
    await expect(jobs.get_by_text("1 running, 1 queued")).to_be_visible()
    await shots.take(ui.page, "queue")
    await ui.cancel()
    await ui.wait_for_active(1)
    await ui.cancel()
    await ui.wait_for_active(0)
    await expect(jobs.get_by_text("Failed", exact=True).first).to_be_visible()
    await ui.open_side_bar("Assets (a)")
    await expect(ui.page.get_by_text("first_00001_", exact=True)).to_be_visible()
    await expect(ui.page.get_by_text("used_00001_", exact=True)).to_be_visible()
    await shots.take(ui.page, "history")
    await ui.open_side_bar("Assets (a)")


async def _keep_workflows(ui: WebUi, shots: Screenshots) -> None:
    name = f"harbour-{secrets.token_hex(3)}"
    await ui.save_as(name)
    await ui.open_side_bar("Workflows (w)")
    await expect(ui.saved(name)).to_be_visible()
    await shots.take(ui.page, "saved")
    await ui.page.get_by_test_id("close-workflow-button").last.click()
    await expect(ui.page.get_by_test_id("topbar-workflow-tabs").get_by_text(name)).to_have_count(0)
    await ui.saved(name).first.click()
    await ui.page.wait_for_function(
        "() => app.graph._nodes.length === 3 && app.graph.getNodeById(3)?.type === 'SaveImage'"
    )
    await expect(ui.page.get_by_test_id("topbar-workflow-tabs").get_by_text(name)).to_be_visible()
    await ui.choose(name, "Rename")
    field = ui.saved("").get_by_role("textbox")
    await field.fill(f"{name}-old")
    await field.press("Enter")
    await expect(ui.saved(f"{name}-old").first).to_be_visible()
    await shots.take(ui.page, "renamed")
    await ui.choose(f"{name}-old", "Delete")
    await ui.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(ui.saved(name)).to_have_count(0)
    await shots.take(ui.page, "deleted")
    await ui.open_side_bar("Workflows (w)")


async def _change_a_setting(ui: WebUi, house: House, shots: Screenshots) -> None:
    assert await ui.setting("Comfy.DevMode") is False
    await ui.page.keyboard.press("Control+,")
    line = ui.page.get_by_role("dialog").locator("div", has_text="Enable dev mode options").last
    async with ui.page.expect_response(lambda reply: reply.url.endswith("/settings/Comfy.DevMode")) as reply:
        await line.locator("xpath=..").get_by_role("switch").click()
    assert (await reply.value).status == 200
    await shots.take(ui.page, "setting")
    await ui.page.reload()
    await ui.wait_until_loaded()
    assert await ui.setting("Comfy.DevMode") is True
    if house.target == "standin":  # the gate lists a tenant's files where it sees ComfyUI's folder
        listed = "() => app.graph.getNodeById(1).widgets[0].options.values.includes('green.png')"
        await ui.page.wait_for_function(listed)
        await expect(ui.page.get_by_text("Media input missing")).to_have_count(0)
    await shots.take(ui.page, "reloaded")


async def _meet_a_refusal(ui: WebUi, shots: Screenshots) -> None:
    await ui.open_workflow("wide", graphs.slow_picture("wide", width=1024), graphs.SLOW_KINDS)
    async with ui.page.expect_response(lambda reply: reply.url.endswith("/api/prompt")) as reply:
        await ui.run()
    assert (await reply.value).status == 403
    await ui.page.wait_for_function("() => app.graph.getNodeById(1).has_errors && !app.graph.getNodeById(2).has_errors")
    await ui.page.get_by_role("button", name="View details").click()
    await ui.page.get_by_role("button", name="Info for Empty Image").click()
    await expect(ui.page.get_by_text("width, found 1024, allowed: at most 512")).to_be_visible()
    await shots.take(ui.page, "refused")


async def _sign_out(ui: WebUi, house: House, shots: Screenshots) -> None:
    assert await ui.page.evaluate("localStorage.length") > 0
    await ui.page.goto(f"{house.url}/gate/me")
    await expect(ui.page.get_by_text(house.tenants["amber"]).first).to_be_visible()
    await shots.take(ui.page, "me")
    await ui.page.get_by_role("button", name="Sign out").click()
    await expect(ui.page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert await ui.page.evaluate("localStorage.length") == 0
    await ui.page.goto(f"{house.url}/")
    await expect(ui.page.get_by_role("heading", name="Sign in")).to_be_visible()
