"""A tenant's web UI before two ComfyUIs: what runs at the second one is seen as everything is, and when that one is killed the page sees a pause.

Before stand-ins and, where COMFYUI_COMMAND says how one is started, real ones.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from playwright.async_api import Browser, Page, expect

from standin import StandIn
from tests.browser import graphs
from tests.browser.conftest import OUTPUT, POLICY, House
from tests.browser.webui import Screenshots, WebUi
from tests.contract import slow_node
from tests.contract.driver import slow
from tests.faults.programs import COMMAND, ComfyUI
from tests.harness import running_gate
from tests.several.world import BOTH, FIRST, SECOND

pytestmark = pytest.mark.asyncio(loop_scope="session")

TARGETS = [pytest.param("standin", id="standin")]
if COMMAND:
    TARGETS.append(pytest.param("real", id="real", marks=[pytest.mark.live, pytest.mark.timeout(2 * ComfyUI.GUARD_S)]))


class Mortal(Protocol):
    """A ComfyUI that can be killed."""

    @property
    def url(self) -> str: ...

    async def start(self) -> None: ...

    async def kill(self) -> None: ...


class MortalStandIn:
    def __init__(self, folder: Path) -> None:
        self._comfy = StandIn(folder)
        self._port = 0

    @property
    def url(self) -> str:
        return self._comfy.url

    async def start(self) -> None:
        await self._comfy.start(port=self._port)
        self._port = self._comfy.port

    async def kill(self) -> None:
        await self._comfy.stop()


class MortalProgram:
    def __init__(self, folder: Path) -> None:
        self._program = ComfyUI(folder.name, folder.parent, real=COMMAND)
        self._program.prepare(slow_node)

    @property
    def url(self) -> str:
        return self._program.url

    async def start(self) -> None:
        await self._program.start()
        await self._program.is_up()

    async def kill(self) -> None:
        await self._program.kill()


@asynccontextmanager
async def two_comfyuis(target: str, folder: Path) -> AsyncIterator[dict[str, Mortal]]:
    async with AsyncExitStack() as stack:
        made: dict[str, Mortal] = {}
        for name in BOTH:
            comfy: Mortal = MortalStandIn(folder / name) if target == "standin" else MortalProgram(folder / name)
            made[name] = comfy
            stack.push_async_callback(comfy.kill)
            await comfy.start()
        yield made


@asynccontextmanager
async def house_before(two: dict[str, Mortal], target: str, chromium: Browser, folder: Path) -> AsyncIterator[House]:
    """Before two that have one job each at most."""
    tables = [
        f'[[comfyui]]\nname = "{name}"\nurl = "{comfy.url}"\ndirectory = "{folder / name}"\nwindow = 1\ngone_after = "1s"\n'
        for name, comfy in two.items()
    ]
    async with running_gate(folder, "", more=POLICY + "".join(tables)) as gate:
        house = House(gate, chromium, target, folder, None)
        for name in ("amber", "birch"):
            await house.admit(name)
        yield house


@asynccontextmanager
async def ambers_page(
    target: str, chromium: Browser, folder: Path
) -> AsyncIterator[tuple[dict[str, Mortal], House, WebUi, list[str]]]:
    """Open, with the sockets of it that were closed."""
    async with (
        two_comfyuis(target, folder) as two,
        house_before(two, target, chromium, folder) as house,
        house.person() as page,
    ):
        closed = _watch_sockets(page)
        ui = WebUi(page, house.url)
        await ui.start(house.keys["amber"])
        yield two, house, ui, closed


@pytest.mark.parametrize("target", TARGETS)
async def test_a_tenant_works_before_two_of_which_one_is_killed(target: str, chromium: Browser, tmp_path: Path) -> None:
    shots = Screenshots(OUTPUT / f"several-{target}")
    async with ambers_page(target, chromium, tmp_path) as (two, house, ui, closed):
        busy = await _occupy_the_first(house)
        await _run_at_the_second(ui, shots)
        await _use_what_it_made(ui, shots)
        await _cancel_there(ui)
        await ui.open_workflow("lost", graphs.slow_picture("lost", seconds=6.0, steps=30), graphs.SLOW_KINDS)
        await ui.run()
        await ui.wait_for_progress(2)
        await ui.run()
        await ui.wait_for_active(2)
        await two[SECOND].kill()
        await shots.take(ui.page, "killed")
        await _interrupt(house, busy)
        address = await ui.wait_for_image(3)
        assert "lost_0000" in address
        assert SECOND not in address
        assert await ui.colour_of(3) == graphs.BLUE
        await ui.wait_for_active(0)
        await shots.take(ui.page, "gone-on")
        assert await _ends(house) == ["completed", "completed", "cancelled", "completed", "completed"]
        assert closed == [], "the page has noticed nothing"


@pytest.mark.parametrize("target", TARGETS)
async def test_a_page_that_is_open_goes_on_while_the_first_one_is_away(
    target: str, chromium: Browser, tmp_path: Path
) -> None:
    async with ambers_page(target, chromium, tmp_path) as (two, house, ui, closed):
        await two[FIRST].kill()
        await ui.open_workflow("away", graphs.slow_picture("away"), graphs.SLOW_KINDS)
        await ui.run()
        await ui.wait_for_progress(2)
        assert f"subfolder=%40{SECOND}" in await ui.wait_for_image(3)
        assert await ui.colour_of(3) == graphs.BLUE
        await ui.wait_for_active(0)
        await two[FIRST].start()
        await _run_an_upload(ui)
        assert await _ends(house) == ["completed", "completed"]
        assert closed == [], "the page has noticed nothing"


async def _run_an_upload(ui: WebUi) -> None:
    await ui.open_workflow("back", graphs.kept("choose.png", "back"), graphs.KEPT_KINDS)
    await ui.upload_by_widget(1, "red.png", graphs.picture(graphs.RED))
    await ui.wait_for_upload(1, "red.png")
    await ui.run()
    assert "filename=back_00001_.png" in await ui.wait_for_image(3)
    assert await ui.colour_of(3) == graphs.RED
    await ui.wait_for_active(0)


def _watch_sockets(page: Page) -> list[str]:
    """Addresses of the page's WebSockets that were closed."""
    closed: list[str] = []
    page.on("websocket", lambda socket: socket.on("close", lambda _: closed.append(socket.url)))
    return closed


