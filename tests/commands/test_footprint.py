"""A running gate loads what it uses: nothing of other commands and of the codecs, and without Redis and token issuers nothing of either. So it takes as
much memory as docs/operations.md says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import NamedTuple

import aiohttp
import psutil
import pytest

from standin import StandIn
from tests.commands.served import Served, served
from tests.contract.driver import png, saving
from tests.harness import write_config

NOT_NEEDED = (
    "PIL",
    "aiohttp",
    "backports.zstd",
    "blake3",
    "brotli",
    "compression.zstd",
    "configparser",
    "cryptography",
    "jwt",
    "obstore",
    "policy.openapi.document",
    "proxy.commands.command_line",
    "proxy.copies.copier",
    "proxy.pages.docs",
    "proxy.pages.functions",
    "redis",
    "rich",
    "standin",
    "tomlkit",
    "typer",
    "yarl",
)
TELL = "import atexit, sys; atexit.register(lambda: print('loaded:', *sys.modules, file=sys.stderr))"
OTHER_COMMANDS = ("audit", "backup", "check", "connect", "demo", "init", "jobs", "keys", "policy", "routes")


OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
MIB = 1024**2


class Footprint(NamedTuple):
    """modules: when it was asked for something, and stopped. rss_bytes: after its start."""

    modules: frozenset[str]
    rss_bytes: int


@pytest.fixture(scope="module")
def footprint(tmp_path_factory: pytest.TempPathFactory) -> Footprint:
    return asyncio.run(_footprint(tmp_path_factory.mktemp("footprint")))


async def _footprint(folder: Path) -> Footprint:
    comfy = StandIn(folder / "comfyui")
    await comfy.start()
    try:
        config, keys = write_config(folder, comfy.url)
        async with served(config, keys, before=TELL) as gate:
            await gate.process.said("connected to ComfyUI")
            rss_bytes = psutil.Process(gate.process.process.pid).memory_info().rss
            for path in ("/object_info", "/queue", "/features", "/gate/me?format=json"):
                assert (await gate.ask("GET", path, headers={"Accept-Encoding": "identity"}))[0] == 200
            await _use(gate)
            gate.process.process.terminate()
            return Footprint(frozenset((await gate.process.said("loaded: ")).split()), rss_bytes)
    finally:
        await comfy.stop()


async def _use(gate: Served) -> None:
    """An upload, a socket, a job, and a look at the metrics."""
    with aiohttp.MultipartWriter("form-data") as form:
        form.append(png()).set_content_disposition("form-data", name="image", filename="a.png")
    assert (await gate.ask("POST", "/upload/image", data=form))[0] == 200
    async with gate.session.ws_connect(f"{gate.url}/ws", headers=gate.bearer("alice")) as socket:
        assert (await socket.receive_json())["type"] == "status"
        assert (await gate.ask("POST", "/prompt", json={"prompt": saving("footprint")}))[0] == 200
        while (await socket.receive_json())["type"] != "execution_success":
            pass
    assert (await gate.ops("/metrics"))[0] == 200


@pytest.mark.parametrize("name", [*NOT_NEEDED, *(f"proxy.commands.{name}" for name in OTHER_COMMANDS)])
def test_what_this_gate_does_not_need_is_not_loaded(footprint: Footprint, name: str) -> None:
    assert {"proxy.pipeline", "proxy.commands.serving"} <= footprint.modules
    assert name not in footprint.modules


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="how much is resident is counted otherwise")
def test_it_takes_as_much_memory_as_is_said(footprint: Footprint) -> None:
    said = re.search(r"A gate takes some (\d+) MiB after its start", OPERATIONS.read_text(encoding="utf-8"))
    assert said is not None
    assert 0.85 < footprint.rss_bytes / MIB / int(said[1]) < 1.15
