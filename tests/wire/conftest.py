"""`wire`: a gate that asks ComfyUI nothing by itself any more, so that whatever reaches ComfyUI came from the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from standin import StandIn
from standin.middleware import Received
from tests.harness import Running, running_gate
from tests.wire.raw import RawAnswer, request, send


@dataclass
class Wire:
    gate: Running
    comfy: StandIn

    @property
    def key(self) -> str:
        return self.gate.keys["admin"]

    async def ask(self, target: bytes | str, *lines: bytes | str, method: str = "GET", body: bytes = b"") -> RawAnswer:
        """An admin's request, with further header lines."""
        return await self.send(request(target, self.key, *lines, method=method, body=body))

    async def send(self, data: bytes) -> RawAnswer:
        return await send(self.gate.url, data)

    def only(self) -> Received:
        """The one call that reached ComfyUI."""
        assert len(self.comfy.received) == 1, self.comfy.received
        return self.comfy.received.pop()


@pytest.fixture
async def wire(tmp_path: Path, comfy: StandIn) -> AsyncIterator[Wire]:
    more = '[limits.logins]\nfailures = "100000/minute"\ndelay = "0s"'
    async with running_gate(tmp_path, comfy.url, more=more) as running:
        await running.gate.dependencies.queue_watchers.first.stop()
        comfy.received.clear()
        yield Wire(running, comfy)
