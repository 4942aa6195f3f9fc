"""Fixtures by role: `comfy` is the stand-in, `gate` the gate before it, with keys for alice, mallory and an admin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.standin import StandIn
from tests.harness import Running, running_gate


@pytest.fixture
async def comfy(tmp_path: Path) -> AsyncIterator[StandIn]:
    stand_in = StandIn(tmp_path / "comfyui", frontend=False)
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest.fixture
async def gate(tmp_path: Path, comfy: StandIn) -> AsyncIterator[Running]:
    async with running_gate(tmp_path, comfy.url) as running:
        running.comfy = comfy
        yield running
