"""Asks ComfyUI for its verdict of a job that has to wait: it is put behind everything in ComfyUI's queue, and taken out again at once.

ComfyUI checks a workflow only when it takes it, and some classes check by themselves, which no catalogue tells. What stands before it keeps the job
from running meanwhile, so ComfyUI is asked first whether there is enough of that; where it has ended all the same, the job has come to its turn and
stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from policy.call import Opaque, Tried, TryJob, UpstreamCall, UpstreamReply
from policy.rules.jobs import json_call
from policy.rules.prompt import LAST_PLACE
from proxy.http.errors import UpstreamUnavailable
from proxy.jobs.queue_reader import get_call, number_of

ENOUGH: Final = 2
"""Jobs that keep ComfyUI busy while it is asked: one that runs may end at any time, and the next one then runs for a while."""
LOOKS: Final = 10
LOOK_EACH_S: Final = 0.02

Ask = Callable[[UpstreamCall], Awaitable[UpstreamReply]]


async def try_job(ask: Ask, wish: TryJob, window: int) -> Tried | None:
    """ask: of ComfyUI. window: how many jobs it has at a time. Raises what `ask` raises; it is not known then whether ComfyUI has the job.

    None where it has nothing to do, and is given nothing for a while.
    """
    if not await _is_busy(ask, min(ENOUGH, window)):
        return None
    reply = await ask(wish.call)
    if reply.status != 200:
        return Tried(reply)
    deleted = await ask(json_call("POST", ("queue",), {"delete": [wish.prompt_id]}))
    if deleted.status != 200:
        raise UpstreamUnavailable(f"ComfyUI does not give a job back: it answered {deleted.status}.")
    return Tried(reply, is_there=await _is_there(ask, wish.prompt_id))


async def _is_busy(ask: Ask, enough: int) -> bool:
    """Waits for as many jobs as are enough. Where they do not come one will do that has run all the time: it is a long one."""
    constant: set[str] | None = None
    for _ in range(LOOKS):
        found = await _jobs(ask)
        if len(found) >= enough:
            return True
        constant = found if constant is None else constant & found
        await asyncio.sleep(LOOK_EACH_S)
    return bool(constant)


async def _jobs(ask: Ask) -> set[str]:
    """Ids of the jobs that ComfyUI has, without those that are only tried."""
    listed = await ask(get_call("api", "jobs", status="pending,in_progress"))
    rows = listed.value.get("jobs") if listed.status == 200 and isinstance(listed.value, dict) else None
    if isinstance(rows, list):
        items: list[Any] = [[row.get("priority"), row.get("id")] for row in rows if isinstance(row, dict)]
    else:
        queue = await ask(get_call("queue"))
        parts = queue.value if isinstance(queue.value, dict) else {}
        items = [*(parts.get("queue_running") or ()), *(parts.get("queue_pending") or ())]
    return {str(item[1]) for item in items if number_of(item) < LAST_PLACE}


async def _is_there(ask: Ask, prompt_id: str) -> bool:
    """Whether it runs, or has run: a queue tells nobody what it has deleted."""
    job = await ask(UpstreamCall("GET", (Opaque("api"), Opaque("jobs"), Opaque(prompt_id))))
    if job.status == 200:
        return True
    if isinstance(job.value, dict) and "error" in job.value:  # ComfyUI 0.33: no such job
        return False
    history = await ask(UpstreamCall("GET", (Opaque("history"), Opaque(prompt_id))))
    queue = await ask(UpstreamCall("GET", (Opaque("queue"),)))
    running = queue.value.get("queue_running") if isinstance(queue.value, dict) else None
    is_running = any(isinstance(item, list) and prompt_id in item[1:2] for item in running or ())
    return is_running or bool(history.value)
