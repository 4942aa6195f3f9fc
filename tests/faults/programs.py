"""ComfyUI, the gate, PostgreSQL and Redis as processes that are killed by their ids and started again: on the same ports, with the same folders."""

from __future__ import annotations

import asyncio
import os
import pwd
import shlex
import shutil
import sqlite3
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import psutil

from proxy.persistence.sqlite_file import STATE_FILE
from tests.faults import recorded_node
from tests.ports import free_port

COMMAND = os.environ.get("COMFYUI_COMMAND", "")
"""Of a real ComfyUI, which is killed and started again: see `ComfyUI.real`."""

ROOT = Path(__file__).resolve().parents[2]
GUARD_S = 240.0
"""Ends a test that would hang; nothing is measured with it."""
NAP_S = 0.01
REDIS = "redis-server"
_UNPRIVILEGED = "nobody"


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@dataclass
class Program(ABC):
    """One that listens on `port`. log: what it says, of all its lives. lives: their process ids, oldest first."""

    name: str
    folder: Path
    port: int = field(default_factory=free_port)
    lives: list[int] = field(default_factory=list)
    user: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    _process: asyncio.subprocess.Process | None = None

    @abstractmethod
    def command(self) -> list[str]: ...

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def guard_s(self) -> float:
        return GUARD_S

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    async def start(self) -> None:
        """Returns at once; see `is_up`."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command(),
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.user,
                env=os.environ | self.environment,
            )
        self.lives.append(self._process.pid)

    async def is_up(self) -> None:
        """Waits until it listens."""
        async with asyncio.timeout(self.guard_s):
            while not await listens(self.port):
                self.check()
                await asyncio.sleep(NAP_S)

    async def has_ended(self) -> None:
        """Waits until it ends by itself."""
        assert self._process is not None
        await self._process.wait()

    def check(self) -> None:
        """AssertionError when it has ended though nobody killed it."""
        if self._process is not None and self._process.returncode is not None:
            raise AssertionError(f"{self.name} ended with {self._process.returncode}:\n{self.last_words()}")

    def last_words(self, lines: int = 40) -> str:
        """Without the clients' asking after their jobs."""
        said = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([line for line in said if "GET /queue" not in line][-lines:])

    async def stop(self) -> int:
        """SIGTERM, as a service manager does it; what it ended with. TimeoutError."""
        process, self._process = self._process, None
        assert process is not None, "it runs"
        process.terminate()
        try:
            async with asyncio.timeout(GUARD_S):
                return await process.wait()
        except TimeoutError:
            self._process = process
            raise

    async def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out: nothing is written, nobody is told."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for child in self.dies_with_it(children):
                with suppress(psutil.NoSuchProcess):  # it may have seen first that the other one is gone
                    child.kill()
            await process.wait()

    def dies_with_it(self, children: Iterable[psutil.Process]) -> Iterable[psutil.Process]:
        return ()


@dataclass
class ComfyUI(Program):
    """The stand-in, or a real one, which writes down what it runs. real: the command of a real one, with {port} and {folder}; empty: the stand-in."""

    GUARD_S: ClassVar[float] = 600.0
    """Before a real one, which takes ten seconds to start, and a minute on a busy machine."""
    real: str = ""

    def command(self) -> list[str]:
        base = self.folder / self.name
        if not self.real:
            return [sys.executable, "-m", "tests.faults.comfyui", str(self.port), str(base), str(self.record)]
        return [word.format(port=self.port, folder=base) for word in shlex.split(self.real)]

    @property
    def guard_s(self) -> float:
        return self.GUARD_S if self.real else GUARD_S

    @property
    def record(self) -> Path:
        return self.folder / "record.jsonl"

    def prepare(self, *modules: ModuleType) -> None:
        """A real one finds the classes, and those of these modules, among its custom nodes."""
        if self.real:
            nodes = self.folder / self.name / "custom_nodes"
            nodes.mkdir(parents=True)
            for module in (recorded_node, *modules):
                assert module.__file__ is not None
                shutil.copy(module.__file__, nodes)
            self.environment[recorded_node.RECORD] = str(self.record)


@dataclass
class GateProcess(Program):
    """`comfygate serve`, with `config.toml` of a folder of its own under its name. before: Python that it runs first."""

    before: str = ""

    def command(self) -> list[str]:
        code = "from proxy.commands.main import main; main()"
        return [sys.executable, "-c", f"{self.before}\n{code}", "serve", "--config", str(self.config)]

    @property
    def config(self) -> Path:
        return self.folder / self.name / "config.toml"

    @property
    def state(self) -> Path:
        """Its database, where that is a file."""
        return self.config.parent / "state" / STATE_FILE

    def ended(self) -> frozenset[str]:
        """The jobs whose end is in that file, whether the gate runs or not."""
        return self.jobs("state IN ('succeeded', 'failed', 'canceled')")

    def jobs(self, condition: str) -> frozenset[str]:
        """Those of which this is true, whether the gate runs or not."""
        with closing(sqlite3.connect(self.state)) as database:
            found = database.execute(f"SELECT prompt_id FROM jobs WHERE {condition}")
            return frozenset(prompt_id for (prompt_id,) in found)


@dataclass
class PostgreSQL(Program):
    """A cluster of its own that trusts who comes from this machine. It does not run as root, so its folder is another user's then."""

    def prepare(self, programs: Path) -> None:
        """programs: the folder of initdb and postgres."""
        self.programs = programs
        data = self.folder / self.name
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            self.user = _UNPRIVILEGED
            shutil.chown(data, self.user, pwd.getpwnam(self.user).pw_gid)
        words = ("--username=comfygate", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions")
        subprocess.run(
            [programs / "initdb", *words, "-D", data], check=True, capture_output=True, user=self.user, cwd="/"
        )

    def command(self) -> list[str]:
        data = str(self.folder / self.name)
        settings = (f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={data}")
        return [str(self.programs / "postgres"), "-D", data, *(word for each in settings for word in ("-c", each))]

    @property
    def url(self) -> str:
        return f"postgresql://comfygate@127.0.0.1:{self.port}/postgres"

    def dies_with_it(self, children: Iterable[psutil.Process]) -> Iterable[psutil.Process]:
        """As when the machine fails: a new server does not start beside what an old one has left."""
        return children


@dataclass
class Redis(Program):
    """Without anything on disk."""

    def command(self) -> list[str]:
        program = shutil.which(REDIS)
        assert program is not None, f"{REDIS} is not installed"
        return [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


def postgresql_programs() -> Path | None:
    """Where Debian, or the path, has the newest server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else Path(on_path).parent if on_path else None
