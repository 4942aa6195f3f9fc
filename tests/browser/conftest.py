"""A real Chromium, and a gate with two tenants that nobody else uses, before the stand-in and, where COMFYUI_URL is set, a real ComfyUI."""

from __future__ import annotations

import importlib.metadata
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from proxy.auth import key_file
from standin import StandIn
from tests.browser.webui import WebUi
from tests.clients.record import Measurement, record
from tests.harness import Running, running_gate
from tests.programs import needs

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page

OUTPUT = Path(__file__).parents[2] / "test-output" / "browser"
REAL_URL = os.environ.get("COMFYUI_URL", "").rstrip("/")
TIMEOUT_MS = 240_000
"""As long as a person would wait for the web UI on a machine that has much else to do."""
TEST_LIMIT_S = 900
CHROMIUM_OPTIONS = (
    "--no-sandbox",  # the tests may run as root, where Chromium has no sandbox; it opens pages of ours only
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but loopback is reached
)
POLICY = """
[policies.default.inputs]
"EmptyImage.width" = { max = 512 }
[limits.few]
prompts = "1/minute"
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs_chromium = needs("chromium")
    for item in items:
        if item.nodeid.startswith("tests/browser/"):
            item.add_marker(needs_chromium)
            item.add_marker(pytest.mark.timeout(TEST_LIMIT_S))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=TIMEOUT_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(CHROMIUM_OPTIONS)
        )
        yield browser
        await browser.close()


@dataclass
class House:
    """A gate with the tenants amber and birch, whose names in `tenants` and keys in `keys` are new each time."""

    gate: Running
    browser: Browser
    target: str
    folder: Path
    comfy: StandIn | None
    tenants: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.gate.url

    async def admit(self, name: str, limits: str = "default", more: str = "") -> str:
        """Makes a tenant nobody used before, and a key for it. more: lines of its table."""
        tenant = f"{name}-{secrets.token_hex(3)}"
        text = self.gate.config_file.read_text(encoding="utf-8")
        line = f'[tenants.{tenant}]\nlimits = "{limits}"\n{more}'
        self.gate.config_file.write_text(text.replace("[tenants.alice]", f"{line}[tenants.alice]", 1), encoding="utf-8")
        self.tenants[name] = tenant
        self.keys[name] = key_file.create_key(self.gate.config_file, tenant=tenant).text
        assert await self.gate.gate.reload(self.gate.config_file)
        return self.keys[name]

    async def start(self, page: Page, who: str) -> None:
        """Signs in as "tenant" (amber) or as "admin", to an empty desk.

        An admin's settings are ComfyUI's own and outlive a test, so whether it was welcomed before is made certain.
        """
        ui = WebUi(page, self.url)
        if who == "tenant":
            await ui.start(self.keys["amber"])
            return
        assert await self.gate.status("POST", "/settings/Comfy.TutorialCompleted", "admin", json=True) == 200
        await ui.sign_in(self.gate.keys["admin"])
        await ui.wait_until_loaded()

    async def record(self, what: str, loads: Iterable[Measurement] = ()) -> None:
        """Notes for docs/compatibility.md what has worked."""
        stats = await self.gate.json("GET", "/system_stats")
        versions = {each["name"]: each["installed"] for each in stats["system"].get("comfy_package_versions", ())}
        upstream = f"ComfyUI {stats['system']['comfyui_version']}"
        web_ui = versions.get("comfyui-frontend-package") or stats["system"].get("required_frontend_version")
        if self.comfy is not None:
            upstream, web_ui = "stand-in", importlib.metadata.version("comfyui-frontend-package")
        client = f"web UI in Chromium {self.browser.version.partition('.')[0]}"
        record(client=client, version=str(web_ui), upstream=upstream, what=what, loads=loads)

    @asynccontextmanager
    async def person(self, **options: Any) -> AsyncIterator[Page]:
        """A page in a browser profile of its own."""
        context: BrowserContext = await self.browser.new_context(
            **{"viewport": {"width": 1400, "height": 900}} | options
        )
        context.set_default_timeout(TIMEOUT_MS)
        page = await context.new_page()
        try:
            yield page
        except BaseException:
            await page.screenshot(path=OUTPUT / "failed.png")
            raise
        finally:
            await context.close()

    @asynccontextmanager
    async def profile(self, name: str) -> AsyncIterator[Page]:
        """A page in a new browser with a profile on disk: it keeps large files too, as people's browsers do."""
        context = await self.browser.browser_type.launch_persistent_context(
            self.folder / f"profile-{name}",
            executable_path=shutil.which("chromium"),
            args=list(CHROMIUM_OPTIONS),
            viewport={"width": 1400, "height": 900},
        )
        context.set_default_timeout(TIMEOUT_MS)
        try:
            yield context.pages[0]
        finally:
            await context.close()


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def open_house(chromium: Browser, tmp_path: Path) -> OpenHouse:
    """Starts a gate before the stand-in, or before the ComfyUI at `upstream`; `options` go to running_gate."""

    @asynccontextmanager
    async def opened(target: str = "standin", **options: Any) -> AsyncIterator[House]:
        comfy = StandIn(tmp_path / "comfyui") if target == "standin" else None
        if comfy is not None:
            await comfy.start()
        upstream = comfy.url if comfy is not None else REAL_URL
        more = POLICY + options.pop("more", "")
        if comfy is not None:
            options.setdefault("upstream_more", f'directory = "{tmp_path / "comfyui"}"\n')
        try:
            async with running_gate(tmp_path, upstream, more=more, **options) as gate:
                house = House(gate, chromium, target, tmp_path, comfy)
                await house.admit("amber")
                await house.admit("birch")
                yield house
        finally:
            if comfy is not None:
                await comfy.stop()

    return opened


TARGETS = [pytest.param("standin", id="standin")]
if REAL_URL:
    TARGETS.append(pytest.param("real", id="real", marks=pytest.mark.live))
