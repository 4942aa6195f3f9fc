"""A Redis of the test's own, on a free port, and the callers that limits are tried on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from policy.principal import Principal, Role, parse_tenant
from proxy.config.limits import LimitsSettings
from proxy.limits.effective_limits import EffectiveLimits
from proxy.limits.redis_store import SharedStore
from proxy.persistence.sqlite import SqliteDatabase
from proxy.persistence.sqlite_file import STATE_FILE
from tests.ports import free_port
from tests.programs import path_of

# Slow machines must not look like a sick Redis where that is not the question.
PATIENCE_S = 240.0


class Clock:
    """Time that moves when the test says so."""

    def __init__(self, now_s: float = 1_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds


class RedisServer:
    """redis-server, without anything on disk. `kill` is kill -9."""

    def __init__(self, program: str) -> None:
        self._program = program
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            self._program,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            async for line in self._process.stdout:
                if b"Ready to accept connections" in line:
                    return
        raise AssertionError("redis-server ended while it started")

    async def kill(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            await process.communicate()

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    server = RedisServer(path_of("redis-server"))
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[SharedStore]:
    store = SharedStore(redis.url, timeout_s=PATIENCE_S)
    await store.start()
    assert store.is_up
    yield store
    await store.stop()


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteDatabase]:
    """A gate's database, closed at the end."""
    state = SqliteDatabase(path)
    try:
        await state.open()
        yield state
    finally:
        await state.close()


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    async with opened(tmp_path / "state" / STATE_FILE) as state:
        yield state


@pytest.fixture
def clock() -> Clock:
    return Clock()


def context(tenant: str = "alice", subject: str = "7f3a9c21") -> Principal:
    return Principal(subject, parse_tenant(tenant), Role.USER)


def allotment(
    default: Mapping[str, Any], keys: Mapping[tuple[str, str], str] | None = None, **named: Any
) -> EffectiveLimits:
    """Limits "default" for alice and bob, others by keyword."""
    settings = LimitsSettings.model_validate({"default": default, **named})
    return EffectiveLimits(settings, {"alice": "default", "bob": "default"}, keys or {})
