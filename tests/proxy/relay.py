"""A TCP relay between the gate and ComfyUI, which loses what the test says: the submission itself, or its answer; or is not there for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from urllib.parse import urlsplit


class Loses(Enum):
    NOTHING = "nothing"
    SUBMISSION = "submission"
    """ComfyUI never has it."""
    ANSWER = "answer"
    """ComfyUI has it, and the gate is not told."""
    NOTHING_YET = "nothing yet"
    """The answer comes when the test says so."""


class Relay:
    """url: where the gate finds ComfyUI. submissions: how many came by."""

    def __init__(self, comfy_url: str) -> None:
        parts = urlsplit(comfy_url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self.loses = Loses.NOTHING
        self.hangs_up = True
        """After it has lost something; else it is silent."""
        self.submissions = 0
        self.has_answer, self.may_answer = asyncio.Event(), asyncio.Event()
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._own_port = 0

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Relay]:
        await self.begin()
        try:
            yield self
        finally:
            await self.end()

    async def begin(self) -> None:
        """Listens; a second time where it did the first time."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._own_port)
        self._own_port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._own_port}"

    async def end(self) -> None:
        """Breaks off all connections, and refuses new ones. ComfyUI itself goes on."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        back: asyncio.StreamWriter | None = None
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                answers, back = await asyncio.open_connection(self._host, self._port)
                await self._serve(reader, writer, answers, back)
        finally:
            for each in (writer, back):
                if each is not None:
                    each.transport.abort()
            self._tasks.discard(task)

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        loses = Loses.NOTHING

        async def forth() -> None:
            nonlocal loses
            while data := await reader.read(65536):
                if data.startswith(b"POST /prompt "):
                    self.submissions += 1
                    loses = self.loses
                    if loses is Loses.SUBMISSION:
                        self.has_answer.set()
                        if self.hangs_up:
                            return
                        await asyncio.Event().wait()
                back.write(data)

        async def home() -> None:
            while data := await answers.read(65536):
                if loses is not Loses.NOTHING:
                    self.has_answer.set()
                if loses is Loses.ANSWER:
                    if self.hangs_up:
                        return
                    continue
                if loses is Loses.NOTHING_YET:
                    await self.may_answer.wait()
                writer.write(data)

        ways = [asyncio.ensure_future(forth()), asyncio.ensure_future(home())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
