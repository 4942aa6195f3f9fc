"""Who waits for the end of a job, and for how long."""

from __future__ import annotations

from proxy.v2.job_end import Deadlines, JobEnd


async def test_many_who_wait_equally_long_share_their_timers() -> None:
    deadlines = Deadlines()
    ends = [JobEnd() for _ in range(100)]
    ticks = [deadlines.add(end, 3600.0) for end in ends]
    assert len(deadlines) == len(set(ticks)) < len(ends)
    for tick, end in zip(ticks, ends, strict=True):
        assert end.is_open
        deadlines.discard(tick, end)
        deadlines.discard(tick, end)
    assert len(deadlines) == 0


async def test_all_who_wait_until_then_give_up_at_once_and_others_do_not() -> None:
    deadlines = Deadlines()
    first, second, other = JobEnd(), JobEnd(), JobEnd()
    ticks = [deadlines.add(first, 0.0), deadlines.add(second, 0.0), deadlines.add(other, 3600.0)]
    assert not await first.has_come
    assert not await second.has_come
    assert other.is_open
    for tick, end in zip(ticks, (first, second, other), strict=True):
        deadlines.discard(tick, end)
    assert len(deadlines) == 0


async def test_an_end_that_has_come_stays_as_it_came() -> None:
    deadlines, end = Deadlines(), JobEnd()
    tick = deadlines.add(end, 0.0)
    end.finish()
    deadlines.discard(tick, end)
    assert await end.has_come


async def test_who_leaves_is_told_so_once() -> None:
    end, told = JobEnd(), list[str]()
    for name in ("a", "b"):
        end.at_end(lambda name=name: told.append(name))  # type: ignore[misc]
    end.leave()
    end.leave()
    assert told == ["a", "b"]
