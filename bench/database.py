"""What the gate's database costs: CPU and time for each operation, one at a time and 64 at once, commit on the disk included.

PostgreSQL is started for the run, on a free port, when it is installed.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import glob
from itertools import count
from pathlib import Path
from typing import Any, Final

from proxy.persistence.operations import Database, Operation, Rows, Statement
from proxy.persistence.sqlite import SqliteDatabase

WIDTHS: Final = ((1, 300), (64, 100))
"""How many wait together, and how often."""
_numbers = count()


def put(number: int) -> Operation[None]:
    yield Statement(
        "INSERT INTO gpu_usage (run_id, tenant, ended_at_s, gpu_s) VALUES (?, ?, ?, ?)",
        (f"run-{number}", "alice", float(number), 1.5),
    )


def get(number: int) -> Operation[Rows]:
    return (yield Statement("SELECT gpu_s FROM gpu_usage WHERE run_id = ?", (f"run-{number}",)))


async def measure(database: Database, name: str) -> None:
    await database.open()
    try:
        for width, rounds in WIDTHS:
            await _measure_one(f"{name}, written", width, rounds, lambda: database.run(put, next(_numbers)))
            await _measure_one(f"{name}, read", width, rounds, lambda: database.read(get, 0))
    finally:
        await database.close()


async def _measure_one(name: str, width: int, rounds: int, ask: Callable[[], Any]) -> None:
    cpu_s, began_s = time.process_time(), time.perf_counter()
    for _ in range(rounds):
        await asyncio.gather(*(ask() for _ in range(width)))
    cpu_s, took_s = time.process_time() - cpu_s, time.perf_counter() - began_s
    each = width * rounds
    print(
        f"{name}, {width} at once: {cpu_s / each * 1e6:.0f} µs of the gate's CPU each, "
        f"{took_s / rounds * 1e3:.2f} ms until all are answered"
    )


@contextmanager
def _postgres() -> Iterator[str | None]:
    if not glob("/usr/lib/postgresql/*/bin/postgres"):
        print("PostgreSQL is not installed: not measured.")
        yield None
        return
    from tests.postgres import running_postgres

    with running_postgres() as server:
        yield server.url()


def main() -> None:
    # Where the repository lies, since a folder for temporary files may be in memory, where a commit costs nothing.
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        asyncio.run(measure(SqliteDatabase(Path(folder) / "state.sqlite3"), "SQLite"))
    with _postgres() as url:
        if url is not None:
            from proxy.persistence.postgres import PostgresDatabase

            asyncio.run(measure(PostgresDatabase(url), "PostgreSQL"))


if __name__ == "__main__":
    main()
