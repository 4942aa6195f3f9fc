"""Noticing changes of the configuration file."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from proxy import config_watcher as module
from proxy.config_watcher import fingerprint, watch

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs links or SIGHUP")
PATIENCE_S = 240  # how long a test waits for what must come; far more than it takes


class Calls:
    """Counts calls and lets a test wait for the next."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Condition()

    async def __call__(self) -> None:
        async with self._event:
            self.count += 1
            self._event.notify_all()

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self._event:
            await self._event.wait_for(lambda: self.count >= count)


@asynccontextmanager
async def watching(
    file: Path, on_change: Callable[[], Awaitable[None]], seen: bytes | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    known = fingerprint(file) if seen is None else seen
    task = asyncio.create_task(watch(file, on_change, seen=known))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text("a = 1\n")
    return path


async def test_sees_a_file_that_is_written_in_place(file: Path) -> None:
    calls = Calls()
    async with watching(file, calls):
        file.write_text("a = 2\n")
        await calls.reach(1)
        file.write_text("a = 3\n")
        await calls.reach(2)


async def test_sees_a_file_that_is_replaced_as_editors_do(file: Path) -> None:
    calls = Calls()
    async with watching(file, calls):
        for number in (1, 2):
            other = file.with_name("config.toml.new")
            other.write_text(f"a = 1{number}\n")
            os.replace(other, file)
            await calls.reach(number)


async def test_sees_what_changed_before_it_began(file: Path) -> None:
    calls = Calls()
    seen = fingerprint(file)
    file.write_text("a = 2\n")
    async with watching(file, calls, seen):
        await calls.reach(1)


async def test_takes_what_is_there_for_known_by_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Calls()
    loop = asyncio.get_running_loop()

    def look(file: Path) -> bytes:
        asyncio.run_coroutine_threadsafe(looks(), loop).result(PATIENCE_S)
        return fingerprint(file)

    monkeypatch.setattr(module, "fingerprint", look)
    calls = Calls()
    task = asyncio.create_task(watch(file, calls))
    await looks.reach(3)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert calls.count == 0


async def test_while_nothing_changes_nobody_is_woken(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = Calls()
    loop = asyncio.get_running_loop()

    def compare(file: Path) -> bytes:
        asyncio.run_coroutine_threadsafe(compared(), loop).result(PATIENCE_S)
        return fingerprint(file)

    looks = 0

    async def look(watched: module._Watch) -> None:
        nonlocal looks
        looks += 1

    monkeypatch.setattr(module._Watch, "look", look)
    seen = fingerprint(file)
    monkeypatch.setattr(module, "fingerprint", compare)
    async with watching(file, Calls(), seen):
        await compared.reach(3)
        assert looks == 0
        file.write_text("a = 2\n")
        async with asyncio.timeout(PATIENCE_S):
            while not looks:
                await asyncio.sleep(0)


async def test_what_cannot_be_compared_ends_the_watch(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever supervises it logs that, and begins again."""

    def fail(file: Path) -> bytes:
        raise ValueError("a bug in the look")

    seen = fingerprint(file)
    monkeypatch.setattr(module, "fingerprint", fail)
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(PATIENCE_S):
            await watch(file, Calls(), seen=seen)
    assert raised.group_contains(ValueError, match="a bug in the look")


async def test_tells_of_a_file_that_is_gone_and_comes_back(file: Path) -> None:
    calls = Calls()
    async with watching(file, calls):
        file.unlink()
        await calls.reach(1)
        file.write_text("a = 1\n")
        await calls.reach(2)


async def test_other_files_and_touches_are_no_change(file: Path) -> None:
    calls = Calls()
    async with watching(file, calls):
        file.with_name("other.toml").write_text("x")
        file.touch()
        file.write_text("a = 1\n")
        file.write_text("a = 2\n")
        await calls.reach(1)
    assert calls.count == 1


@POSIX
async def test_follows_a_link_to_another_folder(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "real.toml"
    target.parent.mkdir()
    target.write_text("a = 1\n")
    link = tmp_path / "etc" / "config.toml"
    link.parent.mkdir()
    link.symlink_to(target)
    calls = Calls()
    async with watching(link, calls):
        target.write_text("a = 2\n")
        await calls.reach(1)


@POSIX
async def test_follows_a_mounted_folder_that_is_swapped_as_a_whole(tmp_path: Path) -> None:
    for name, number in (("..one", 1), ("..two", 2), ("..three", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(f"a = {number}\n")
    (tmp_path / "..data").symlink_to("..one")
    file = tmp_path / "config.toml"
    file.symlink_to("..data/config.toml")
    calls = Calls()
    async with watching(file, calls):
        for count, name in enumerate(("..two", "..three"), start=1):
            (tmp_path / "..data_tmp").symlink_to(name)
            os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
            await calls.reach(count)


async def test_goes_on_when_a_reload_fails(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()

    async def fail_once() -> None:
        await calls()
        if calls.count == 1:
            raise RuntimeError("a bug in the reload")

    async with watching(file, fail_once):
        file.write_text("a = 2\n")
        await calls.reach(1)
        file.write_text("a = 3\n")
        await calls.reach(2)
    assert "a bug in the reload" in caplog.text


async def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    file = tmp_path / "later" / "config.toml"
    calls = Calls()
    async with watching(file, calls):
        file.parent.mkdir()
        file.write_text("a = 1\n")
        await calls.reach(1)


@POSIX
async def test_sighup_reloads_whatever_stands_there(file: Path) -> None:
    calls = Calls()
    before = signal.getsignal(signal.SIGHUP)
    async with watching(file, calls):
        async with asyncio.timeout(PATIENCE_S):
            while signal.getsignal(signal.SIGHUP) == before:
                await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGHUP)
        await calls.reach(1)
        os.kill(os.getpid(), signal.SIGHUP)
        await calls.reach(2)
    assert signal.getsignal(signal.SIGHUP) == before


async def test_works_without_sighup(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGHUP", raising=False)
    calls = Calls()
    async with watching(file, calls):
        file.write_text("a = 2\n")
        await calls.reach(1)


async def test_one_call_at_a_time(file: Path) -> None:
    running = 0
    calls = Calls()
    overlaps: list[int] = []
    go_on = asyncio.Event()

    async def slow() -> None:
        nonlocal running
        running += 1
        overlaps.append(running)
        await calls()
        await go_on.wait()
        running -= 1

    watched = module._Watch(file, slow, b"")
    first = asyncio.create_task(watched._call())
    await calls.reach(1)
    second = asyncio.create_task(watched._call())
    for _ in range(10):
        await asyncio.sleep(0)
    assert running == 1
    go_on.set()
    await asyncio.gather(first, second)
    assert overlaps == [1, 1]


async def test_waits_until_a_file_stands_still(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = iter([b"half", b"more", b"whole", b"whole"])
    monkeypatch.setattr(module, "fingerprint", lambda _: next(contents))
    calls = Calls()
    watched = module._Watch(file, calls, b"old")
    await watched.look()
    assert (calls.count, next(contents, None)) == (1, None)


async def test_does_not_wait_for_a_file_that_never_stands_still(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = (bytes([number]) for number in range(100))
    monkeypatch.setattr(module, "fingerprint", lambda _: next(contents))
    calls = Calls()
    await module._Watch(file, calls, b"old").look()
    assert calls.count == 1


async def test_a_file_that_is_as_it_was_again_is_no_change(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = iter([b"half", b"old"])
    monkeypatch.setattr(module, "fingerprint", lambda _: next(contents))
    calls = Calls()
    await module._Watch(file, calls, b"old").look()
    assert calls.count == 0


def test_a_fingerprint_is_of_the_content(file: Path) -> None:
    before = fingerprint(file)
    file.touch()
    assert fingerprint(file) == before
    file.write_text("a = 2\n")
    assert fingerprint(file) != before
    assert fingerprint(file.with_name("absent")) == b""
