"""Programs that are measured, each in a process of its own, and ended with the measurement."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from policy.principal import Role
from proxy.auth import key_file

_CONFIG = """\
[server]
port = 0
max_upload_bytes = "4GiB"
[ops]
port = 0
[upstream]
url = "{upstream}"
[log]
format = "json"
[tenants.bench]
[limits.default]
requests = "1000000/second"
uploads = "1000000/second"
"""
_LISTENING = re.compile(r"(?:listens|listening|gate) on (http://[0-9.]+:\d+)")
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Program:
    """key: of a caller, empty where none is asked for."""

    url: str
    process: psutil.Process
    key: str = ""

    @property
    def rss_bytes(self) -> int:
        return int(self.process.memory_info().rss)

    @property
    def cpu_s(self) -> float:
        return cpu_s_of(self.process.pid)


def cpu_s_of(pid: int) -> float:
    """Of the whole process, since its start."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3): exact, where /proc counts in 10 ms
    except OSError:  # not Linux
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def program(*arguments: str, key: str = "", speaks_on_stderr: bool = False) -> Iterator[Program]:
    """Starts Python with these arguments, and waits until it says where it listens."""
    pipe = {"stderr" if speaks_on_stderr else "stdout": subprocess.PIPE}
    other = {"stdout" if speaks_on_stderr else "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, *arguments], cwd=_ROOT, text=True, **pipe, **other)  # type: ignore[call-overload]
    stream = process.stderr if speaks_on_stderr else process.stdout
    # A pipe that nobody reads fills up, and the program would wait for it.
    rest = threading.Thread(target=deque, args=(stream, 0))
    with process:
        try:
            address = _address_of(stream)
            rest.start()
            yield Program(address, psutil.Process(process.pid), key)
        finally:
            process.kill()
            if rest.ident is not None:
                rest.join()


def _address_of(stream: IO[str]) -> str:
    said = []
    for line in stream:
        found = _LISTENING.search(line)
        if found:
            return found[1]
        said.append(line)
    raise RuntimeError(f"it ended without listening:\n{''.join(said)}")


@contextmanager
def endpoint() -> Iterator[Program]:
    with program("-m", "bench.endpoint") as started:
        yield started


@contextmanager
def gate(upstream: str, role: Role = Role.ADMIN) -> Iterator[Program]:
    """role: of the caller that the key is of."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.toml"
        config.write_text(_CONFIG.format(upstream=upstream), encoding="utf-8")
        key = key_file.create_key(config, tenant="bench", role=role).text
        command = ("-c", "from proxy.commands.main import main; main()", "serve", "--config", str(config))
        with program(*command, key=key, speaks_on_stderr=True) as started:
            yield started
