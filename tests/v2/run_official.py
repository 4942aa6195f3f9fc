"""What `make clients` runs besides test_*.py: the rows of surface.py with Comfy-Org's own server, for the table of docs/compatibility.md."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from standin import StandIn
from tests.clients.runs import REAL_URL
from tests.v2.bodies import Judges
from tests.v2.official import TOKEN, VERSION, running_proxy
from tests.v2.recorder import recording
from tests.v2.report import record
from tests.v2.sdk import running_sdk
from tests.v2.surface import ROWS, outcomes


@pytest.mark.timeout(300)
async def test_the_rows_run_with_the_official_server(target: str, kind: str, tmp_path: Path, judges: Judges) -> None:
    """It is no duty of ours that all of them work there: what happens instead is the table's."""
    comfy = StandIn(tmp_path / "comfyui", frontend=False)
    if target == "standin":
        await comfy.start()
    upstream = comfy.url if target == "standin" else REAL_URL
    async with (
        running_proxy(tmp_path / "proxy", upstream) as url,
        recording(url) as recorder,
        running_sdk(kind, tmp_path, recorder.url, TOKEN) as sdk,
    ):
        found = await outcomes(sdk, recorder, judges)
        name = "stand-in" if target == "standin" else f"ComfyUI {await version_of(upstream)}"
    await comfy.stop()
    record(f"comfy-api-proxy {VERSION}", name, kind, found)
    assert found[ROWS[0].call, ROWS[0].what] == "works"


async def version_of(upstream: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{upstream}/system_stats") as answer:
        return str((await answer.json())["system"]["comfyui_version"])
