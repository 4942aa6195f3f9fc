"""The web UI with a pack of custom nodes: its script runs, what is open answers it with the person's session, and what is closed says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser

from standin import StandIn
from tests.browser.webui import WebUi
from tests.harness import running_gate
from tests.pack.rows import ROWS
from tests.pack.standin import make_pack

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASK = """async () => {
  const said = [];
  for (const path of ['/gate-pack/files/a.js', '/gate-pack/models?folder=loras', '/gate-pack/not-in-any-row', '/gate-pack/restart'])
    said.push((await app.api.fetchApi(path)).status);
  said.push((await import('/gate-pack/files/module.js')).file);
  return said;
}"""


async def test_a_packs_script_runs_and_its_open_routes_answer_it(chromium: Browser, tmp_path: Path) -> None:
    comfy = StandIn(tmp_path / "comfyui", pack=make_pack())
    await comfy.start()
    async with running_gate(tmp_path, comfy.url, more=ROWS) as gate:
        page = await chromium.new_page()
        ui = WebUi(page, gate.url)
        await ui.start(gate.keys["alice"])
        await page.wait_for_function("() => app.extensions.some(each => each.name === 'gate-pack')")
        assert await page.evaluate(ASK) == [200, 200, 404, 403, "module.js"]
        await page.close()
    await comfy.stop()
