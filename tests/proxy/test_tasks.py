"""Background tasks: kept, named, logged when they fail, ended with their owner."""

from __future__ import annotations

import asyncio
import logging

import pytest

from proxy.tasks import Tasks


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
