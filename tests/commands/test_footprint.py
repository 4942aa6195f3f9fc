"""A running gate loads what it uses: nothing of other commands and of the codecs, and without Redis and token issuers nothing of either."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
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


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """Modules of a gate that was started, asked for something, and stopped."""
    return frozenset(asyncio.run(_modules(tmp_path_factory.mktemp("footprint"))).split())


async def _modules(folder: Path) -> str:
    comfy = StandIn(folder / "comfyui")
    await comfy.start()
    try:
        config, keys = write_config(folder, comfy.url)
        async with served(config, keys, before=TELL) as gate:
            for path in ("/object_info", "/queue", "/features", "/gate/me?format=json"):
                assert (await gate.ask("GET", path, headers={"Accept-Encoding": "identity"}))[0] == 200
            await _use(gate)
            gate.process.process.terminate()
            return await gate.process.said("loaded: ")
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
def test_what_this_gate_does_not_need_is_not_loaded(loaded: frozenset[str], name: str) -> None:
    assert {"proxy.pipeline", "proxy.commands.serving"} <= loaded
    assert name not in loaded
