"""Background tasks: kept, named, logged when they fail, ended with their owner."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import pytest

from proxy import tasks as tasks_module
from proxy.tasks import Stop, Tasks, stop_in_turn


async def fail() -> None:
    raise LookupError("a bug")


async def test_a_failure_is_logged_with_the_tasks_name(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("comfygate").propagate = True
    task = Tasks().start(fail(), "the watcher")
    await asyncio.wait((task,))
    await asyncio.wait((asyncio.ensure_future(asyncio.sleep(0)),))
    assert "the watcher failed" in caplog.text
    assert "a bug" in caplog.text


async def test_stop_cancels_and_waits(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    task = tasks.start(work(), "work")
    await asyncio.sleep(0)
    await tasks.stop()
    assert task.cancelled()
    assert ended == ["cleaned up"]
    assert caplog.text == ""


async def test_what_has_ended_is_forgotten() -> None:
    tasks = Tasks()
    await tasks.start(asyncio.sleep(0), "short")
    await asyncio.sleep(0)
    assert not tasks._tasks
    await tasks.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops waits for as short as there is."""
    monkeypatch.setattr(tasks_module, "WORD_EACH_S", 0.0)
    monkeypatch.setattr(tasks_module, "_WORDS", 2)


async def goes_on(times: int) -> None:
    """Loses so many cancellations."""
    for _ in range(times):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            continue


@pytest.mark.usefixtures("impatient")
async def test_a_cancellation_that_is_lost_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    task = tasks.start(goes_on(2), "deaf")
    await asyncio.sleep(0)
    await tasks.stop()
    await task
    assert f"what was cancelled goes on: deaf (line {goes_on.__code__.co_firstlineno + 4} of {__file__})" in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_what_never_ends_is_not_waited_for() -> None:
    tasks = Tasks()
    task = tasks.start(goes_on(3), "deaf")
    await asyncio.sleep(0)
    await tasks.stop()
    assert not task.done()
    task.cancel()
    await task


async def test_parts_are_stopped_in_turn() -> None:
    stopped: list[str] = []

    async def stop(name: str) -> None:
        await asyncio.sleep(0)
        stopped.append(name)

    assert await stop_in_turn([("one", partial(stop, "1")), ("two", partial(stop, "2"))])
    assert stopped == ["1", "2"]


@pytest.mark.usefixtures("impatient")
async def test_a_part_that_does_not_stop_or_fails_keeps_no_other_from_stopping(
    caplog: pytest.LogCaptureFixture,
) -> None:
    last = asyncio.Event()

    async def end() -> None:
        last.set()

    async def wait_for_nothing() -> None:
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled

    parts: list[tuple[str, Stop]] = [
        ("deaf", partial(goes_on, 1)),
        ("broken", fail),
        ("forsaken", wait_for_nothing),
        ("last", end),
    ]
    assert not await stop_in_turn(parts)
    assert last.is_set()
    assert "stopping waits for the end of deaf (line" in caplog.text
    assert "stopping does not wait for the end of deaf any longer" in caplog.text
    assert "stopping: the end of broken failed" in caplog.text
    assert "stopping: the end of forsaken failed" in caplog.text
    assert "a bug" in caplog.text


async def test_whoever_gives_up_stopping_ends_what_it_waits_for() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def stop() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    stopping = asyncio.ensure_future(stop_in_turn([("endless", stop)]))
    await begun.wait()
    stopping.cancel()
    await asyncio.wait((stopping,))
    await ended.wait()
    assert stopping.cancelled()
