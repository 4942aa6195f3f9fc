"""What is new in ComfyUI while a page is open, and what travels on the socket or from disk, as a person sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from proxy.upstream import node_catalogue
from tests.browser import graphs
from tests.browser.conftest import OUTPUT, OpenHouse
from tests.browser.webui import Screenshots, WebUi

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODELS = """async () => {
  await app.refreshComboInNodes();
  const widget = app.graph._nodes[0].widgets[0];
  return typeof widget.options.values === 'function' ? widget.options.values() : widget.options.values;
}"""
TYPE = """async name => {
  const answer = await fetch(`api/view?filename=${name}&type=input`);
  const image = new Image();
  image.src = URL.createObjectURL(await answer.blob());
  await image.decode();
  return [answer.headers.get('Content-Type'), image.naturalWidth];
}"""


async def test_a_new_model_shows_when_the_page_asks_for_it(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_catalogue, "FRESH_S", 0.0)
    shots = Screenshots(OUTPUT / "new-model")
    async with open_house() as house, house.person() as page:
        assert house.comfy is not None
        ui = WebUi(page, house.url)
        await ui.start(house.keys["amber"])
        await page.evaluate("() => { app.graph.add(LiteGraph.createNode('CheckpointLoaderSimple')); }")
        assert "brand-new.safetensors" not in await page.evaluate(MODELS)
        folder = Path(house.comfy.folders.base, "models", "checkpoints")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "brand-new.safetensors").write_bytes(b"x")
        assert "brand-new.safetensors" in await page.evaluate(MODELS)
        await shots.take(page, "listed")


async def test_a_file_from_disk_has_the_type_that_its_reader_looks_for(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house() as house, house.person() as page:
        assert house.comfy is not None
        ui = WebUi(page, house.url)
        await ui.start(house.keys["amber"])
        folder = Path(house.comfy.folders.base, "input", "tenants", house.tenants["amber"])
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), graphs.RED).save(folder / "red.webp")
        monkeypatch.setattr("mimetypes.guess_type", lambda *_, **__: (None, None))
        assert await page.evaluate(TYPE, "red.webp") == ["image/webp", 64]
