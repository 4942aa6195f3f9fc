"""The soak of `make soak` in short: bounded by what is done, not by time."""

from __future__ import annotations

from bench.soak import House, Plan, soak
from bench.soakload import Tally

PIECES = 250
GUARD_PIECES = 60


async def _lasts(tally: Tally) -> None:
    await tally.reached(PIECES)


async def _disturbs(house: House, tally: Tally) -> None:
    await tally.reached(GUARD_PIECES)
    await house.reload()
    await tally.reached(2 * GUARD_PIECES)
    await house.restart_comfy(pause_s=0.0)
    await house.reload()


async def test_mixed_load_leaves_nothing_behind() -> None:
    report = await soak(Plan(_lasts, _disturbs))
    assert report.tally.unexplained == {}
    assert report.leaks() == []
    assert report.outages == 1
    kinds = {"job", "job with events", "upload", "reading", "saving", "socket", "bad manners"}
    assert {name for name, count in report.tally.done.items() if count >= 4} == kinds
