"""Upstream sockets of the gate's own, one per tenant: they hear of jobs that come in by Comfy API v2, whose clients have no sockets.

One is open before such a job can run, as long as one may still run, and again when ComfyUI has been away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from policy.principal import TenantId
from policy.rules.results import SDK_CLIENT
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.job import Job
from proxy.jobs.registry import JobRegistry
from proxy.tasks import Tasks
from proxy.websocket.event_sessions import EventSessions

LOOK_EACH_S: Final = 30.0
"""How long one stays open at least: clients submit one job after the other."""
_TRY_AGAIN_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)

_log = logging.getLogger("comfygate")


class OwnSockets:
    """gate: the name of this one; jobs that another one follows are heard there. is_connected: whether ComfyUI is there."""

    def __init__(
        self, sessions: EventSessions, registry: JobRegistry, gate: str, is_connected: Callable[[], bool]
    ) -> None:
        self._sessions = sessions
        self._registry = registry
        self._gate = gate
        self._is_connected = is_connected
        self._looks: dict[TenantId, asyncio.TimerHandle] = {}
        self._opening: set[TenantId] = set()
        self._tasks = Tasks()
        self._is_stopping = False
        sessions.on_own_ended = self._ended

    async def stop(self) -> None:
        self._is_stopping = True
        for timer in self._looks.values():
            timer.cancel()
        self._looks.clear()
        await self._tasks.stop()

    async def listen(self, tenant: TenantId) -> None:
        """Before a job of SDK_CLIENT goes to ComfyUI. While ComfyUI is away nothing runs, and `listen_for_all` comes before anything does."""
        if not self._hears(tenant) and self._is_connected():
            await self._open(tenant)

    async def prepare(self, job: Job) -> None:
        if job.client_id == SDK_CLIENT:
            await self.listen(job.tenant)

    async def listen_for_all(self) -> None:
        """ComfyUI is there, perhaps anew: it has jobs already, or is about to be given some."""
        for tenant in {job.tenant for job in self._registry.active() if self._is_heard_here(job)}:
            await self._open(tenant)

    def _hears(self, tenant: TenantId) -> bool:
        stream = self._sessions.stream(tenant, SDK_CLIENT)
        return stream is not None and stream.is_open and not stream.is_closing

    def _is_heard_here(self, job: Job) -> bool:
        return job.client_id == SDK_CLIENT and job.gate in ("", self._gate)

    def _is_wanted(self, tenant: TenantId) -> bool:
        return any(job.tenant == tenant and self._is_heard_here(job) for job in self._registry.active())

    async def _open(self, tenant: TenantId) -> bool:
        try:
            await self._sessions.hear(tenant, self._registry.of(tenant), SDK_CLIENT)
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            _log.info("the progress of jobs of tenant %s is not heard: %s", tenant, error)
            self._ended(tenant)
            return False
        if tenant not in self._looks:
            self._look_later(tenant)
        return True

    def _look_later(self, tenant: TenantId) -> None:
        self._looks[tenant] = asyncio.get_running_loop().call_later(LOOK_EACH_S, self._look, tenant)

    def _look(self, tenant: TenantId) -> None:
        """Closes it where nobody needs it any more."""
        del self._looks[tenant]
        stream = self._sessions.stream(tenant, SDK_CLIENT)
        if self._is_wanted(tenant) or (stream is not None and stream.is_attached):
            self._look_later(tenant)
        elif stream is not None:
            stream.close()

    def _ended(self, tenant: TenantId) -> None:
        if not self._is_stopping and tenant not in self._opening and self._is_wanted(tenant):
            self._opening.add(tenant)
            self._tasks.start(self._open_again(tenant), "event stream of the gate's own")

    async def _open_again(self, tenant: TenantId) -> None:
        failures = 0
        try:
            while self._is_wanted(tenant):
                await asyncio.sleep(_TRY_AGAIN_S[min(failures, len(_TRY_AGAIN_S) - 1)])
                if self._hears(tenant) or await self._open(tenant):
                    return
                failures += 1
        finally:
            self._opening.discard(tenant)
