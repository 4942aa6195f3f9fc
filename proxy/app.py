"""The composition root: builds everything from a configuration, starts and stops the listeners, swaps the configuration while it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from aiohttp import web

from policy.principal import Principal
from policy.routes import Budget
from proxy.catalogue import CatalogueSource
from proxy.config import Config, ConfigError, load_config
from proxy.desk import Desk
from proxy.files import TenantFiles
from proxy.gatekeeper import Gatekeeper
from proxy.gatepages import GatePages
from proxy.ledger import Job, Ledger
from proxy.listeners import Listener, public_server
from proxy.metrics import Metrics
from proxy.observer import Observer
from proxy.ops import Ops
from proxy.pages.me import LimitView
from proxy.pipeline import Pipeline
from proxy.record import Recorder, RequestLog
from proxy.rulebook import build_rulebook
from proxy.services import Services
from proxy.shelf import Shelf
from proxy.sockets import GATE_STOPS, Sockets
from proxy.streams import EventStreams, JobHooks
from proxy.tasks import Tasks
from proxy.turns import Turns
from proxy.upstream import Upstream

_log = logging.getLogger("comfygate")
_EXPIRY_CHECK_S: Final = 0.5


class _NoLimits:
    async def acquire(self, principal: Principal, budget: Budget) -> list[tuple[str, str]]:
        return []

    async def spend_bytes(self, principal: Principal, amount: int) -> None: ...

    async def failed(self, address: str, key_id: str | None) -> None: ...

    async def remaining(self, principal: Principal) -> list[LimitView]:
        return []

    async def gpu_budget(self, principal: Principal) -> LimitView | None:
        return None


class Gate:
    """One running gate. `services.rulebook` is what a reload replaces; everything else lives until stop()."""

    def __init__(self, config: Config, log: RequestLog) -> None:
        """Raises ConfigError."""
        rulebook = build_rulebook(config)
        self.metrics = Metrics()
        self._tasks = Tasks()
        upstream = Upstream(config.upstream.url, config.upstream.connect_timeout)
        ledger = Ledger()
        catalogue = CatalogueSource(upstream)
        observer = Observer(
            upstream, ledger, on_started=self._job_moved, on_ended=self._job_moved, on_connected=catalogue.renew
        )
        sockets = Sockets()
        self._streams = EventStreams(
            upstream,
            sockets,
            reconnect_grace_s=lambda: self.services.rulebook.config.server.reconnect_grace,
            hooks=JobHooks(self._job_started, lambda prompt_id: observer.poke(), ledger.add_temp_files),
        )
        self.services = Services(
            rulebook=rulebook,
            upstream=upstream,
            gatekeeper=Gatekeeper(lambda: self.services.rulebook.authenticator, _NoLimits()),
            pages=GatePages(lambda: self.services),
            ledger=ledger,
            observer=observer,
            catalogue=catalogue,
            shelf=Shelf(),
            turns=Turns(),
            files=TenantFiles(config.upstream.directory),
            desk=Desk(ledger),
            limiter=_NoLimits(),
            sockets=sockets,
            streams=self._streams,
            recorder=Recorder(self.metrics, log),
        )
        self.pipeline = Pipeline(self.services)
        self._ops = Ops(self.metrics, observer, self._refresh_gauges)
        self.public: Listener
        self.ops: Listener

    async def start(self) -> None:
        """Listens. Raises ListenError. ComfyUI may be down: the gate starts, and /readyz says so."""
        config = self.services.rulebook.config
        self.public = Listener(
            public_server(self.pipeline.handle, config.server), config.server.host, config.server.port, "server.port"
        )
        self.ops = Listener(web.Server(self._ops.handle, access_log=None), config.ops.host, config.ops.port, "ops.port")
        await self.ops.start()
        try:
            await self.public.start()
        except BaseException:
            await self.ops.stop()
            raise
        await self.services.upstream.start()
        await self._start_verifiers()
        self.services.observer.start()
        self._tasks.start(self._close_expired(), "expiry")
        _log.info("gate on %s, ops on %s, ComfyUI at %s", self.public.url, self.ops.url, config.upstream.url)

    async def stop(self) -> None:
        """Drains: no new requests, running ones end within shutdown_grace, WebSockets close 1001."""
        self.pipeline.is_draining = self._ops.is_draining = True
        await self.public.stop_accepting()
        self.services.sockets.close_all(GATE_STOPS)
        grace_s = self.services.rulebook.config.server.shutdown_grace
        if not await self.pipeline.wait_until_idle(grace_s):
            _log.warning("requests still ran after %.0f s: they are cut off", grace_s)
        await self._tasks.stop()
        await self._streams.stop()
        await self.services.observer.stop()
        await self.public.stop()
        await self.ops.stop()
        await self._stop_verifiers()
        await self.services.upstream.stop()

    async def reload(self, file: Path) -> bool:
        """Puts a changed file into force, or leaves everything as it is and says why. Returns whether it was taken."""
        try:
            config = load_config(file)
            rulebook = build_rulebook(config, self.services.rulebook)
        except ConfigError as error:
            self.metrics.config_reloads.labels("bad").inc()
            _log.error("the changed configuration is not used, the old one stays in force:\n%s", error)
            return False
        self.services.rulebook = rulebook
        await self._start_verifiers()
        closed = self.services.sockets.close_dead(lambda who: rulebook.authenticator.is_alive(who, time.time()))
        self.metrics.config_reloads.labels("good").inc()
        _log.info("configuration reloaded, %d sockets closed", closed)
        return True

    async def _start_verifiers(self) -> None:
        for verifier in (self.services.rulebook.tokens, self.services.rulebook.access):
            if verifier is not None:
                await verifier.start()

    async def _stop_verifiers(self) -> None:
        for verifier in (self.services.rulebook.tokens, self.services.rulebook.access):
            if verifier is not None:
                await verifier.stop()

    async def _close_expired(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRY_CHECK_S)
            authenticator = self.services.rulebook.authenticator
            self.services.sockets.close_dead(lambda who, check=authenticator: check.is_alive(who, time.time()))  # type: ignore[misc]

    def _job_started(self, prompt_id: str) -> None:
        job = self.services.ledger.job(prompt_id)
        if job is not None and self.services.ledger.start(job):
            self._job_moved(job)

    def _job_moved(self, job: Job) -> None:
        """A job began or ended: its tenant's clients hear of it."""
        self._streams.announce(job.tenant)

    def _refresh_gauges(self) -> None:
        observer = self.services.observer
        self.metrics.upstream_up.set(observer.is_connected)
        self.metrics.worker_stuck.set(observer.is_worker_stuck)
        self.metrics.websockets.set(len(self.services.sockets))
