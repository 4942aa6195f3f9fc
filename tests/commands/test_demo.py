"""`comfygate demo`, as a person sees it: what it prints can be pasted, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
import pytest

from proxy.commands.exits import Exit
from standin import StandIn
from tests.commands.cli import comfygate
from tests.commands.served import GUARD_S
from tests.programs import needs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes without asking them")


@dataclass
class Demo:
    process: asyncio.subprocess.Process
    words: str

    def find(self, label: str) -> str:
        found = re.search(rf"^  {label} +(\S+)", self.words, re.MULTILINE)
        assert found, self.words
        return found[1]

    @property
    def commands(self) -> list[str]:
        return re.findall(r"^  (curl .*)$", self.words, re.MULTILINE)

    async def end(self, number: int) -> int:
        self.process.send_signal(number)
        return await self.process.wait()


@asynccontextmanager
async def demo(folder: Path, *arguments: str) -> AsyncIterator[Demo]:
    command = (sys.executable, "-c", "from proxy.commands.main import main; main()", "demo", *arguments)
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.DEVNULL}
    process = await asyncio.create_subprocess_exec(*command, **pipes, env={"TMPDIR": str(folder), "PATH": ""})  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(GUARD_S):
            assert process.stdout is not None
            words = await process.stdout.readuntil(b"Press Ctrl+C to end it.\n")
            yield Demo(process, words.decode())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def paste(command: str, folder: Path) -> bytes:
    process = await asyncio.create_subprocess_shell(
        command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, command
    return out


@needs("curl")
async def test_its_commands_work_when_pasted(tmp_path: Path) -> None:
    async with demo(tmp_path, "--port", "0") as shown, aiohttp.ClientSession() as session:
        nobody, runs, alices, bobs, picture, refused = shown.commands
        assert (await paste(nobody, tmp_path)).startswith(b"HTTP/1.1 401 ")
        answer = orjson.loads(await paste(runs, tmp_path))
        assert answer["node_errors"] == {}
        while answer["prompt_id"] not in orjson.loads(await paste(alices, tmp_path)):
            pass
        assert orjson.loads(await paste(bobs, tmp_path)) == {}
        await paste(picture, tmp_path)
        assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
        refusal = orjson.loads(await paste(refused, tmp_path))
        assert list(refusal["node_errors"]) == ["1"]
        async with session.get(shown.find("health")) as response:
            assert response.status == 200
        async with session.get(shown.find("web UI")) as response:
            assert "key" in await response.text()
        assert await shown.end(signal.SIGINT) == Exit.OK
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("comfygate-demo-")]


async def test_a_taken_port_gives_way(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with demo(tmp_path, "--port", str(port)) as shown:
            assert f":{port}" not in shown.find("gate")
            assert await shown.end(signal.SIGTERM) == Exit.OK


async def test_a_real_comfyui_may_stand_behind_it(tmp_path: Path, comfy: StandIn) -> None:
    async with demo(tmp_path, "--port", "0", "--upstream", comfy.url) as shown, aiohttp.ClientSession() as session:
        assert f"ComfyUI at {comfy.url}" in shown.words
        while True:
            async with session.get(shown.find("health")) as response:
                if response.status == 200:
                    break
        headers = {"X-API-Key": shown.find("alice's key")}
        async with session.get(shown.find("gate") + "/features", headers=headers) as response:
            assert response.status == 200
        assert await shown.end(signal.SIGTERM) == Exit.OK
    assert comfy.received


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--upstream", "127.0.0.1:8188"), "write ComfyUI's address as"),
        (("--upstream", "http://127.0.0.1:8188/api"), "without a path"),
        (("--port", "99999"), "--port"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    answer = comfygate("demo", *arguments)
    assert answer.code != Exit.OK
    assert said in answer.err


async def test_the_highest_ports_are_ports(tmp_path: Path) -> None:
    async with demo(tmp_path, "--port", "65535") as running:
        assert running.find("health").endswith("/readyz")
