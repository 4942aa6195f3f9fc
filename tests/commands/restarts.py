"""A gate that is started again and again on one socket, as by a service manager, and clients that ask all the while and never ask twice."""

from __future__ import annotations

import asyncio
import http.client
import select
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.commands.served import COMMAND, GUARD_S, Process
from tests.contract.driver import saving
from tests.harness import write_config

PAUSE_S = 0.005
"""Between a client's answer and its next request."""
_PASSES = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="public")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Outage:
    """told_s: when the gate was sent the signal; ended_s: when it was gone. By the monotonic clock, as all here."""

    told_s: float
    ended_s: float


@dataclass
class Manager:
    """Holds the socket. life: the gate that runs."""

    config: Path
    listening: socket.socket
    life: Process
    lines: list[str] = field(default_factory=list)
    """What all lives before said."""

    @property
    def port(self) -> int:
        return int(self.listening.getsockname()[1])

    async def restart(self, number: int) -> Outage:
        """Sends the signal and starts the next life when this one is gone."""
        told_s = time.monotonic()
        self.life.process.send_signal(number)
        await self.life.ended()
        outage = Outage(told_s, time.monotonic())
        self.lines += self.life.lines
        self.life = await started_on(self.listening, self.config)
        await self.life.said("gate on ")
        return outage


async def started_on(listening: socket.socket, config: Path, command: str = "serve") -> Process:
    """A gate, or another command, that is passed the socket."""
    number = listening.fileno()
    process = Process(
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PASSES, str(number), sys.executable, "-c", COMMAND, command, "--config", str(config),
            pass_fds=[number],
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    )  # fmt: skip
    process.listening = asyncio.ensure_future(process.listen())
    return process


@contextmanager
def bound() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        yield listening


@asynccontextmanager
async def managed(config: Path, listening: socket.socket) -> AsyncIterator[Manager]:
    """Killed with the block. The configuration names the socket's port."""
    manager = Manager(config, listening, await started_on(listening, config))
    try:
        async with asyncio.timeout(GUARD_S):
            await manager.life.said("gate on ")
            yield manager
    finally:
        if manager.life.process.returncode is None:
            manager.life.process.kill()
        await manager.life.ended()
        if manager.life.listening is not None:
            await manager.life.listening


def configured(folder: Path, upstream: str, listening: socket.socket, **more: str) -> tuple[Path, dict[str, str]]:
    """With the port of the socket, and no other address but a free one for operators."""
    file, keys = write_config(folder, upstream, **more)
    text = file.read_text(encoding="utf-8")
    port = listening.getsockname()[1]
    file.write_text(text.replace("[server]\nport = 0", f"[server]\nport = {port}"), encoding="utf-8")
    return file, keys


async def job_of(manager: Manager, key: str) -> str:
    """The path at which a submitted job is asked after."""
    url = f"http://127.0.0.1:{manager.port}"
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/prompt", json={"prompt": saving("kept")}) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return f"/api/jobs/{(await answer.json())['prompt_id']}"


@dataclass(frozen=True)
class Broken:
    sent_s: float
    broke_s: float
    error: Exception

    def was_under_way(self, outage: Outage) -> bool:
        return self.sent_s < outage.ended_s and self.broke_s > outage.told_s


class Poller(threading.Thread):
    """One client. looks: whether its kept connection has ended, before it asks on it, as the pools of most HTTP clients do."""

    def __init__(self, port: int, path: str, key: str, *, is_kept: bool, looks: bool) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._path = path
        self._headers = {"Authorization": f"Bearer {key}", "Connection": "keep-alive" if is_kept else "close"}
        self._looks = looks
        self._stop_asking = threading.Event()
        self.statuses: list[int] = []
        self.broken: list[Broken] = []
        self.connections = 0

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop_asking.wait(PAUSE_S):
            if connection is None or connection.sock is None or (self._looks and _has_ended(connection.sock)):
                if connection is not None:
                    connection.close()
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=GUARD_S)
                self.connections += 1
            sent_s = time.monotonic()
            try:
                connection.request("GET", self._path, headers=self._headers)
                answer = connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(Broken(sent_s, time.monotonic(), error))
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    async def asks(self, times: int) -> None:
        """Waits for so many more answers."""
        so_far = len(self.statuses)
        while len(self.statuses) < so_far + times:
            await asyncio.sleep(PAUSE_S)

    def end(self) -> None:
        self._stop_asking.set()
        self.join()


def _has_ended(found: socket.socket) -> bool:
    """Idle: what could be read is its end."""
    return bool(select.select([found], [], [], 0)[0])


async def all_ask(pollers: list[Poller], times: int = 10) -> None:
    """Waits until each has been answered so many times more."""
    await asyncio.gather(*(each.asks(times) for each in pollers))


@contextmanager
def polling(port: int, path: str, key: str, *, each: int = 4, looks: bool = False) -> Iterator[list[Poller]]:
    """So many clients with kept connections, and so many that connect anew each time."""
    pollers = [Poller(port, path, key, is_kept=is_kept, looks=looks) for is_kept in (True, False) for _ in range(each)]
    for poller in pollers:
        poller.start()
    try:
        yield pollers
    finally:
        for poller in pollers:
            poller.end()
