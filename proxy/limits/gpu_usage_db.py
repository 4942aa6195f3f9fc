"""The file of GPU seconds: one row for each finished job, so that a budget of any window can be summed from it, and no job counts twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    prompt_id TEXT PRIMARY KEY, -- names one run: Job.run_id
    tenant TEXT NOT NULL,
    ended_at_s REAL NOT NULL,
    gpu_s REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_by_tenant ON jobs (tenant, ended_at_s, gpu_s);
"""


class UsageFile:
    """SQLite with a write-ahead log: a gate that is killed loses no row that was written. Blocking, for one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Raises OSError or sqlite3.Error when the file cannot be opened or is damaged: budgets are then not known, and must not look unspent."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        self._database.close()

    def add(self, run_id: str, tenant: str, ended_at_s: float, gpu_s: float) -> bool:
        """False when the job was counted before."""
        with closing(
            self._database.execute(
                "INSERT OR IGNORE INTO jobs VALUES (?, ?, ?, ?)", (run_id, tenant, ended_at_s, gpu_s)
            )
        ) as cursor:
            return cursor.rowcount == 1

    def total_s(self, tenant: str, since_s: float) -> float:
        """GPU seconds of the jobs that ended at `since_s` (Unix time) or later."""
        with closing(
            self._database.execute(
                "SELECT COALESCE(SUM(gpu_s), 0) FROM jobs WHERE tenant = ? AND ended_at_s >= ?", (tenant, since_s)
            )
        ) as cursor:
            return float(cursor.fetchone()[0])

    def totals_s(self, wanted: Iterable[tuple[str, float]]) -> list[float]:
        """As `total_s`, for several tenants and times."""
        return [self.total_s(tenant, since_s) for tenant, since_s in wanted]

    def forget_before(self, ended_at_s: float) -> None:
        self._database.execute("DELETE FROM jobs WHERE ended_at_s < ?", (ended_at_s,))
