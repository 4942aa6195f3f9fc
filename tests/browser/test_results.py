"""A picture that a job made, dropped into the web UI, opens the workflow that made it: as its tenant wrote it."""

from __future__ import annotations

import base64
import json

import pytest

from tests.browser import graphs
from tests.browser.conftest import TARGETS, OpenHouse
from tests.browser.webui import WebUi

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photos/in.png"}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "mine/con/picture"}},
}
RUN = """async prompt => {
  const post = (path, body, headers) => fetch(path, {method: 'POST', body, headers});
  const form = new FormData();
  const picture = Uint8Array.from(atob(prompt.picture), each => each.charCodeAt(0));
  form.append('image', new File([picture], 'in.png', {type: 'image/png'}));
  form.append('subfolder', 'photos');
  await post('api/upload/image', form);
  const sent = await post('api/prompt', JSON.stringify({prompt: prompt.graph}), {'Content-Type': 'application/json'});
  const id = (await sent.json()).prompt_id;
  let entry;
  while (!(entry = (await (await fetch(`api/history/${id}`)).json())[id]))
    await new Promise(done => setTimeout(done, 50));
  return entry.outputs['3'].images[0];
}"""
DOWNLOAD = """async image => {
  const answer = await fetch('api/view?' + new URLSearchParams(image));
  const bytes = new Uint8Array(await answer.arrayBuffer());
  return btoa(Array.from(bytes, each => String.fromCharCode(each)).join(''));
}"""
WIDGETS = "() => app.graph._nodes.map(node => [node.type, (node.widgets ?? []).map(widget => String(widget.value))])"


@pytest.mark.parametrize("target", TARGETS)
async def test_a_picture_that_is_dropped_opens_ones_own_workflow(target: str, open_house: OpenHouse) -> None:
    async with open_house(target) as house, house.person() as page:
        ui = WebUi(page, house.url)
        await ui.start(house.keys["amber"])
        picture = base64.b64encode(graphs.picture(graphs.RED)).decode()
        image = await page.evaluate(RUN, {"graph": PROMPT, "picture": picture})
        content = base64.b64decode(await page.evaluate(DOWNLOAD, image))
        assert house.tenants["amber"].encode() not in content
        await ui.drop_picture("result.png", content, ["LoadImage", "ImageInvert", "SaveImage"])
        widgets = dict(await page.evaluate(WIDGETS))
        assert widgets["LoadImage"][0] == "photos/in.png"
        assert widgets["SaveImage"] == ["mine/con/picture"]
        shown = await page.evaluate("async () => JSON.stringify(await app.graphToPrompt())")
        assert "tenants/" not in shown
        assert "comfygate" not in shown
        assert json.loads(shown)["output"]["3"]["inputs"]["filename_prefix"] == "mine/con/picture"
