"""ComfyUI's web UI as a person uses it: what can be clicked, typed, dropped and seen. Waits for conditions, never for time."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from playwright.async_api import Locator, Page, expect

LOADED = """() => window.app?.graph && app.canvas && app.api?.socket?.readyState === 1
  && !app.extensionManager.spinner && app.extensionManager.workflow.activeWorkflow"""
PLACE = """([id, name]) => {
  const node = app.graph.getNodeById(id), scale = app.canvas.ds, frame = app.canvas.canvas.getBoundingClientRect();
  const widget = name && node.widgets.find(each => each.name === name);
  const y = widget ? node.pos[1] + widget.last_y + 10 : node.pos[1] + node.size[1] * 0.7;
  return [frame.left + (node.pos[0] + node.size[0] / 2 + scale.offset[0]) * scale.scale,
          frame.top + (y + scale.offset[1]) * scale.scale];
}"""
STEADY = """() => {
  const scale = app.canvas.ds, place = [scale.scale, ...scale.offset].join();
  window.steadyFrames = window.steadyPlace === place ? window.steadyFrames + 1 : 0;
  window.steadyPlace = place;
  return window.steadyFrames >= 20;
}"""
DROP = """([name, type, content, x, y]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(content), each => each.charCodeAt(0))], name, {type}));
  const target = document.elementFromPoint(x, y);
  for (const kind of ['dragenter', 'dragover', 'drop'])
    target.dispatchEvent(new DragEvent(kind,
      {bubbles: true, cancelable: true, clientX: x, clientY: y, dataTransfer: data}));
}"""
COLOUR = """id => {
  const image = app.graph.getNodeById(id).imgs[0], canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


class Screenshots:
    """Numbered pictures of what was seen, kept as test output."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.png"):
            old.unlink()

    async def take(self, page: Page, name: str) -> None:
        self._count += 1
        await page.screenshot(path=self._folder / f"{self._count:02}-{name}.png", animations="disabled")


class WebUi:
    """One browser page. base: the address it talks to, the gate's or ComfyUI's own."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        # Chromium is told to hand over file choosers when the first one listens, and that takes a while: so early.
        page.on("filechooser", lambda chooser: None)

    async def sign_in(self, key: str) -> None:
        await self.page.goto(f"{self.base}/")
        await expect(self.page.get_by_role("heading", name="Sign in")).to_be_visible()
        await self.page.get_by_label("API key").fill(key)
        await self.page.get_by_role("button", name="Sign in").click()

    async def wait_until_loaded(self) -> None:
        await self.page.wait_for_function(LOADED)

    async def close_templates(self) -> None:
        """The web UI welcomes whoever comes for the first time with its templates."""
        await self.page.get_by_role("button", name="Close dialog").first.click()
        await expect(self.page.get_by_role("button", name="Close dialog")).to_have_count(0)

    async def start(self, key: str) -> None:
        """From the front page to an empty desk."""
        await self.sign_in(key)
        await self.wait_until_loaded()
        await self.close_templates()

    async def open_workflow(self, name: str, document: bytes, kinds: Iterable[str]) -> None:
        """Drops a workflow's file on the canvas; it opens in a tab of its own. kinds: the classes of its nodes."""
        await self._drop(f"{name}.json", "application/json", document, 700, 620)
        await self._wait_for_nodes(kinds)

    async def drop_picture(self, name: str, content: bytes, kinds: Iterable[str]) -> None:
        """On the canvas, where the workflow in it opens. kinds: the classes of its nodes."""
        await self._drop(name, "image/png", content, 700, 620)
        await self._wait_for_nodes(kinds)

    async def _wait_for_nodes(self, kinds: Iterable[str]) -> None:
        await self.page.wait_for_function(
            "kinds => JSON.stringify(app.graph._nodes.map(each => each.type)) === JSON.stringify(kinds)",
            arg=list(kinds),
        )

    async def run(self) -> None:
        await self.page.get_by_test_id("queue-button").click()

    async def cancel(self) -> None:
        await self.page.get_by_role("button", name="Cancel current run").click()

    async def wait_for_active(self, count: int) -> None:
        await expect(self.page.get_by_test_id("queue-overlay-toggle")).to_contain_text(f"{count} active")

    async def wait_for_progress(self, node: int) -> None:
        """A node is half-way, and shows a preview."""
        await self.page.wait_for_function(
            "id => { const node = app.graph.getNodeById(id); return node.progress > 0 && node.imgs?.[0]?.naturalWidth > 0; }",
            arg=node,
        )

    async def wait_for_image(self, node: int) -> str:
        """The address of the picture that a node shows."""
        shown = await self.page.wait_for_function(
            "id => { const image = app.graph.getNodeById(id).imgs?.[0]; return image?.naturalWidth > 0 && image.src; }",
            arg=node,
        )
        return str(await shown.json_value())

    async def colour_of(self, node: int) -> tuple[int, ...]:
        return tuple(await self.page.evaluate(COLOUR, node))

    async def upload_by_widget(self, node: int, name: str, content: bytes) -> None:
        x, y = await self._place(node, "upload")
        await self.page.mouse.move(x, y)
        await self.page.wait_for_function("() => app.canvas.getWidgetAtCursor()?.name === 'upload'")
        async with self.page.expect_file_chooser() as chooser:
            await self.page.mouse.down()
            await self.page.mouse.up()
        await (await chooser.value).set_files({"name": name, "mimeType": "image/png", "buffer": content})

    async def upload_by_drop(self, node: int, name: str, content: bytes) -> None:
        x, y = await self._place(node, None)
        await self._drop(name, "image/png", content, x, y)

    async def wait_for_upload(self, node: int, name: str) -> None:
        """The widget names the file, and the node shows it."""
        await self.page.wait_for_function(
            "([id, name]) => { const node = app.graph.getNodeById(id), image = node.imgs?.[0];"
            " return node.widgets[0].value === name && image?.naturalWidth > 0 && image.src.includes(name); }",
            arg=[node, name],
        )

    async def open_job_list(self) -> Locator:
        """The list of jobs, under the button that counts them."""
        shown = self.page.get_by_test_id("queue-progress-overlay")
        if await shown.get_by_text("Clear queue").count() == 0:
            await self.page.get_by_test_id("queue-overlay-toggle").click()
        await expect(shown.get_by_text("Clear queue")).to_be_visible()
        return shown

    async def open_side_bar(self, name: str) -> None:
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def save_as(self, name: str) -> None:
        await self.page.keyboard.press("Control+s")
        field = self.page.get_by_role("dialog").get_by_role("textbox")
        await field.fill(name)
        async with self.page.expect_response(lambda reply: "/userdata/workflows" in reply.url):
            await field.press("Enter")
        await expect(self.page.get_by_role("dialog")).to_have_count(0)

    def saved(self, name: str) -> Locator:
        """A workflow's line in the side bar."""
        return self.page.get_by_role("treeitem").filter(has_text=name)

    async def choose(self, name: str, action: str) -> None:
        """From the menu of a saved workflow."""
        await self.saved(name).first.click(button="right")
        await self.page.get_by_role("menuitem", name=action).click()

    async def setting(self, name: str) -> Any:
        return await self.page.evaluate("name => app.extensionManager.setting.get(name)", name)

    async def _place(self, node: int, widget: str | None) -> list[float]:
        await self.page.wait_for_function(STEADY)  # a new workflow is moved into sight
        if widget is not None:  # where a widget lies is known once it was drawn
            await self.page.wait_for_function(
                "([id, name]) => app.graph.getNodeById(id).widgets.find(each => each.name === name)?.last_y > 0",
                arg=[node, widget],
            )
        found: list[float] = await self.page.evaluate(PLACE, [node, widget])
        return found

    async def _drop(self, name: str, kind: str, content: bytes, x: float, y: float) -> None:
        await self.page.evaluate(DROP, [name, kind, base64.b64encode(content).decode(), x, y])
