"""Terminals as a person has them: a shell each, opened in the clone, that knows nothing of the others nor of this test's environment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

TIME_LIMIT_S = 240.0
_BLOCK = re.compile(r"<!-- terminal: ([a-z]+)(?:, ([a-zA-Z+ ]+))? -->\n```sh\n(.*?)```", re.DOTALL)
_FAILED = "COMMAND FAILED"


@dataclass(frozen=True, slots=True)
class Block:
    """terminal: in which a person types it. until: "" for its end, else "keeps running" or "until Ctrl+C"."""

    terminal: str
    until: str
    commands: str


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page that name a terminal, in the order of the page."""
    return [Block(*found) for found in _BLOCK.findall(page)]


class Terminal:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def _type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    async def enter(self, commands: str) -> str:
        """What the commands show. Raises AssertionError when one of them fails."""
        mark = f"end-{secrets.token_hex(8)}"
        self._type(f"{commands}\necho {mark}\n")
        said = (await self.read_until(mark)).removesuffix(f"{mark}\n")
        assert _FAILED not in said, said
        return said

    async def start(self, commands: str) -> None:
        """The last of the commands runs on."""
        self._type(commands)

    async def read_until(self, words: str) -> str:
        """What is shown, up to the line with these words. Raises AssertionError when the shell ends before."""
        assert self._process.stdout is not None
        said = ""
        async with asyncio.timeout(TIME_LIMIT_S):
            while words not in said:
                line = (await self._process.stdout.readline()).decode()
                assert line, f"the terminal ended: {said}"
                said += line
        return said

    async def close(self, sent: signal.Signals = signal.SIGTERM) -> str:
        """Ends the shell and what runs in it. What was shown since."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, sent)
        self._process.stdin.close()
        async with asyncio.timeout(TIME_LIMIT_S):
            said = await self._process.stdout.read()
            await self._process.wait()
        return said.decode()


@asynccontextmanager
async def terminal(folder: Path) -> AsyncIterator[Terminal]:
    programs = [part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != Path(sys.executable).parent]
    process = await asyncio.create_subprocess_exec(
        "bash",
        "--noprofile",
        "--norc",
        cwd=folder,
        env={"PATH": os.pathsep.join(programs), "HOME": str(folder.parent), "LANG": "C.UTF-8"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    opened = Terminal(process)
    # A person sees a failure by its words and types on; the test has to be told.
    await opened.enter(f"set -E; trap 'echo \"{_FAILED}: $BASH_COMMAND\"' ERR")
    try:
        yield opened
    finally:
        if process.returncode is None:
            await opened.close()


async def follow(page: str, folder: Path, ready: str, after: Callable[[Block], Awaitable[None]]) -> str:
    """Types a page's blocks into its terminals. ready: what answers 200 once the gate is up. after: called after each block. All that was shown."""
    said = ""
    async with contextlib.AsyncExitStack() as stack:
        terminals: dict[str, Terminal] = {}
        for block in blocks_of(page):
            if block.terminal not in terminals:
                terminals[block.terminal] = await stack.enter_async_context(terminal(folder))
            used = terminals[block.terminal]
            if block.until == "keeps running":
                await used.start(block.commands)
                await answers(ready)
            elif block.until == "until Ctrl+C":
                await used.start(block.commands)
                said += await used.read_until("Press Ctrl+C")
                said += await used.close(signal.SIGINT)
            else:
                assert not block.until, block
                said += await used.enter(block.commands)
            await after(block)
    return said


async def answers(address: str, headers: dict[str, str] | None = None) -> None:
    """Asks until it is 200. Raises AssertionError with the last answer when it is not in time."""
    last = "nothing"
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(TIME_LIMIT_S):
            while True:
                try:
                    async with session.get(address, headers=headers) as response:
                        if response.status == 200:
                            return
                        last = f"{response.status} {await response.text()}"
                except aiohttp.ClientConnectionError as error:
                    last = repr(error)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{address} is not 200 within {TIME_LIMIT_S:.0f} s: its last answer was {last}") from None
