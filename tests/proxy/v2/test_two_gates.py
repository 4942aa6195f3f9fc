"""Clients that follow jobs at either of two gates hear how far they are, whichever gate has given them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from policy.principal import TenantId
from policy.rules.results import SDK_CLIENT
from proxy.websocket import own_sockets
from standin import StandIn
from tests.harness import Running, running_gate
from tests.proxy.test_postgres_gate import jobs_in
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.following import finished, following, saving, slow, submit

ALICE = TenantId("alice")
Two = tuple[Running, Running]


@pytest.fixture
async def two(tmp_path: Path, comfy: StandIn, postgres_url: str) -> AsyncIterator[Two]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    more = jobs_in(postgres_url)
    async with (
        running_gate(tmp_path / "one", comfy.url, more=more) as one,
        running_gate(tmp_path / "two", comfy.url, more=more) as other,
    ):
        other.config_file.write_text(one.config_file.read_text(encoding="utf-8"), encoding="utf-8")  # the same keys
        assert await other.gate.reload(other.config_file)
        other.keys = one.keys
        yield one, other


async def _is_known(gate: Running, job: str) -> None:
    async with asyncio.timeout(GUARD_S):
        while gate.gate.dependencies.registry.job(job) is None:
            await asyncio.sleep(0.01)


def _socket(gate: Running) -> Any:
    session = gate.gate.dependencies.streams.stream(ALICE, SDK_CLIENT)
    assert session is not None
    return session.at("")._socket


async def test_both_gates_hear_how_far_the_jobs_of_each_are(two: Two) -> None:
    for gate, other in (two, two[::-1]):
        job = await submit(gate, slow(3.0, 30))
        await _is_known(other, job)
        async with following(gate, job) as here, following(other, job) as there:
            for stream in (here, there):
                await stream.until("progress", current_node="3")
                await stream.rest()
                assert stream.seen[-1] == ("status", {"status": "succeeded"})
                values = [each["value"] for each in stream.of("progress")]
                assert values == sorted(values)


async def test_one_hears_again_when_the_other_has_closed_its_socket(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """ComfyUI takes whoever has that id off its list."""
    monkeypatch.setattr(own_sockets, "HEARD_S", 0.1)
    one, other = two
    await finished(one, await submit(one, saving()))
    await finished(other, await submit(other, saving("other", 8)))
    _socket(other).abort()
    job = await submit(one, slow(GUARD_S, 2400))
    async with following(one, job) as stream:
        await stream.until("progress", current_node="3")
        await one.json("POST", f"/api/v2/jobs/{job}/cancel", "alice")
        await stream.rest()
