"""Upstream sockets of the gate's own, one per tenant: they hear of jobs that come in by Comfy API v2, whose clients have no sockets.

One is open before such a job can run, as long as one may still run, and again when ComfyUI has been away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from policy.principal import TenantId
from policy.rules.results import SDK_CLIENT
from proxy.jobs.job import Job, JobState
from proxy.jobs.registry import JobRegistry
from proxy.websocket.event_sessions import EventSessions
from proxy.websocket.kept_sockets import KeptSockets

HEARD_S: Final = 2.0
"""By then something was heard of a job that is known to run: another gate tells what it hears within a second (proxy/v2/progress_relay.py)."""


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
        self.was_heard: Callable[[Job], bool] | None = None
        """Whether anything of a job's run was heard, here or elsewhere; where there may be other gates."""

    async def stop(self) -> None:
        await self._kept.stop()

    async def listen(self, tenant: TenantId) -> None:
        """Before a job of SDK_CLIENT goes to ComfyUI. While ComfyUI is away nothing runs, and `listen_for_all` comes before anything does."""
        if not self._hears(tenant) and self._is_connected():
            await self._kept.keep(tenant)

    async def prepare(self, job: Job) -> None:
        if job.client_id == SDK_CLIENT:
            await self.listen(job.tenant)

    def taken_over(self, job: Job) -> None:
        """Its gate is gone, and with it its socket: whichever was open beside that is on ComfyUI's list no more (E.4)."""
        if job.client_id == SDK_CLIENT:
            self._renew(job.tenant)

    def started(self, job: Job) -> None:
        """One of several gates finds out whether it hears of its own jobs at all: another one may have closed a socket of the same id (E.4)."""
        if self.was_heard is not None and job.client_id == SDK_CLIENT and job.gate == self._gate:
            asyncio.get_running_loop().call_later(HEARD_S, self._look_at, job)

    def _look_at(self, job: Job) -> None:
        if self.was_heard is not None and job.state is JobState.RUNNING and not self.was_heard(job):
            self._renew(job.tenant)

    def _renew(self, tenant: TenantId) -> None:
        if self._hears(tenant):
            self._close(tenant)  # it is opened anew, since it is needed
        else:
            self._kept.keep_soon(tenant)

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
        # Other gates' too: when one of several sockets of an id is closed ComfyUI takes all of them off its list (E.4).
        return any(job.tenant == tenant and job.client_id == SDK_CLIENT for job in self._registry.active())

    async def _open(self, tenant: TenantId) -> None:
        await self._sessions.hear(tenant, self._registry.of(tenant), SDK_CLIENT)

    def _close(self, tenant: TenantId) -> None:
        stream = self._sessions.stream(tenant, SDK_CLIENT)
        if stream is not None:
            stream.close()
