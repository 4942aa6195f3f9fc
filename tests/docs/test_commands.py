"""The commands of the documentation, pasted into a shell as a newcomer would: against the stand-in, with free ports in the place of the usual ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.standin import StandIn
from tests.docs.refusals import ROOT

TIME_LIMIT_S = 90.0
PNG = b"\x89PNG\r\n\x1a\n"
_BLOCK = re.compile(r"<!-- tested(?:: (background))? -->\n```sh\n(.*?)```", re.DOTALL)
pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("curl") or not shutil.which("bash"), reason="needs bash and curl"
)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def script_of(page: str, ops_port: int) -> str:
    """The tested blocks of a page as one script. A background block is started, and the rest waits until the gate is ready."""
    blocks = _BLOCK.findall(page)
    assert blocks, "no block is marked as tested"
    lines = ["set -euo pipefail", "trap 'kill $(jobs -p); wait' EXIT"]
    for background, commands in blocks:
        if background:
            ready = f"http://127.0.0.1:{ops_port}/readyz"
            lines += [
                f"( exec {commands.strip()} ) 2> serve.log &",
                f"curl -sf --retry 60 --retry-delay 1 --retry-all-errors {ready}",
            ]
        else:
            lines.append(commands)
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def shell(folder: Path, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with this environment's programs on its PATH, in a group of its own that ends with the block."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "PATH": programs},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        if process.stdout is not None:
            await process.stdout.read()
        await process.wait()


async def run(folder: Path, script: str) -> str:
    """Runs a script to its end. Raises when it fails or takes too long."""
    async with shell(folder, "bash", "-c", script) as process, asyncio.timeout(TIME_LIMIT_S):
        output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text
    return text


@pytest.fixture
async def clone(tmp_path: Path, comfy: StandIn) -> tuple[Path, dict[str, str]]:
    """A folder with the shipped configuration, and what to put in the place of its ports."""
    public, ops = free_ports(2)
    ports = {"8190": str(public), "9190": str(ops), "8188": comfy.url.rpartition(":")[2]}
    text = replaced((ROOT / "config.toml").read_text(encoding="utf-8"), ports)
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "config.toml").write_text(text, encoding="utf-8")
    return folder, ports


def replaced(text: str, ports: dict[str, str]) -> str:
    return re.sub(r"\b(8190|9190|8188)\b", lambda found: ports[found[1]], text)


async def test_the_quick_start_works(clone: tuple[Path, dict[str, str]]) -> None:
    folder, ports = clone
    page = replaced((ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8"), ports)

    said = await run(folder, script_of(page, int(ports["9190"])))

    assert "credential_missing" in said
    assert '"queue_running":[]' in said
    assert '"tenant":"acme"' in said
    assert "class-not-permitted" in said
    assert "allow = [" in said
    assert (folder / "gate" / "hello.png").read_bytes().startswith(PNG)
    assert "is good: 1 tenant, 1 key" in said


async def test_the_readme_works(clone: tuple[Path, dict[str, str]]) -> None:
    folder, ports = clone
    page = replaced((ROOT / "README.md").read_text(encoding="utf-8"), ports)

    said = await run(folder, script_of(page, int(ports["9190"])))

    assert "comfyui_version" in said
    assert '"argv":[]' in said


async def test_commands_named_in_the_documentation_exist() -> None:
    from typer.testing import CliRunner

    from proxy.cli import app

    texts = [file.read_text(encoding="utf-8") for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]]
    named = {found for text in texts for found in re.findall(r"comfygate ((?:keys |policy )?[a-z]+)", text)}
    commands = {"serve", "check", "demo", "audit"} | {f"keys {name}" for name in ("create", "list", "revoke", "rotate")}
    commands |= {"policy learn", "policy test"}

    assert commands <= named
    for command in commands:
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0


async def test_what_the_demo_prints_works_when_pasted(tmp_path: Path) -> None:
    async with shell(tmp_path, "comfygate", "demo", "--port", str(free_ports(1)[0])) as demo:
        assert demo.stdout is not None
        printed = ""
        async with asyncio.timeout(TIME_LIMIT_S):
            while "Press Ctrl+C" not in printed:
                line = await demo.stdout.readline()
                assert line, f"the demo ended: {printed}"
                printed += line.decode()
        commands = [line.strip() for line in printed.splitlines() if line.startswith("  curl ")]
        without_key, submit, own, foreign, picture, refused = commands

        assert "HTTP/1.1 401" in await run(tmp_path, without_key)
        prompt_id = json.loads(await run(tmp_path, submit))["prompt_id"]
        async with asyncio.timeout(TIME_LIMIT_S):
            while prompt_id not in json.loads(await run(tmp_path, own)):
                await asyncio.sleep(0.1)
        assert json.loads(await run(tmp_path, foreign)) == {}
        await run(tmp_path, picture)
        assert (tmp_path / "demo.png").read_bytes().startswith(PNG)
        assert json.loads(await run(tmp_path, refused))["node_errors"]["1"]["class_type"] == "RunShellCommand"
        demo.send_signal(signal.SIGINT)
        async with asyncio.timeout(TIME_LIMIT_S):
            assert await demo.wait() == 0
