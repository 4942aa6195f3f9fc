"""What `/gate/me` says of one's unfinished jobs."""

from __future__ import annotations

from typing import Any

import pytest

from policy.call import Place
from policy.principal import TenantId
from proxy.jobs import forecasts as module
from proxy.jobs.comfyui_names import ComfyUINames
from proxy.jobs.forecasts import READ_EACH_S, JobForecasts
from proxy.jobs.store_upkeep import drain_one
from tests.proxy.jobs.following import ALICE, following

BOB = TenantId("bob")


async def test_ones_own_jobs_have_a_position_and_an_estimated_start() -> None:
    upstream: Any = None
    async with following(upstream) as parts:
        forecasts = JobForecasts(parts.database, parts.registry, dict, parts.clock)
        assert await forecasts.of(ALICE) == ()
        runs = await parts.running(BOB)
        first, second = [await parts.recorded(ALICE, Place.WAITING) for _ in range(2)]
        await parts.recorded(BOB, Place.WAITING)
        told = await forecasts.of(ALICE)
        assert [(each.prompt_id, each.state, each.position) for each in told] == [
            (first.prompt_id, "waiting", 1),
            (second.prompt_id, "waiting", 2),
        ]
        starts = [each.starts_at_s - parts.clock() for each in told if each.starts_at_s is not None]
        assert len(starts) == 2
        assert starts[0] <= runs.cost_s, "alice had nothing yet, so she is next"
        assert starts[1] >= starts[0] + first.cost_s
        assert [each.state for each in await forecasts.of(BOB)] == ["running", "waiting"]
        for each in told:
            assert await forecasts.start_of(ALICE, each.prompt_id) == pytest.approx(each.starts_at_s)
            assert await forecasts.start_of(BOB, each.prompt_id) is None
        assert await forecasts.start_of(BOB, runs.prompt_id) is None, "it has begun"
        assert await forecasts.start_of(BOB, "unknown") is None
        await parts.database.close()
        assert [each.starts_at_s for each in await forecasts.of(ALICE)] == [None, None]
        assert await forecasts.start_of(ALICE, first.prompt_id) is not None, "it was read a moment ago"
        parts.now_s += READ_EACH_S
        assert await forecasts.start_of(ALICE, first.prompt_id) is None


async def test_behind_very_many_of_ones_own_there_is_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream: Any = None
    monkeypatch.setattr(module, "MAX_SHOWN", 2)
    async with following(upstream) as parts:
        forecasts = JobForecasts(parts.database, parts.registry, dict, parts.clock)
        names = [(await parts.recorded(ALICE, Place.WAITING)).prompt_id for _ in range(3)]
        starts = [await forecasts.start_of(ALICE, name) for name in names]
        assert [start is None for start in starts] == [False, False, True]
        assert [each.starts_at_s for each in await forecasts.of(ALICE)] == starts[:2]


async def test_what_comfyui_has_begins_after_what_it_runs() -> None:
    upstream: Any = None
    async with following(upstream) as parts:
        forecasts = JobForecasts(parts.database, parts.registry, dict, parts.clock)
        runs, following_it = await parts.running(BOB), await parts.recorded(ALICE)
        start = await forecasts.start_of(ALICE, following_it.prompt_id)
        assert start == next(each.starts_at_s for each in await forecasts.of(ALICE))
        assert start == pytest.approx(parts.clock() + runs.cost_s)
        parts.now_s += runs.cost_s + 100.0
        start = await forecasts.start_of(ALICE, following_it.prompt_id)
        assert start == pytest.approx(parts.clock() + 100.0), "it is not about to end"


async def test_nothing_is_expected_at_one_of_several_that_is_drained() -> None:
    upstream: Any = None
    async with following(upstream) as parts:
        parts.registry.comfyuis = ComfyUINames(("gpu-1", "gpu-2"))
        forecasts = JobForecasts(parts.database, parts.registry, dict, parts.clock)
        runs, waits = await parts.running(BOB), await parts.recorded(ALICE, Place.WAITING)

        async def starts() -> list[float | None]:
            parts.now_s += READ_EACH_S
            told = [each.starts_at_s for each in await forecasts.of(ALICE)]
            assert told == [await forecasts.start_of(ALICE, waits.prompt_id)]
            return [None if start is None else start - parts.now_s for start in told]

        assert runs.comfyui == "gpu-1"
        assert await starts() == [0.0], "at gpu-2"
        await parts.database.run(drain_one, "gpu-2", is_on=True)
        [left_s] = await starts()
        assert left_s is not None
        assert 0.0 < left_s <= runs.cost_s
        await parts.database.run(drain_one, "gpu-1", is_on=True)
        assert await starts() == [None], "nobody can tell"
