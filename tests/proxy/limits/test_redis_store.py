"""The connection to Redis: one round trip for what comes together, and nobody waits for a sick Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from proxy.limits.redis_scripts import CLAIM, SPEND, TOTALS, Call
from proxy.limits.redis_store import MAX_PROBE_S, SharedStore
from proxy.limits.store_unavailable import StoreUnavailable
from tests.proxy.conftest import PATIENCE_S, RedisServer

CALL = Call(TOTALS, ("nothing",), ())


class Pauses:
    """Stands in for asyncio.sleep: the test lets each pause end."""

    def __init__(self) -> None:
        self.asked_s: list[float] = []
        self._ends = asyncio.Semaphore(0)
        self._asked = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        self.asked_s.append(seconds)
        self._asked.release()
        await self._ends.acquire()

    async def end_one(self) -> None:
        """Ends the pause that is being made, or the next one."""
        await self._asked.acquire()
        self._ends.release()


async def sleep_briefly(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.01))


async def is_unavailable(store: SharedStore) -> bool:
    try:
        await store.run(CALL)
    except StoreUnavailable:
        return True
    return False


async def test_what_comes_together_goes_in_one_round_trip(store: SharedStore, redis: RedisServer) -> None:
    async with Redis.from_url(redis.url) as watcher:
        await watcher.config_resetstat()
        answers = await asyncio.gather(
            *(store.run(Call(SPEND, (f"w{index}", f"w{index}/-1"), (5, 60_000, 1))) for index in range(300))
        )
        reads = (await watcher.info("stats"))["total_reads_processed"]
    assert [answer[0] for answer in answers] == [0] * 300
    # The watcher's own commands are among them; 300 pipelined commands are more bytes than one read takes, but far fewer than 300 reads.
    assert reads < 30


async def test_without_redis_the_gate_starts_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    states: list[bool] = []
    pauses = Pauses()
    store = SharedStore("redis://user:secret@127.0.0.1:1/0", on_change=states.append, sleep=pauses.sleep)
    with caplog.at_level(logging.DEBUG):
        await store.start()
        assert not store.is_up
        assert await is_unavailable(store)
        for _ in range(8):
            await pauses.end_one()
        await store.stop()
    assert states == [False]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        next(message for message in caplog.messages if "this gate limits by its own memory" in message)
    ]
    assert "127.0.0.1:1" in caplog.text
    assert "secret" not in caplog.text
    assert pauses.asked_s[:4] == [0.25, 0.5, 1.0, 2.0]
    assert max(pauses.asked_s) == MAX_PROBE_S


async def test_a_bad_url_is_refused() -> None:
    with pytest.raises(ValueError, match="scheme"):
        SharedStore("http://127.0.0.1:6379")


async def test_when_redis_dies_calls_fail_and_it_returns_by_itself(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    states: list[bool] = []
    is_back = asyncio.Event()

    def changed(is_up: bool) -> None:
        states.append(is_up)
        if is_up:
            is_back.set()

    store = SharedStore(redis.url, timeout_s=PATIENCE_S, on_change=changed, sleep=sleep_briefly)
    told: list[str] = []

    def known_here() -> Iterator[Call]:
        told.append("told")
        yield CALL

    store.on_return(known_here)
    await store.start()
    assert told == ["told"]
    await redis.kill()
    answers = await asyncio.gather(*(is_unavailable(store) for _ in range(50)))
    assert all(answers)
    assert not store.is_up
    is_back.clear()
    await redis.start()
    await asyncio.wait_for(is_back.wait(), PATIENCE_S)
    assert await store.run(CALL) == [None]
    assert told == ["told", "told"]
    assert states == [True, False, True]
    await store.stop()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 2
    assert "does not answer" in warnings[0]
    assert "is back after" in warnings[1]


async def test_a_redis_started_anew_is_told_before_it_is_relied_on(store: SharedStore, redis: RedisServer) -> None:
    """So quickly that no command failed: what it forgot shows only in its scripts."""
    store.on_return(lambda: [Call(CLAIM, ("slots",), ("mine", 60_000, 9))])
    async with Redis.from_url(redis.url) as other:
        await other.flushall()
        await other.script_flush()
        assert await store.run(Call(CLAIM, ("slots",), ("yours", 60_000, 1))) == 1
        assert await other.zrange("slots", 0, -1) == [b"mine"]
    assert store.is_up


async def test_a_redis_that_hangs_holds_nobody_up(redis: RedisServer) -> None:
    pauses = Pauses()
    store = SharedStore(redis.url, timeout_s=1.0, sleep=pauses.sleep)
    await store.start()
    redis.freeze()
    try:
        async with asyncio.timeout(180):  # it would be 400 s one after the other, and for ever without a limit
            assert all(await asyncio.gather(*(is_unavailable(store) for _ in range(400))))
        assert not store.is_up
        for _ in range(1000):
            assert await is_unavailable(store)
    finally:
        redis.thaw()
        await store.stop()


async def test_a_redis_that_refuses_is_as_good_as_gone(redis: RedisServer) -> None:
    pauses = Pauses()
    store = SharedStore(redis.url, timeout_s=PATIENCE_S, sleep=pauses.sleep)
    await store.start()
    async with Redis.from_url(redis.url) as other:
        await other.set("slots", "not a set")
        with pytest.raises(StoreUnavailable):
            await store.run(Call(CLAIM, ("slots",), ("token", 60_000, 9)))
        assert not store.is_up
    await store.stop()


async def test_a_caller_that_leaves_disturbs_no_other(store: SharedStore) -> None:
    async with asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(store.run(CALL))
        staying = tasks.create_task(store.run(CALL))
        await asyncio.sleep(0)
        leaving.cancel()
    assert leaving.cancelled()
    assert staying.result() == [None]


async def test_what_waits_when_the_gate_stops_is_told_so(redis: RedisServer) -> None:
    store = SharedStore(redis.url, timeout_s=1.0)
    await store.start()
    redis.freeze()
    try:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(is_unavailable(store))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await store.stop()
    finally:
        redis.thaw()
    assert waiting.result()
