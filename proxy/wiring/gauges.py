"""Brings the gauges up to date, just before a scrape."""

from __future__ import annotations

import asyncio
from typing import Final

from proxy.dependencies import Dependencies
from proxy.jobs.store_state import Dispatching, dispatching
from proxy.observability.comfyui_metrics import states_of
from proxy.observability.metrics import Metrics
from proxy.persistence.operations import Database, DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.wiring.fleet import Fleet

PATIENCE_S: Final = 1.0
"""A database that hangs is no reason for a scrape without an answer: what was read last is told."""


class Gauges:
    """fleet: None where no other ComfyUI can come."""

    def __init__(self, parts: Dependencies, fleet: Fleet | None, database: Database, metrics: Metrics) -> None:
        self._parts = parts
        self._fleet = fleet
        self._database = database
        self._metrics = metrics
        self._tasks = Tasks()
        self._reading: asyncio.Task[None] | None = None
        self._last = Dispatching()

    async def stop(self) -> None:
        await self._tasks.stop()

    async def refresh(self) -> None:
        await self._read()
        parts, metrics = self._parts, self._metrics
        parts.recorder.count_dropped()
        queue_watcher = parts.queue_watchers.first
        metrics.upstream_up.set(queue_watcher.is_connected)
        metrics.conversions_waiting.set(parts.conversions.waiting)
        metrics.worker_stuck.set(queue_watcher.is_worker_stuck)
        metrics.observer_last_sync_age_seconds.set(queue_watcher.last_sync_age_s)
        config = parts.compiled.config
        metrics.refresh(parts.sockets, parts.registry.active(), config.tenants)
        comfyuis = config.comfyuis if self._fleet is None else self._fleet.settings
        states = states_of(config, parts.queue_watchers, comfyuis, self._last)
        metrics.comfyuis.refresh(states, parts.registry.active())

    async def _read(self) -> None:
        """Of several ComfyUIs, what stands in the database alone."""
        if not self._parts.registry.comfyuis.has_others:
            return
        if self._reading is None or self._reading.done():
            self._reading = self._tasks.start(self._read_last(), "gauges")
        await asyncio.wait((self._reading,), timeout=PATIENCE_S)

    async def _read_last(self) -> None:
        try:
            self._last = await self._database.read(dispatching)
        except DatabaseUnavailable:
            return
