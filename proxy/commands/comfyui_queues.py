"""Asks each ComfyUI what it runs and what waits there, for commands that show it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from proxy.config import Config
from proxy.config.comfyui import ComfyUISettings
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.queue_reader import get_call
from proxy.upstream.client import Upstream

_LIMIT_S: Final = 5.0
_LOOK_AGAIN_S: Final = 1.0
"""Between two jobs none runs for a moment."""


class ToldQueue(NamedTuple):
    """Ids of jobs."""

    running: frozenset[str]
    pending: frozenset[str]

    @property
    def stands(self) -> bool:
        """It has jobs waiting and runs none."""
        return bool(self.pending) and not self.running


async def ask_queues(config: Config) -> dict[str, ToldQueue | None]:
    """By name; None of one that does not tell its queue. One that stands is looked at twice."""
    queues = await asyncio.gather(*(_ask(config, comfyui) for comfyui in config.comfyuis))
    return {comfyui.name: queue for comfyui, queue in zip(config.comfyuis, queues, strict=True)}


async def _ask(config: Config, comfyui: ComfyUISettings) -> ToldQueue | None:
    upstream = Upstream(comfyui.url, min(_LIMIT_S, config.upstream.connect_timeout))
    try:
        queue = await _read(upstream)
        if queue is not None and queue.stands:
            await asyncio.sleep(_LOOK_AGAIN_S)
            later = await _read(upstream)
            queue = later and later._replace(pending=later.pending & queue.pending)
        return queue
    except (UpstreamUnavailable, UpstreamTimeout):
        return None
    finally:
        await upstream.stop()


async def _read(upstream: Upstream) -> ToldQueue | None:
    reply = await upstream.ask(get_call("queue"), time_limit_s=_LIMIT_S)
    told = reply.value if reply.status == 200 else None
    if not isinstance(told, Mapping):
        return None
    return ToldQueue(_ids(told.get("queue_running")), _ids(told.get("queue_pending")))


def _ids(items: Any) -> frozenset[str]:
    listed = items if isinstance(items, list) else []
    return frozenset(str(item[1]) for item in listed if isinstance(item, list) and len(item) > 1)