async def _occupy_the_first(house: House) -> str:
    headers = {"Authorization": f"Bearer {house.keys['birch']}"}
    answer = await house.gate.json("POST", "/prompt", None, headers=headers, json={"prompt": slow(300.0, 3000)})
    return str(answer["prompt_id"])


async def _interrupt(house: House, prompt_id: str) -> None:
    headers = {"Authorization": f"Bearer {house.keys['birch']}"}
    assert await house.gate.status("POST", "/interrupt", None, headers=headers, json={"prompt_id": prompt_id}) == 200


async def _run_at_the_second(ui: WebUi, shots: Screenshots) -> None:
    """An upload, which lies at the first."""
    await ui.open_workflow("upload", graphs.kept("choose.png", "made"), graphs.KEPT_KINDS)
    await ui.upload_by_widget(1, "green.png", graphs.picture(graphs.GREEN))
    await ui.wait_for_upload(1, "green.png")
    await ui.run()
    await ui.wait_for_progress(2)
    await shots.take(ui.page, "running-there")
    address = await ui.wait_for_image(3)
    assert "filename=made_00001_.png" in address
    assert f"subfolder=%40{SECOND}" in address
    assert await ui.colour_of(3) == graphs.GREEN
    await ui.wait_for_active(0)


async def _use_what_it_made(ui: WebUi, shots: Screenshots) -> None:
    name = f"@{SECOND}/made_00001_.png [output]"
    await ui.open_workflow("chained", graphs.kept(name, "chained"), graphs.KEPT_KINDS)
    await ui.run()
    await ui.wait_for_image(3)
    assert await ui.colour_of(3) == graphs.GREEN
    await ui.wait_for_active(0)
    await shots.take(ui.page, "chained")


async def _cancel_there(ui: WebUi) -> None:
    await ui.open_workflow("long", graphs.slow_picture("long", seconds=300, steps=3000), graphs.SLOW_KINDS)
    await ui.run()
    await ui.wait_for_progress(2)
    await ui.cancel()
    await ui.wait_for_active(0)
    jobs = await ui.open_job_list()
    await expect(jobs.get_by_text("Failed", exact=True).first).to_be_visible()


async def _ends(house: House) -> list[str]:
    """Of all jobs of amber's, oldest first."""
    headers = {"Authorization": f"Bearer {house.keys['amber']}"}
    listed = await house.gate.json("GET", "/api/jobs?limit=100", None, headers=headers)
    return [job["status"] for job in sorted(listed["jobs"], key=lambda job: job["create_time"])]
