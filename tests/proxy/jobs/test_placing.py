"""proxy/jobs/placing.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.call import JobExtras, UpstreamPath
from policy.namespace import Folder
from policy.needs import Needs
from policy.placement import Waiting
from policy.principal import TenantId
from proxy.config.comfyui import ComfyUISettings
from proxy.jobs.placing import LOOK_S, Placing
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_operations import delete_job
from proxy.persistence.operations import Database
from tests.proxy.jobs.stored import GATE, end, put
from tests.several.test_placing import ended, quick, ran_where, submit
from tests.several.world import BOTH, FIRST, SECOND, several

ALICE, BOB, MALLORY = TenantId("alice"), TenantId("bob"), TenantId("mallory")
ANYWHERE = JobExtras(needs=Needs().to_bytes())
FIRST_ONLY = JobExtras(needs=Needs(first_only=(("Pack", "folder"),)).to_bytes())


def placing_of(database: Database, *comfyuis: ComfyUISettings) -> Placing:
    registry = JobRegistry(comfyuis=[comfyui.name for comfyui in comfyuis])
    records = JobRecords(database, registry, GATE, lambda: 1, dict, lambda: 150.0)
    return Placing(registry, records, comfyuis, lambda: comfyuis, lambda comfyui: 1, lambda name: True)


async def given(placing: Placing) -> list[tuple[str, str]]:
    return [(each.job.prompt_id, each.job.comfyui) for each in await placing.give(BOTH)]


@pytest.mark.parametrize(("tenant", "extras"), [(MALLORY, ANYWHERE), (ALICE, FIRST_ONLY)])
async def test_an_id_that_comes_again_is_another_job(database: Database, tenant: TenantId, extras: JobExtras) -> None:
    """What was found of the earlier one would lead it to where it may not go."""
    first, second = ComfyUISettings(name=FIRST, tenants=(BOB,)), ComfyUISettings(name=SECOND, tenants=(ALICE,))
    placing = placing_of(database, first, second)
    for name in ("before", "same"):
        await put(database, name, ALICE, extras=ANYWHERE)
    assert await given(placing) == [("before", SECOND)], "the other one is looked at, and waits for room"
    await database.run(delete_job, "same")
    await put(database, "same", tenant, extras=extras)
    await end(database, "before")
    assert await given(placing) == []
    await put(database, "after", ALICE, extras=ANYWHERE)
    assert await given(placing) == [("after", SECOND)]


async def test_a_job_goes_where_its_files_are(database: Database) -> None:
    """As long as that is no later; what was brought is there."""
    files = tuple((Folder.OUTPUT, UpstreamPath(f"tenants/alice/@{SECOND}/{number}.png")) for number in range(40))
    extras, brought = JobExtras(needs=Needs(files=files).to_bytes()), set[str]()
    placing = placing_of(database, ComfyUISettings(name=FIRST), ComfyUISettings(name=SECOND))
    placing.far_files = lambda needs, comfyui: needs.files if comfyui == FIRST else ()
    placing.bytes_to = lambda comfyui, some: [0 for _ in some if comfyui not in brought]
    await put(database, "a", ALICE, extras=extras)
    assert await given(placing) == [("a", SECOND)]
    await put(database, "b", ALICE, extras=ANYWHERE)
    await end(database, "a")
    await given(placing)
    await end(database, "b")
    [waiting] = [Waiting("c", ALICE, 99, 1.0, Needs(files=files))]
    assert placing._ready_in(FIRST, waiting) == pytest.approx(2.0)
    assert placing._ready_in(SECOND, waiting) == 0.0
    brought.add(FIRST)
    assert placing._ready_in(FIRST, waiting) == LOOK_S, "which is seen soon"


async def test_one_place_of_a_window_is_for_what_is_there_already(database: Database) -> None:
    """Where there is more than one: else the tenant of a film could have all of them while it is brought."""
    placing = placing_of(database, ComfyUISettings(name=FIRST), ComfyUISettings(name=SECOND))
    placing.brings_for = lambda comfyui: frozenset({"alice"} if comfyui == SECOND else ())
    for window, first, second in ((1, 1, 0), (2, 1, 0), (4, 3, 2)):
        placing._window = lambda comfyui, window=window: window  # type: ignore[misc]
        seats = [placing._seat_of(comfyui, is_ready=True) for comfyui in placing.open_to(ALICE)]
        assert [(seat.room, seat.far_room, seat.behind) for seat in seats] == [
            (window, first, frozenset()),
            (window, second, frozenset({ALICE})),
        ]


async def test_what_is_configured_anew_waits_for_the_next_start(tmp_path: Path) -> None:
    async with several(tmp_path) as world:
        file = world.gate.config_file
        more = '[[comfyui]]\nname = "gpu-3"\nurl = "http://127.0.0.1:9"\n\n'
        file.write_text(file.read_text().replace("[[comfyui]]", f"{more}[[comfyui]]", 1))
        assert await world.gate.gate.reload(file)
        ids = [await submit(world, quick(number)) for number in range(4)]
        await ended(world, ids)
        assert ran_where(world, ids).keys() <= set(BOTH)
