"""Jobs with labels and results, as tests of the API write them down."""

from __future__ import annotations

from typing import Any, TypeVar

from policy.call import JobExtras
from policy.namespace import Folder
from policy.v2.assets import Asset
from proxy.jobs.job_rows import JobRow, StoredState
from proxy.jobs.store_giving import give
from proxy.jobs.store_operations import add_waiting, start
from proxy.persistence.operations import Database, Operation, Statement
from proxy.v2.asset_rows import ASSET_COLUMNS, ASSET_PLACES, row_of
from proxy.v2.job_operations import Made, StoredJob, keep_results, list_rows, read_job
from tests.policy.v2.examples import output
from tests.proxy.jobs.stored import COMFYUI, GATE, SUBMITTED, row

Recorded = TypeVar("Recorded")

ENDS = (StoredState.SUCCEEDED, StoredState.FAILED, StoredState.CANCELED)
FAILURE = ["node_execution_error", "It broke.", "3", "KSampler"]
NEW_TABLES = ("job_labels", "job_assets", "assets")


def made(number: int, job: str, **more: Any) -> Asset:
    return output(number, prompt_id=job, **more)


def everything(tables: tuple[str, ...] = NEW_TABLES) -> Operation[list[tuple[Any, ...]]]:
    """All rows of what stands beside the jobs."""
    found: list[tuple[Any, ...]] = []
    for table in tables:
        found += yield Statement(f"SELECT * FROM {table}")
    return found


def names(rows: list[tuple[JobRow, dict[str, str]]]) -> list[str]:
    return [row.prompt_id for row, _ in rows]


async def listed(database: Database, tenant: str = "alice", *states: str, **more: Any) -> list[str]:
    asked: dict[str, Any] = {"labels": {}, "limit": 100, "after": None, **more}
    return names(await database.read(list_rows, tenant, states, *asked.values()))


def while_there(assets: tuple[str, ...], submission: Operation[Recorded], tenant: str = "alice") -> Operation[Recorded]:
    """A submission that uses assets, which are gone after it."""
    for asset_id in dict.fromkeys(assets):
        asset = Asset(asset_id, "x.png", "image/png", 1, None, 1.0, folder=Folder.INPUT, path="x.png")
        yield Statement(f"INSERT INTO assets ({ASSET_COLUMNS}) VALUES ({ASSET_PLACES})", row_of(asset, tenant))
    made = yield from submission
    yield Statement(f"DELETE FROM assets WHERE asset_id IN ({', '.join('?' * len(assets))})", assets)
    return made


async def labelled(database: Database, name: str, tenant: str = "alice", **labels: str) -> None:
    used = (f"asset-of-{name}",)
    await database.run(while_there, used, add_waiting(row(name, tenant), SUBMITTED, JobExtras(labels, used)), tenant)


async def read(database: Database, name: str, tenant: str = "alice") -> StoredJob:
    found = await database.read(read_job, tenant, name)
    assert found is not None
    return found


async def keep(database: Database, name: str, tenant: str, outputs: list[Asset], failure: Any) -> bool:
    return await database.run(keep_results, name, tenant, [Made(output) for output in outputs], failure)


async def run_one(database: Database, name: str) -> None:
    [given] = await database.run(give, COMFYUI, 100, GATE, 150.0, 1000.0, {})
    assert given.job.prompt_id == name
    assert await database.run(start, name, 160.0) is not None
