"""When a ComfyUI is told to let go of its models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from proxy.jobs.job_rows import Given
from proxy.jobs.model_memory import is_short
from proxy.upstream.client import Upstream
from tests.proxy.jobs.asked import AskedComfy
from tests.proxy.jobs.following import SUBMITTED, Following, following
from tests.proxy.upstreams import GUARD_S, serving

GIB = 1024**3


def stats(vram: Any, ram: Any = 32 * GIB, kind: str = "cuda") -> dict[str, Any]:
    """What is free, of 24 and of 64 GiB."""
    device = {"type": kind, "vram_free": vram, "vram_total": 24 * GIB}
    return {"system": {"ram_free": ram, "ram_total": 64 * GIB}, "devices": [device, {"type": "cuda", "vram_free": 0}]}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (stats(2 * GIB), True),
        (stats(3 * GIB), False),
        (stats(3 * GIB, ram=GIB), False),
        (stats(GIB, kind="cpu"), False),
        (stats(24 * GIB, ram=GIB, kind="cpu"), True),
        ({"system": {"ram_free": GIB, "ram_total": 64 * GIB}, "devices": []}, True),
        ({"system": {"ram_free": 0, "ram_total": 0}}, False),
        (stats(None), False),
        ({"system": [], "devices": [7]}, False),
        ([], False),
        (None, False),
    ],
)
def test_what_is_short(told: Any, expected: bool) -> None:
    assert is_short(told) is expected


class Comfy(AskedComfy):
    """free: its memory, in bytes. status: of its answers to all but jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.free = GIB

    async def answer(self, call: str) -> web.StreamResponse | None:
        return web.json_response({}) if call == "POST /prompt" else None

    def value(self) -> Any:
        return stats(self.free)


@pytest.fixture
def comfy() -> Comfy:
    return Comfy()


@pytest.fixture
async def parts(comfy: Comfy) -> AsyncIterator[Following]:
    async with serving(comfy) as url:
        upstream = Upstream(url, GUARD_S)
        async with following(upstream) as parts:
            yield parts
        await upstream.stop()


async def sent(parts: Following, *, changes_models: bool = True) -> None:
    job = await parts.recorded()
    await parts.sender.send_all([Given(await parts.stored(job.prompt_id), SUBMITTED, None, changes_models)])


async def test_models_are_unloaded_before_others(parts: Following, comfy: Comfy) -> None:
    await sent(parts)
    assert comfy.calls == ["GET /system_stats", "POST /free", "POST /prompt"]
    assert comfy.documents("POST /free") == [{"unload_models": True}]


async def test_nothing_is_asked_where_the_models_stay(parts: Following, comfy: Comfy) -> None:
    await sent(parts, changes_models=False)
    assert comfy.calls == ["POST /prompt"]


async def test_where_there_is_room_they_stay(parts: Following, comfy: Comfy) -> None:
    comfy.free = 20 * GIB
    await sent(parts)
    assert comfy.calls == ["GET /system_stats", "POST /prompt"]


@pytest.mark.parametrize("status", [0, 404, 500])
async def test_a_comfyui_that_does_not_say_gets_its_job(parts: Following, comfy: Comfy, status: int) -> None:
    comfy.status = status
    await sent(parts)
    assert comfy.calls == ["GET /system_stats", "POST /prompt"]


async def test_one_job_before_it_runs_with_what_is_loaded(parts: Following, comfy: Comfy) -> None:
    await parts.running()
    await sent(parts)
    assert "POST /free" in comfy.calls


async def test_of_two_before_it_the_second_would_load_again(parts: Following, comfy: Comfy) -> None:
    parts.window = 3
    await parts.running()
    await parts.taken()
    await sent(parts)
    assert comfy.calls == ["POST /prompt"]
