"""GPU seconds in the gate's database: one row for each finished job, so that a budget of any window can be summed from it, and no job counts twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from proxy.persistence.database import StateDatabase


class GpuUsage:
    """Every method raises sqlite3.Error when the database is not open, or cannot be read or written."""

    def __init__(self, state: StateDatabase) -> None:
        self.state = state

    async def add(self, run_id: str, tenant: str, ended_at_s: float, gpu_s: float) -> bool:
        """False when the job was counted before. run_id: `Job.run_id`; ended_at_s: Unix time."""
        return await self.state.run(_add, run_id, tenant, ended_at_s, gpu_s)

    async def totals_s(self, wanted: Iterable[tuple[str, float]]) -> list[float]:
        """For each tenant and Unix time: GPU seconds of the tenant's jobs that ended then or later."""
        return await self.state.run(_totals_s, list(wanted))

    async def forget_before(self, ended_at_s: float) -> None:
        await self.state.run(_forget_before, ended_at_s)


def _add(connection: sqlite3.Connection, run_id: str, tenant: str, ended_at_s: float, gpu_s: float) -> bool:
    row = (run_id, tenant, ended_at_s, gpu_s)
    return connection.execute("INSERT OR IGNORE INTO gpu_usage VALUES (?, ?, ?, ?)", row).rowcount == 1


def _totals_s(connection: sqlite3.Connection, wanted: list[tuple[str, float]]) -> list[float]:
    total = "SELECT COALESCE(SUM(gpu_s), 0.0) FROM gpu_usage WHERE tenant = ? AND ended_at_s >= ?"
    return [float(connection.execute(total, each).fetchone()[0]) for each in wanted]


def _forget_before(connection: sqlite3.Connection, ended_at_s: float) -> None:
    connection.execute("DELETE FROM gpu_usage WHERE ended_at_s < ?", (ended_at_s,))
