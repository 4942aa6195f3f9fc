"""A short form of `python -m bench several`: shapes, no times."""

from __future__ import annotations

from tests.faults.fleet import all_idle, open_fleet, submit_all


async def test_all_work_and_models_stay_where_they_are() -> None:
    async with open_fleet(2, {"ann": 1.0}) as fleet:
        await submit_all(fleet, 30, 0.05, load_seconds=1.0)
        await all_idle(fleet)
        assert sum(fleet.by_comfyui()) == 30
        assert min(fleet.by_comfyui()) >= 10
        assert len(fleet.lines("load")) <= 4
