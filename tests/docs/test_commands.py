"""The commands of the documentation, pasted as a newcomer would: into a shell of its own for each terminal, against the stand-in, on free ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.auth.api_keys import hash_key
from standin import StandIn
from tests.docs.refusals import ROOT
from tests.docs.terminals import TIME_LIMIT_S, Block, answers, blocks_of, follow, terminal
from tests.ports import free_port, free_ports
from tests.programs import needs

# Dozens of commands, each a process of its own.
WALK_LIMIT_S = 900
PNG = b"\x89PNG\r\n\x1a\n"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))]
pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="commands of bash"), needs("bash", "curl")]


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


@dataclass
class Clone:
    """What `git clone` and `make install` leave, with the ports that the commands get in the place of the usual ones."""

    folder: Path
    ports: dict[str, str]

    @property
    def config(self) -> Path:
        return self.folder / "gate" / "config.toml"

    @property
    def ready(self) -> str:
        return f"http://127.0.0.1:{self.ports['9190']}/readyz"

    def replaced(self, text: str) -> str:
        return re.sub(r"\b(8190|9190|8188)\b", lambda found: self.ports[found[1]], text)

    async def follow(self, page: str) -> str:
        return await follow(
            self.replaced((ROOT / page).read_text(encoding="utf-8")), self.folder, self.ready, self._after
        )

    async def _after(self, block: Block) -> None:
        if "comfygate init" in block.commands:  # who has other ports edits the file here, as the page says
            self.config.write_text(self.replaced(self.config.read_text(encoding="utf-8")), encoding="utf-8")
        if "tee bea.key" in block.commands:  # the gate knows it "within a second", says the page
            key = (self.folder / "gate" / "bea.key").read_text(encoding="utf-8").splitlines()[-1]
            await answers(f"http://127.0.0.1:{self.ports['8190']}/gate/me", {"Authorization": f"Bearer {key}"})


@pytest.fixture
def clone(tmp_path: Path, comfy: StandIn) -> Clone:
    return clone_into(tmp_path, comfy)


def clone_into(tmp_path: Path, comfy: StandIn) -> Clone:
    public, ops = free_ports(2)
    folder = tmp_path / "comfygate"
    (folder / ".venv").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv" / "bin").symlink_to(Path(sys.prefix) / "bin")
    (folder / ".venv" / ".runtime").touch()  # installed, as tests/setup tries it
    return Clone(folder, {"8190": str(public), "9190": str(ops), "8188": comfy.url.rpartition(":")[2]})


@pytest.mark.timeout(WALK_LIMIT_S)
async def test_the_readme_the_quick_start_and_functions_work(clone: Clone) -> None:
    """In terminals that are closed between the pages: each page stands on its own."""
    said = await clone.follow("README.md")

    assert "bob's key" in said
    assert "is good: 1 tenant, 1 key" in said
    assert said.count("\ncg_") == 1, "the key is shown"
    assert '"argv":[]' in said
    assert stat.S_IMODE((clone.folder / "gate").stat().st_mode) == 0o700

    said = await clone.follow("docs/quickstart.md")

    assert "credential_missing" in said
    assert '"queue_running":[]' in said
    assert '"tenant":"acme"' in said
    assert "my laptop" in said
    assert (clone.folder / "gate" / "hello.png").read_bytes().startswith(PNG)
    assert "class-not-permitted" in said
    assert "is good: 3 tenants, 1 key" in said
    friend, history = said.splitlines()[-2:]
    assert json.loads(friend)["tenant"] == "ann"
    assert json.loads(history) == {}
    assert said.count("\ncg_") == 2

    began_s = time.monotonic()
    said = await clone.follow("docs/functions.md")
    print(f"docs/functions.md, from a workflow to a call and further: {time.monotonic() - began_s:.0f} s")

    assert "Wrote functions/hello.toml and .json" in said
    assert "(acme)" in said
    assert (clone.folder / "gate" / "green.png").read_bytes().startswith(PNG)
    assert len(list((clone.folder / "gate").glob("hello_*.png"))) == 1


def test_from_a_workflow_to_a_call_it_takes_as_many_commands_as_the_page_says() -> None:
    page = (ROOT / "docs" / "functions.md").read_text(encoding="utf-8")
    section = page.partition("## From a workflow to a call")[2].partition("\n## ")[0]
    commands = [
        line
        for block in blocks_of(section)
        if block.terminal == "client"
        for line in re.sub(r"<<'END'.*?^END$", "", block.commands, flags=re.DOTALL | re.MULTILINE).splitlines()
        if not line.startswith((". ", "cd "))
    ]
    ours = [line for line in commands if "comfygate " in line]
    words = {4: "four", 5: "five", 6: "six"}
    assert f"takes {len(commands)} commands, of which {words[len(ours)]} are `comfygate`'s" in page, commands


@pytest.mark.timeout(WALK_LIMIT_S)
async def test_a_backup_is_restored_and_an_upgrade_checked(clone: Clone) -> None:
    await clone.follow("README.md")
    key = (clone.folder / "gate" / "acme.key").read_text(encoding="utf-8").splitlines()[-1]
    async with terminal(clone.folder) as upstream:  # `git pull` finds nothing new
        await upstream.enter(
            "git init -q --bare ../origin.git && git init -q -b main && git remote add origin ../origin.git"
        )
        await upstream.enter(
            "git -c user.name=a -c user.email=a@example.com commit -q --allow-empty -m first && git push -q -u origin main"
        )

    said = await clone.follow("docs/operations.md")
    assert "is good: 1 tenant, 1 key" in said
    assert hash_key(key) in clone.config.read_text(encoding="utf-8")
    assert (clone.folder / "gate-before" / "config.toml").read_text(encoding="utf-8") == clone.config.read_text(
        encoding="utf-8"
    )

    said = await clone.follow("docs/upgrading.md")
    assert "is good: 1 tenant, 1 key" in said


@pytest.mark.timeout(WALK_LIMIT_S)
async def test_the_readme_followed_twice_keeps_keys_and_tenants(clone: Clone) -> None:
    await clone.follow("README.md")
    first = clone.config.read_text(encoding="utf-8")
    pasted = [
        block for block in blocks_of((ROOT / "README.md").read_text(encoding="utf-8")) if "init" in block.commands
    ]

    async with terminal(clone.folder) as again:
        with pytest.raises(AssertionError, match="is there already and stays as it is"):
            await again.enter(pasted[0].commands)

    assert clone.config.read_text(encoding="utf-8") == first


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_can_be_pasted_wrong(page: Path) -> None:
    """An unquoted `<words>` makes a shell read a file or write one; a failed curl with -s and -f alone shows nothing."""
    for commands in re.findall(r"```(?:sh|powershell|bash)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        bare = re.sub(r"""'[^']*'|"[^"]*"|<<'?END'?""", "", commands)
        assert not re.search(r"<[A-Za-z]", bare), commands
        assert not re.search(r"curl (?:-sf|-fs) ", commands), commands
        assert not re.search(r"(?m)^ *(?:sudo )?cp (?!-n|-a)[^\n]*config\.toml", commands), commands


async def test_commands_named_in_the_documentation_exist() -> None:
    from typer.testing import CliRunner

    from proxy.commands.command_line import app

    texts = [file.read_text(encoding="utf-8") for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]]
    named = {found for text in texts for found in re.findall(r"comfygate ((?:keys |policy )?[a-z]+)", text)}
    commands = {"serve", "check", "demo", "audit"} | {f"keys {name}" for name in ("create", "list", "revoke", "rotate")}
    commands |= {"policy learn", "policy test"}

    assert commands <= named
    for command in commands:
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0


async def test_what_the_demo_prints_works_when_pasted(tmp_path: Path) -> None:
    async with shell(tmp_path, "comfygate", "demo", "--port", str(free_port())) as demo:
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
