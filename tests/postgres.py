"""A PostgreSQL of the tests' own, on a free port, run by a user who may nothing else. `kill` is kill -9 of all its processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import glob
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from tests.ports import free_port
from tests.programs import path_of

USER = "gate"
_PATIENCE_S = 240.0
# postgres does not run as root.
_UNPRIVILEGED: dict[str, Any] = (
    {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
)
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
fsync = on
shared_buffers = 16MB
max_connections = 60
autovacuum = off
log_min_messages = warning
"""
# One user has a password, all others need none.
_ACCESS = "host all locked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n"


# It ends with the tests, also when they are killed and can stop nothing any more.
_WITH_THE_TESTS = [setpriv, "--pdeathsig", "INT", "--"] if (setpriv := shutil.which("setpriv")) else []


def _program(name: str) -> str:
    found = sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return found[-1] if found else path_of(name)


class PostgresServer:
    """Its data lies in `folder`, which is the server's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.environ = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
        self._process: subprocess.Popen[str] | None = None

    def url(self, database: str = "postgres", user: str = USER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [*_WITH_THE_TESTS, _program("postgres"), "-D", self.folder, "-p", str(self.port), "-k", self.folder],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=self.environ,
            cwd=self.folder,
            **_UNPRIVILEGED,
        )
        is_ready = threading.Event()
        said: list[str] = []
        threading.Thread(target=self._read, args=(self._process, is_ready, said), daemon=True).start()
        assert is_ready.wait(_PATIENCE_S), said
        assert self._process.poll() is None, said

    def use_certificate(self, certificate: Path, key: Path) -> None:
        """From its next start on."""
        for source, name in ((certificate, "server.crt"), (key, "server.key")):
            target = self.folder / name
            target.write_bytes(source.read_bytes())
            target.chmod(0o600)
            if _UNPRIVILEGED:
                shutil.chown(target, "postgres", "postgres")
        with (self.folder / "postgresql.conf").open("a") as file:
            file.write("ssl = on\n")

    def kill(self) -> None:
        """All its processes at once, as when the machine loses its current."""
        if self._process is not None:
            process, self._process = self._process, None
            # Its children are in groups of their own.
            family = _family_of(process)
            for each in family:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()
            psutil.wait_procs(family, _PATIENCE_S)

    def stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.send_signal(signal.SIGINT)  # "fast": sessions are ended
            process.wait(_PATIENCE_S)

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self._process is not None
        self._frozen = _family_of(self._process)
        for each in self._frozen:
            each.suspend()

    def thaw(self) -> None:
        for each in self._frozen:
            each.resume()

    def limit_files(self, pid: int, size: int | None) -> None:
        """How large a file may grow that one of its processes writes, None for any size: a disk that is full for it."""
        limit = "unlimited" if size is None else str(size)
        command = [path_of("prlimit"), f"--pid={pid}", f"--fsize={limit}:"]
        subprocess.run(command, check=True, env=self.environ, **_UNPRIVILEGED)

    def tool(self, name: str, *arguments: str) -> None:
        """One of PostgreSQL's own programs, asked of this server."""
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": USER}
        subprocess.run([_program(name), *arguments], check=True, env=self.environ | where, capture_output=True)

    async def execute(self, *statements: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.url(database))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    @staticmethod
    def _read(process: subprocess.Popen[str], is_ready: threading.Event, said: list[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                said.append(line)
                if "ready to accept connections" in line:
                    is_ready.set()
        is_ready.set()


@contextmanager
def postgres_folder() -> Iterator[Path]:
    """A new cluster that nobody runs, of the user that runs it."""
    initdb = _program("initdb")
    with tempfile.TemporaryDirectory(prefix="comfygate-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if _UNPRIVILEGED:
            shutil.chown(folder, "postgres", "postgres")
        subprocess.run(
            [initdb, "--no-sync", "-D", folder / "data", "-U", USER, "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust"],
            check=True,
            capture_output=True,
            env={"PATH": os.defpath},
            cwd=folder,
            **_UNPRIVILEGED,
        )
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION)
        (folder / "data" / "pg_hba.conf").write_text(_ACCESS)
        yield folder / "data"


def _family_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    first = psutil.Process(process.pid)
    return [first, *first.children(recursive=True)]


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    with postgres_folder() as folder:
        server = PostgresServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
