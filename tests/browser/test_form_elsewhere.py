"""The form where the gate is not as in the other tests: below a prefix of another server's, and as the documentation's commands leave it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from standin import StandIn
from tests.browser.conftest import OpenHouse
from tests.browser.forms import Form, forms
from tests.browser.test_form import RED
from tests.deploy.nginx import below_a_prefix
from tests.docs.refusals import ROOT
from tests.docs.terminals import Block, answers, follow
from tests.docs.test_commands import WALK_LIMIT_S, Clone, clone_into
from tests.programs import needs

pytestmark = pytest.mark.asyncio(loop_scope="session")


@needs("nginx")
@pytest.mark.parametrize("setting", ["", 'public_path = "/comfy/ui"\n'])
async def test_below_a_prefix(setting: str, open_house: OpenHouse, tmp_path: Path) -> None:
    async with (
        forms(open_house, tmp_path, server=setting) as house,
        below_a_prefix(tmp_path, house.url, "/comfy/ui") as base,
        house.person() as page,
    ):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(f"{base}/")
        await page.get_by_label("API key").fill(house.keys["cedar"])
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("link", name="Turn").click()
        form = Form(page, base, "turn")
        await page.locator("#field-picture").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": RED})
        await form.run()
        card = await form.until("Done")
        await expect(card.get_by_role("img", name="result: ")).to_have_js_property("naturalWidth", 48)
        await page.reload()
        await form.until("Done")
        await page.get_by_role("link", name="All functions").click()
        await expect(page.get_by_role("heading", name="Functions")).to_be_visible()
        assert page.url == f"{base}/gate/run"
        assert [url for url in asked if not url.startswith((f"{base}/", "blob:", "data:"))] == []
        form.check()


@needs("bash", "curl")
@pytest.mark.timeout(WALK_LIMIT_S)
async def test_from_an_exported_workflow_to_a_form_by_the_commands_of_the_documentation(
    chromium: Browser, tmp_path: Path
) -> None:
    """The section is followed as it is written; where it has given the function to the tenant, the form is filled in."""
    comfy = StandIn(tmp_path / "comfyui", frontend=False)
    await comfy.start()
    context = await chromium.new_context()
    try:
        clone = clone_into(tmp_path, comfy)
        await clone.follow("README.md")
        _export_workflow(clone)
        began_s, seen = time.monotonic(), []

        async def after(block: Block) -> None:
            if "comfygate functions list" not in block.commands:
                return
            key = (clone.folder / "gate" / "acme.key").read_text(encoding="utf-8").splitlines()[-1]
            base = f"http://127.0.0.1:{clone.ports['8190']}"
            await answers(f"{base}/gate/functions/hello", {"Authorization": f"Bearer {key}"})
            form = Form(await context.new_page(), base, "hello")
            await form.page.goto(f"{base}/gate/run")
            await form.page.get_by_label("API key").fill(key)
            await form.page.get_by_role("button", name="Sign in").click()
            await form.page.get_by_role("link", name="Hello").click()
            await form.fill(color="255", size="64")
            await form.run()
            shown = (await form.until("Done")).get_by_role("img", name="picture: ")
            await expect(shown).to_have_js_property("naturalWidth", 64)
            form.check()
            seen.append(time.monotonic() - began_s)

        page = clone.replaced((ROOT / "docs" / "functions.md").read_text(encoding="utf-8"))
        section = page.partition("## From a workflow to a call")[2].partition("\n## ")[0]
        await follow(section, clone.folder, clone.ready, after)
        assert len(seen) == 1
        print(f"from an exported workflow to a picture of its form: {seen[0]:.0f} s")
    finally:
        await context.close()
        await comfy.stop()


def _export_workflow(clone: Clone) -> None:
    """As the quick start has it."""
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"cat > workflow\.json <<'?(\w+)'?\n(.*?)\n\1\n", text, re.DOTALL)
    (clone.folder / "gate" / "workflow.json").write_text(found[1], encoding="utf-8")
