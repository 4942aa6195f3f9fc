"""Two rules of the dispatcher, each by itself: what is only tried cannot run, and who may have ended a ComfyUI goes alone."""

from __future__ import annotations

import asyncio
import random

import orjson
import pytest

from policy.call import Opaque, Tried, TryJob, UpstreamCall, UpstreamReply
from policy.rules.prompt import LAST_PLACE
from proxy.jobs.job_rows import Ended, JobRow, StoredState, Submitted
from proxy.jobs.store_giving import give
from proxy.jobs.store_operations import add_waiting, finish, give_back
from proxy.jobs.trial import LOOK_EACH_S, LOOKS, try_job
from tests.faults.recording import work
from tests.faults.simulation.comfyui import SimulatedComfyUI
from tests.faults.simulation.database import Store
from tests.faults.simulation.loop import simulate

SHORT_S = LOOKS * LOOK_EACH_S / 2


def submission(name: str, number: float, seconds: float) -> UpstreamCall:
    body = {"prompt": work(name, seconds), "prompt_id": f"id-{name}", "number": number}
    return UpstreamCall("POST", (Opaque("prompt"),), body=orjson.dumps(body))


@pytest.mark.parametrize(
    ("lengths_s", "window", "is_tried"),
    [
        ((), 2, False),
        ((SHORT_S,), 2, False),
        ((3600.0,), 2, True),
        ((SHORT_S, SHORT_S), 2, True),
        ((SHORT_S,), 1, True),
    ],
    ids=["idle", "a short job", "a long job", "two jobs", "a window of one"],
)
def test_a_job_is_tried_only_behind_what_keeps_it_from_running(
    lengths_s: tuple[float, ...], window: int, is_tried: bool
) -> None:
    async def story() -> tuple[Tried | None, SimulatedComfyUI]:
        comfyui = SimulatedComfyUI(random.Random(1))

        async def ask(call: UpstreamCall) -> UpstreamReply:
            return await comfyui.ask(call, time_limit_s=10.0)

        comfyui.start()
        for number, seconds in enumerate(lengths_s):
            await ask(submission(f"before-{number}", number, seconds))
        tried = await try_job(ask, TryJob("id-tried", submission("tried", LAST_PLACE, 1.0)), window)
        await asyncio.sleep(10.0)
        return tried, comfyui

    tried, comfyui = simulate(story)
    assert (tried is not None) == is_tried
    assert "tried" not in [line.name for line in comfyui.lines]


def test_a_job_that_comfyui_had_when_it_went_away_goes_alone() -> None:
    store = Store(random.Random(1))

    def given() -> list[str]:
        return [each.job.prompt_id for each in store.work(give("default", 2, "gate", 0.0, 10.0, {}))]

    for name in ("a", "b", "c"):
        store.work(add_waiting(JobRow(name, "alice"), Submitted(b"{}", b"[]", b"[]")))
    assert given() == ["a", "b"]
    for name in ("a", "b"):
        store.work(give_back(name, 1.0, "comfyui-gone"))
    for name in ("a", "b"):
        assert (given(), given()) == ([name], [])
        store.work(finish(name, Ended(StoredState.SUCCEEDED, 2.0)))
    assert given() == ["c"]
    store.close()
