"""What `/gate/me` says of one's unfinished jobs."""

from __future__ import annotations

from typing import Any

from policy.call import Place
from policy.principal import TenantId
from proxy.jobs.forecasts import JobForecasts
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
        await parts.database.close()
        assert [each.starts_at_s for each in await forecasts.of(ALICE)] == [None, None]
