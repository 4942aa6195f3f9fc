"""Two whole gates on one Redis: one limit together, and what is told when Redis goes and comes back."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from standin import StandIn
from tests.contract.driver import saving
from tests.harness import Running, running_gate
from tests.proxy.conftest import PATIENCE_S, RedisServer


async def prompt(gate: Running) -> int:
    return await gate.status("POST", "/prompt", "alice", json={"prompt": saving("shared")})


async def store_up(gate: Running) -> str:
    async with gate.session.get(f"{gate.ops_url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(line for line in lines if line.startswith("comfygate_limit_store_up ")).split()[1]


async def until_told(gate: Running, value: str) -> None:
    while await store_up(gate) != value:
        # Redis is asked by whoever comes; its return is looked for meanwhile.
        assert await gate.status("GET", "/queue", "alice") == 200
        await asyncio.sleep(0.01)


async def test_two_gates_hold_one_limit_and_outlive_their_redis(
    tmp_path: Path, comfy: StandIn, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    more = f'[limits]\nstorage = "{redis.url}"\nstorage_timeout = "5s"\n'
    for name in "ab":
        (tmp_path / name).mkdir()
    async with (
        running_gate(tmp_path / "a", comfy.url, more=more) as one,
        running_gate(tmp_path / "b", comfy.url, more=more) as other,
        asyncio.timeout(3 * PATIENCE_S),
    ):
        for gate in (one, other):
            text = gate.config_file.read_text(encoding="utf-8")
            gate.config_file.write_text(
                text.replace('prompts = "100000/minute"', 'prompts = "4/day"'), encoding="utf-8"
            )
            assert await gate.gate.reload(gate.config_file)
            assert await store_up(gate) == "1.0"
        assert [await prompt(gate) for gate in (one, other, one, other)] == [200] * 4
        assert [await prompt(gate) for gate in (one, other)] == [429] * 2
        await redis.kill()
        for gate in (one, other):
            await until_told(gate, "0.0")
            assert await prompt(gate) == 429, "nothing is opened"
        await redis.start()
        for gate in (one, other):
            await until_told(gate, "1.0")
            assert await prompt(gate) == 429, "nor forgotten"
    assert redis.url not in caplog.text
