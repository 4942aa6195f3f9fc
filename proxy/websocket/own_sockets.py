"""Upstream sockets of the gate's own, one per tenant: they hear of jobs that come in by Comfy API v2, whose clients have no sockets.

One is open before such a job can run, as long as one may still run, and again when ComfyUI has been away.
"""

from __future__ import annotations

from collections.abc import Callable

from policy.principal import TenantId
from policy.rules.results import SDK_CLIENT
from proxy.jobs.job import Job
from proxy.jobs.registry import JobRegistry
from proxy.websocket.event_sessions import EventSessions
from proxy.websocket.kept_sockets import KeptSockets


class OwnSockets:
    """gate: the name of this one; jobs that another one follows are heard there. is_connected: whether ComfyUI is there."""

    def __init__(
        self, sessions: EventSessions, registry: JobRegistry, gate: str, is_connected: Callable[[], bool]
    ) -> None:
        self._sessions = sessions
        self._registry = registry
        self._gate = gate
        self._is_connected = is_connected
        self._kept: KeptSockets[TenantId] = KeptSockets(
            self._open, is_open=self._hears, is_wanted=self._is_wanted, close=self._close
        )
        sessions.on_own_ended = self._kept.lost

    async def stop(self) -> None:
        await self._kept.stop()

    async def listen(self, tenant: TenantId) -> None:
        """Before a job of SDK_CLIENT goes to ComfyUI. While ComfyUI is away nothing runs, and `listen_for_all` comes before anything does."""
        if not self._hears(tenant) and self._is_connected():
            await self._kept.keep(tenant)

    async def prepare(self, job: Job) -> None:
        if job.client_id == SDK_CLIENT:
            await self.listen(job.tenant)

    async def listen_for_all(self) -> None:
        """ComfyUI is there, perhaps anew: it has jobs already, or is about to be given some."""
        for tenant in {job.tenant for job in self._registry.active() if self._is_heard_here(job)}:
            await self._kept.keep(tenant)

    def _hears(self, tenant: TenantId) -> bool:
        stream = self._sessions.stream(tenant, SDK_CLIENT)
        return stream is not None and stream.is_open and not stream.is_closing

    def _is_heard_here(self, job: Job) -> bool:
        return job.client_id == SDK_CLIENT and job.gate in ("", self._gate)

    def _is_wanted(self, tenant: TenantId) -> bool:
        stream = self._sessions.stream(tenant, SDK_CLIENT)
        if stream is not None and stream.is_attached:
            return True
        return any(job.tenant == tenant and self._is_heard_here(job) for job in self._registry.active())

    async def _open(self, tenant: TenantId) -> None:
        await self._sessions.hear(tenant, self._registry.of(tenant), SDK_CLIENT)

    def _close(self, tenant: TenantId) -> None:
        stream = self._sessions.stream(tenant, SDK_CLIENT)
        if stream is not None:
            stream.close()
