"""Two gates on one database that do something with one asset at the same moment."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from policy.call import JobExtras
from policy.violation import Reason, Violation
from proxy.jobs.store_operations import AssetGone, add_waiting
from proxy.persistence.operations import Database
from proxy.v2.asset_operations import delete_asset, reuse
from tests.proxy.jobs.stored import SUBMITTED, row
from tests.proxy.v2.assets.test_operations import ALICE, asset, over, put


async def test_a_reuse_and_a_deletion_at_once_leave_no_record_without_a_file(
    database: Database, make_database: Callable[[], Database]
) -> None:
    """Two gates: whoever comes first, either the last record was told, or the new one is over the file."""
    other = make_database()
    await other.open()
    try:
        for number in range(20):
            known = asset(f"known-{number}", path=str(number))
            await put(database, known)
            made = asset(str(uuid.uuid4()), file_path="new.png")
            deleted, reused = await asyncio.gather(
                database.run(delete_asset, ALICE, known.asset_id, 200.0),
                other.run(reuse, ALICE, over(known), made, 200.0),
            )
            assert deleted is not None
            assert deleted.is_last is (reused is None)
    finally:
        await other.close()


async def test_an_asset_is_deleted_or_a_job_uses_it(database: Database, make_database: Callable[[], Database]) -> None:
    """Two gates, at once: the job is refused, or its asset stays."""
    other = make_database()
    await other.open()
    try:
        for number in range(20):
            name = f"of-{number}"
            await put(database, asset(name, path=name))
            deleted, recorded = await asyncio.gather(
                database.run(delete_asset, ALICE, name, 200.0),
                other.run(add_waiting, row(f"job-{number}"), SUBMITTED, JobExtras({}, (name,))),
                return_exceptions=True,
            )
            is_kept = isinstance(deleted, Violation) and deleted.reason is Reason.ASSET_IN_USE
            assert is_kept or isinstance(recorded, AssetGone), (deleted, recorded)
    finally:
        await other.close()
