"""CONTRIBUTING.md draws the house as it stands: the way of a request is the one that a request really takes."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import pytest

from tests.contract.driver import saving
from tests.harness import Running
from tests.proxy.upstreams import GUARD_S

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
_HOP = re.compile(r"`((?:proxy|policy)/[\w/]+\.py:[\w.]+)`")
_AS_ABOVE = re.compile(r"^1\. to (\d+)\. as above", re.MULTILINE)


def ways() -> dict[str, list[str]]:
    """The hops of each way, those that are `as above` written out. A hop in brackets is told of, not passed."""
    found: dict[str, list[str]] = {}
    first: list[str] = []
    for name, text in re.findall(r"<!-- way: (.+?) -->\n(.*?)(?=\n<!-- way|\n## )", TEXT, re.DOTALL):
        hops = _HOP.findall(re.sub(r"\(`[^`]*`\)", "", text))
        if shared := _AS_ABOVE.search(text):
            hops = first[: int(shared[1]) - 0] + hops
        first = first or hops
        found[name] = hops
    return found


class Trace:
    """Which functions of the list were entered, in the order of their first call, and how often each."""

    def __init__(self, hops: list[str]) -> None:
        self.wanted = {tuple(hop.split(":")): hop for hop in hops}
        self.order: list[str] = []
        self.frames: dict[str, list[FrameType]] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(ROOT)):
            return
        hop = self.wanted.get((code.co_filename[len(str(ROOT)) + 1 :], code.co_qualname))
        if hop is None:
            return
        known = self.frames.setdefault(hop, [])
        if not any(frame is other for other in known):  # a coroutine is called again whenever it goes on
            known.append(frame)
        if hop not in self.order:
            self.order.append(hop)


@contextmanager
def traced(hops: list[str]) -> Iterator[Trace]:
    trace = Trace(hops)
    sys.setprofile(trace)
    try:
        yield trace
    finally:
        sys.setprofile(None)


def test_three_ways_are_drawn() -> None:
    found = ways()
    assert list(found) == ["GET /view", "POST /prompt", "GET /ws"]
    assert all(len(hops) > 10 and len(set(hops)) == len(hops) for hops in found.values())


@pytest.mark.parametrize("way", ["GET /view", "POST /prompt", "GET /ws"])
async def test_a_request_passes_each_hop_once_and_in_this_order(gate: Running, way: str) -> None:
    hops = ways()[way]
    await gate.gate.dependencies.catalogue.known()
    await gate.gate.dependencies.queue_watchers.first.stop()  # it asks ComfyUI by itself
    async with asyncio.timeout(GUARD_S), aiohttp.ClientSession() as session:
        with traced(hops) as trace:
            headers = gate.headers("alice")
            if way == "GET /view":
                await (await session.get(gate.address("/view?filename=none.bin"), headers=headers)).read()
            elif way == "POST /prompt":
                body = {"prompt": saving("way"), "client_id": "way"}
                answer = await session.post(gate.address("/prompt"), json=body, headers=headers)
                assert answer.status == 200
            else:
                async with session.ws_connect(gate.address("/ws?clientId=way"), headers=headers) as socket:
                    await socket.receive()
                await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
    assert trace.order == hops
    assert {hop: len(frames) for hop, frames in trace.frames.items() if len(frames) != 1} == {}
