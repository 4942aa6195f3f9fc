"""All limits of one gate, as the pipeline asks them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from policy.principal import TenantId
from policy.routes import Budget
from proxy.config import Config
from proxy.config.reader import check_config
from proxy.http.errors import LimitExceeded
from proxy.http.request import Request
from proxy.limits.gpu_usage_db import GpuUsage
from proxy.limits.limits import Limits
from proxy.persistence.sqlite import SqliteDatabase
from proxy.persistence.sqlite_file import STATE_FILE
from tests.proxy.conftest import PATIENCE_S, RedisServer, context

ALICE = TenantId("alice")


def asked() -> Request:
    return Request("GET", "/", CIMultiDict(), None)  # type: ignore[arg-type]


def config(folder: Path, limits: Mapping[str, Any], **server: Any) -> Config:
    key = {"id": "7f3a9c21", "hash": "sha256:" + "0" * 64, "tenant": "alice", "limits": "small"}
    document = {
        "server": server,
        "tenants": {"alice": {"limits": "large"}, "bob": {}},
        "keys": [key],
        "limits": {"small": {"requests": "2/minute"}, "large": {"weight": 3.0}, **limits},
    }
    return check_config(document, folder / "config.toml", environ={})


async def test_everything_is_built_from_the_configuration(tmp_path: Path, state: SqliteDatabase) -> None:
    limits = Limits(
        config(tmp_path, {"large": {"requests": "5/minute", "gpu_seconds": "100/day; 50/hour", "weight": 3.0}}), state
    )
    await limits.start()
    try:
        assert limits.store is None
        assert limits.allotment.weights() == {"alice": 3.0, "bob": 1.0}
        for _ in range(2):
            await limits.acquire(context(), Budget.READ, asked())
        with pytest.raises(LimitExceeded, match="2 requests per minute of the key"):
            await limits.acquire(context(), Budget.READ, asked())
        await limits.spend_bytes(context(), 10**9)
        await limits.slots.claim_job(ALICE, "job")
        await limits.budgets.add(ALICE, "job", 20.0)
        views = {view.name: (view.size, view.remaining, view.total) for view in await limits.remaining(context())}
        expected = {
            "requests-per-minute": ("5/minute", 3, 5),
            "key-requests-per-minute": ("2/minute", 0, 2),
            "queued-jobs": ("10", 9, 10),
        }
        assert {name: views[name] for name in expected} == expected
        gpu = await limits.gpu_budget(context())
        assert gpu is not None
        assert gpu.size == "50/hour"
        assert gpu.remaining == 30.0
        assert await limits.gpu_budget(context("bob")) is None
    finally:
        await limits.stop()
    assert await GpuUsage(state).totals_s([("alice", 0.0)]) == [20.0]


async def test_a_failed_login_waits(tmp_path: Path, state: SqliteDatabase) -> None:
    limits = Limits(config(tmp_path, {"logins": {"failures": "1/minute", "delay": 0}}), state)
    await limits.failed("203.0.113.9", None)
    with pytest.raises(LimitExceeded):
        await limits.failed("203.0.113.9", None)


async def test_a_reload_reaches_every_part(
    tmp_path: Path, state: SqliteDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    limits = Limits(config(tmp_path, {"logins": {"failures": "9/minute", "delay": 0}}), state)
    await limits.acquire(context(), Budget.READ, asked())
    limits.apply(
        config(
            tmp_path,
            {
                "logins": {"failures": "0/minute"},
                "large": {"requests": "1/minute", "queued_jobs": 0},
                "storage": "redis://user:secret@127.0.0.1:1/0",
            },
            max_connections=1,
        )
    )
    with pytest.raises(LimitExceeded, match="1 requests per minute of the tenant"):
        await limits.acquire(context(), Budget.READ, asked())
    with pytest.raises(LimitExceeded):
        await limits.slots.claim_job(ALICE, "job")
    with pytest.raises(LimitExceeded):
        await limits.failed("203.0.113.9", None)
    assert limits.slots.claim_connection() is not None
    assert limits.slots.claim_connection() is None
    assert limits.store is None
    assert "restart the gate" in caplog.text
    assert "secret" not in caplog.text


async def test_the_url_of_redis_may_come_from_a_file(tmp_path: Path, state: SqliteDatabase, redis: RedisServer) -> None:
    (tmp_path / "redis-url").write_text(redis.url + "\n", encoding="utf-8")
    states: list[bool] = []
    read = config(tmp_path, {"storage_file": "redis-url", "storage_timeout": "5s"})
    limits = Limits(read, state, on_store_change=states.append)
    await limits.start()
    try:
        assert limits.store is not None
        assert limits.store.is_up
        assert limits.store.address == f"127.0.0.1:{redis.port}"
        await limits.acquire(context(), Budget.READ, asked())
        limits.apply(read)
        await redis.kill()
        await limits.acquire(context(), Budget.READ, asked())
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(LimitExceeded):
                await limits.acquire(context(), Budget.READ, asked())
    finally:
        await limits.stop()
    assert states == [True, False]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Limits(config(tmp_path, {"storage_file": "nowhere"}), SqliteDatabase(tmp_path / STATE_FILE))


def test_without_redis_nobody_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        Limits(config(tmp_path, {}), SqliteDatabase(tmp_path / STATE_FILE)).apply(config(tmp_path, {}))
    assert not caplog.records
