"""Makes a ComfyUI let go of the models that it has before a job that needs others, where its memory is short.

ComfyUI unloads models by itself, but only as many as it believes to need, and keeps what it unloads in its RAM. Used where there are several, since
only then it is known which models a job needs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from policy.call import Opaque, UpstreamCall
from policy.rules.jobs import json_call
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.job import JobState
from proxy.jobs.registry import JobRegistry
from proxy.upstream.client import Upstream

SHORT: Final = 0.1
"""Free memory of all that there is. What a job computes with needs about as much beside its models: with less left, others do not fit beside these."""
LIMIT_S: Final = 5.0
"""The job waits for it."""
_STATS: Final = UpstreamCall("GET", (Opaque("system_stats"),))

_log = logging.getLogger("comfygate")


class ModelMemory:
    """Of one ComfyUI, by its name."""

    def __init__(self, comfyui: str, upstream: Upstream, registry: JobRegistry) -> None:
        self._comfyui = comfyui
        self._upstream = upstream
        self._registry = registry

    async def make_room(self) -> None:
        """Before a job of other models than those that it was given last. Nothing that goes wrong here is the job's."""
        if self._is_behind_others():
            return
        try:
            stats = await self._upstream.ask(_STATS, time_limit_s=LIMIT_S)
            if stats.status != 200 or not is_short(stats.value):
                return
            reply = await self._upstream.ask(
                json_call("POST", ("free",), {"unload_models": True}), time_limit_s=LIMIT_S
            )
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            _log.info("whether %s has memory for other models is not known (%s)", self._comfyui, error)
            return
        if reply.status == 200:
            _log.info("%s has little memory left: it unloads its models, since others come next", self._comfyui)

    def _is_behind_others(self) -> bool:
        """ComfyUI unloads when the job that runs has ended: where another one comes before this one, it would load its models again."""
        return sum(job.state is not JobState.SENT for job in self._registry.given_to(self._comfyui)) > 1


def is_short(stats: Any) -> bool:
    """stats: what `GET /system_stats` answers. That of the first device counts, which runs the jobs; of the CPU the RAM."""
    found = _part(stats, "system")
    devices = stats.get("devices") if isinstance(stats, Mapping) else None
    free, total = found.get("ram_free"), found.get("ram_total")
    if isinstance(devices, list) and devices and isinstance(devices[0], Mapping) and devices[0].get("type") != "cpu":
        free, total = devices[0].get("vram_free"), devices[0].get("vram_total")
    if not isinstance(free, int | float) or not isinstance(total, int | float):
        return False
    return total > 0 and free < SHORT * total


def _part(stats: Any, name: str) -> Mapping[str, Any]:
    part = stats.get(name) if isinstance(stats, Mapping) else None
    return part if isinstance(part, Mapping) else {}
