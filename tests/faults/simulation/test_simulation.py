"""The simulated world is one: time passes in order and without waiting, and its ComfyUI does as the stand-in does."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import orjson
import pytest

from policy.call import Opaque, UpstreamCall, UpstreamReply
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, UpstreamUnreachable
from tests.faults.recording import work
from tests.faults.simulation.comfyui import Moods, SimulatedComfyUI
from tests.faults.simulation.loop import Deadlock, now_s, simulate


def call(method: str, *path: str, **body: Any) -> UpstreamCall:
    return UpstreamCall(method, tuple(map(Opaque, path)), body=orjson.dumps(body) if body else None)


async def ask(comfyui: SimulatedComfyUI, method: str, *path: str, **body: Any) -> UpstreamReply:
    return await comfyui.ask(call(method, *path, **body), time_limit_s=10.0)


async def submit(comfyui: SimulatedComfyUI, name: str, number: float, seconds: float = 1.0) -> UpstreamReply:
    return await ask(comfyui, "POST", "prompt", prompt=work(name, seconds), prompt_id=f"id-{name}", number=number)


def test_an_hour_passes_at_once() -> None:
    async def hour() -> tuple[float, list[str]]:
        begun_s, said = now_s(), list[str]()

        async def say(word: str, after_s: float) -> None:
            await asyncio.sleep(after_s)
            said.append(word)

        await asyncio.gather(say("second", 3600), say("first", 1800), asyncio.to_thread(said.append, "at once"))
        return now_s() - begun_s, said

    begun_s = time.monotonic()
    passed_s, said = simulate(hour)
    assert (round(passed_s), said) == (3600, ["at once", "first", "second"])
    assert time.monotonic() - begun_s < 60


def test_who_waits_for_ever_is_told() -> None:
    with pytest.raises(Deadlock):
        simulate(lambda: asyncio.Event().wait())


def test_jobs_run_in_the_order_of_their_numbers_and_a_restart_forgets_them() -> None:
    async def story() -> SimulatedComfyUI:
        comfyui = SimulatedComfyUI(random.Random(1))
        with pytest.raises(UpstreamUnreachable):
            await submit(comfyui, "early", 1.0)
        comfyui.start()
        for name, number in (("a", 1.0), ("c", 3.0), ("b", 2.0)):
            assert (await submit(comfyui, name, number)).status == 200
        await asyncio.sleep(1.5)
        assert list((await ask(comfyui, "GET", "history")).value) == ["id-a"]
        assert (await ask(comfyui, "GET", "queue")).value["queue_running"][0][1] == "id-b"
        waiting = asyncio.ensure_future(ask(comfyui, "GET", "queue"))
        await asyncio.sleep(0)
        await comfyui.kill()
        with pytest.raises(UpstreamUnavailable):
            await waiting
        comfyui.start()
        assert (await ask(comfyui, "GET", "history")).value == {}
        return comfyui

    comfyui = simulate(story)
    assert [(line.event, line.name) for line in comfyui.lines] == [("begin", "a"), ("end", "a"), ("begin", "b")]
    assert list(comfyui.deaths) == [1]


@pytest.mark.parametrize(
    ("moods", "error", "is_done"),
    [
        (Moods(lost=1.0), UpstreamUnavailable, True),
        (Moods(unheard=1.0), UpstreamUnavailable, False),
        (Moods(silent=1.0), UpstreamTimeout, True),
    ],
)
def test_an_answer_that_does_not_come(moods: Moods, error: type[Exception], is_done: bool) -> None:
    async def story() -> int:
        comfyui = SimulatedComfyUI(random.Random(1))
        comfyui.start()
        comfyui.moods = moods
        with pytest.raises(error):
            await submit(comfyui, "a", 1.0, 100.0)
        return len(comfyui.given)

    assert simulate(story) == int(is_done)
