"""GPU seconds in the gate's database: one row for each finished job, so that a budget of any window can be summed from it, and no job counts twice."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.persistence.operations import Database, Operation, Statement


class GpuUsage:
    """Every method raises DatabaseUnavailable."""

    def __init__(self, state: Database) -> None:
        self.state = state

    async def add(self, run_id: str, tenant: str, ended_at_s: float, gpu_s: float) -> bool:
        """False when the job was counted before. run_id: `Job.run_id`; ended_at_s: Unix time."""
        return await self.state.run(_add, run_id, tenant, ended_at_s, gpu_s)

    async def totals_s(self, wanted: Iterable[tuple[str, float]]) -> list[float]:
        """For each tenant and Unix time: GPU seconds of the tenant's jobs that ended then or later."""
        return await self.state.read(_totals_s, list(wanted))

    async def forget_before(self, ended_at_s: float) -> None:
        await self.state.run(_forget_before, ended_at_s)


def _add(run_id: str, tenant: str, ended_at_s: float, gpu_s: float) -> Operation[bool]:
    added = yield Statement(
        "INSERT INTO gpu_usage (run_id, tenant, ended_at_s, gpu_s) VALUES (?, ?, ?, ?) ON CONFLICT (run_id) DO NOTHING RETURNING run_id",
        (run_id, tenant, ended_at_s, gpu_s),
    )
    return bool(added)


def _totals_s(wanted: list[tuple[str, float]]) -> Operation[list[float]]:
    totals = []
    for each in wanted:
        [(total_s,)] = yield Statement(
            "SELECT COALESCE(SUM(gpu_s), 0.0) FROM gpu_usage WHERE tenant = ? AND ended_at_s >= ?", each
        )
        totals.append(float(total_s))
    return totals


def _forget_before(ended_at_s: float) -> Operation[None]:
    yield Statement("DELETE FROM gpu_usage WHERE ended_at_s < ?", (ended_at_s,))
