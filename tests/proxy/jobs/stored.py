"""Jobs as the tests of the store write them down: short to make, and the same documents in each."""

from __future__ import annotations

from typing import Any

from policy.call import NO_EXTRAS, JobExtras
from proxy.jobs.job_rows import Ended, JobRow, StoredState, Submitted
from proxy.jobs.store_operations import add_next, add_waiting, finish
from proxy.persistence.operations import Database

COMFYUI, GATE, OTHER_GATE = "default", "gate/1", "gate/2"
SUBMITTED = Submitted(b'{"prompt": {}}', b"[]", b'["2"]')


def row(name: str, tenant: str = "alice", **more: Any) -> JobRow:
    made = JobRow(name, tenant, cost_s=10.0, created_at_s=100.0, comfyui=COMFYUI, gate=GATE, lease_until_s=1000.0)
    return made._replace(**{"attempts": '[{"at":100.0,"comfyui":"default"}]', **more})


async def put(
    database: Database,
    name: str,
    tenant: str = "alice",
    window: int = 0,
    extras: JobExtras = NO_EXTRAS,
    **more: Any,
) -> JobRow:
    """A recorded job; without a window it waits."""
    job = row(name, tenant, **more)
    placed = await database.run(add_next, job, SUBMITTED, window, 1.0, extras) if window else None
    return await database.run(add_waiting, job, SUBMITTED, extras) if placed is None else placed


def ended(state: StoredState = StoredState.SUCCEEDED, at_s: float = 200.0, **more: Any) -> Ended:
    return Ended(state, at_s, started_at_s=190.0, gpu_s=10.0, entry=b"9:entry", row=b"7:row")._replace(**more)


async def end(database: Database, name: str, state: StoredState = StoredState.SUCCEEDED, **more: Any) -> JobRow:
    done = await database.run(finish, name, ended(state, **more))
    assert done is not None
    return done
