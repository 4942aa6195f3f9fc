"""The composition root: builds everything from a configuration, starts and stops the listeners, swaps the configuration while it runs."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from policy.namespace import Folder
from policy.principal import Principal, TenantId
from proxy.auth.login_throttle import Gatekeeper
from proxy.compiled_config import build_rulebook
from proxy.config import Config, ConfigError, Mistake, load_config
from proxy.config.limits import LimitSettings
from proxy.config.restart import need_restart
from proxy.dependencies import Rulebook, Services
from proxy.files.comfyui_folders import Disk
from proxy.files.listing import TenantFiles
from proxy.files.quota import Storage
from proxy.files.quota_keeper import QuotaKeeper
from proxy.http.listeners import Listener, public_server
from proxy.jobs.admission import Desk
from proxy.jobs.kept_documents import Keeper, KeptJobs
from proxy.jobs.queue_watcher import Observer
from proxy.jobs.registry import Job, Ledger
from proxy.jobs.temp_files import unseen, written_at
from proxy.jobs.time_limit import JobTimes
from proxy.keyed_semaphore import Turns
from proxy.limits.limits import Limits
from proxy.limits.underway import UnderWay
from proxy.observability.access_log import Recorder, RequestLog
from proxy.observability.audit_log import AuditTrail
from proxy.observability.metrics import Metrics
from proxy.observability.ops_server import Ops
from proxy.pages.routes import GatePages
from proxy.pipeline import Pipeline
from proxy.systemd import ServiceManager
from proxy.tasks import Tasks, on_failure
from proxy.upstream.client import Upstream
from proxy.upstream.document_cache import Shelf
from proxy.upstream.node_catalogue import CatalogueSource
from proxy.upstream.preview_queue import PictureLane
from proxy.websocket.connections import GATE_STOPS, Sockets
from proxy.websocket.event_session import JobHooks
from proxy.websocket.event_sessions import EventStreams

_log = logging.getLogger("comfygate")
_EXPIRY_CHECK_S: Final = 0.5
DIALOGUES_END_S: Final = 5.0


class Gate:
    """One running gate. `services.rulebook` is what a reload replaces; everything else lives until stop()."""

    def __init__(self, config: Config, log: RequestLog) -> None:
        """Raises ConfigError."""
        rulebook = build_rulebook(config)
        self.metrics = Metrics()
        self.metrics.set_keys(config.keys)
        self.audit = AuditTrail(config.audit_file, config.log.audit_max_bytes, config.log.audit_keep)
        self._service_manager = ServiceManager()
        self._tasks = Tasks()
        directory = config.resolve(config.upstream.directory) if config.upstream.directory is not None else None
        upstream = Upstream(config.upstream.url, config.upstream.connect_timeout)
        try:
            self._limits = Limits(config, self._store_changed)
        except (OSError, ValueError) as error:
            raise ConfigError(config.file, [Mistake("limits.storage", None, str(error))]) from None
        ledger = Ledger(written_at=unseen if directory is None else written_at(directory / Folder.TEMP.value))
        kept = KeptJobs()
        self._keeper = Keeper(kept, ledger)
        self._quotas = QuotaKeeper(upstream, ledger, self.audit)
        self._desk = Desk(
            ledger, self._limits.slots, self._limits.budgets, _weights(config), self._queued, self._is_taken, kept
        )
        catalogue = CatalogueSource(upstream)
        observer = Observer(
            upstream,
            ledger,
            on_started=self._started,
            on_ended=self._ended,
            on_synced=self._desk.synced,
            on_connected=self._connected,
            on_item=self._keeper.item,
            on_entry=self._keeper.entry,
        )
        sockets = Sockets()
        self._streams = EventStreams(
            upstream,
            sockets,
            reconnect_grace_s=lambda: self.services.rulebook.config.server.reconnect_grace,
            slot=self._socket_slot,
            working=ledger.working_clients,
            jobs=ledger,
            hooks=JobHooks(self._seen_running, self._seen_ended, ledger.add_temp_files),
        )
        self._desk.on_unnamed = lambda tenant: self._streams.listen(tenant, ledger.of(tenant))
        under_way = UnderWay(self._limits.allotment)
        self.services = Services(
            rulebook=rulebook,
            upstream=upstream,
            gatekeeper=Gatekeeper(lambda: self.services.rulebook.authenticator, self._limits),
            pages=GatePages(lambda: self.services),
            ledger=ledger,
            observer=observer,
            catalogue=catalogue,
            shelf=Shelf(),
            turns=Turns(),
            files=TenantFiles(directory),
            storage=Storage(
                Disk(directory) if directory is not None else None, ledger, self._limits_of, self._all_tenants
            ),
            desk=self._desk,
            limiter=self._limits,
            sockets=sockets,
            streams=self._streams,
            recorder=Recorder(self.metrics, log, self.audit),
            under_way=under_way,
            pictures=PictureLane(under_way.has_neighbours),
            kept=kept,
        )
        self._job_times = JobTimes(
            upstream, ledger, lambda tenant: self._limits.allotment.of_tenant(tenant).job_seconds
        )
        self.pipeline = Pipeline(self.services)
        self._ops = Ops(self.metrics, observer, self._refresh_gauges)
        self.public: Listener
        self.ops: Listener

    async def start(self) -> None:
        """Listens. Raises ListenError. ComfyUI may be down: the gate starts, and /readyz says so."""
        config = self.services.rulebook.config
        self.public = Listener(
            public_server(self.pipeline.handle, config.server, self._limits.slots.claim_connection),
            config.server.host,
            config.server.port,
            "server.port",
        )
        self.ops = Listener(web.Server(self._ops.handle, access_log=None), config.ops.host, config.ops.port, "ops.port")
        # Everything a request needs is there before the first one can come; what was opened is closed when a port is taken.
        async with AsyncExitStack() as opened:
            await self._open_state(config)
            opened.callback(self.audit.close)
            opened.push_async_callback(self._limits.stop)
            await self.services.upstream.start()
            opened.push_async_callback(self.services.upstream.stop)
            opened.push_async_callback(_stop_verifiers, self.services.rulebook)
            await _start_verifiers(self.services.rulebook)
            await self.ops.start()
            opened.push_async_callback(self.ops.stop)
            await self.public.start()
            opened.pop_all()
        on_failure.append(self.metrics.task_failed)
        self.services.observer.start()
        self._tasks.supervise(self._close_expired, "expiry")
        self._tasks.supervise(self._job_times.watch, "job times")
        self._tasks.supervise(self.services.storage.sweep_forever, "retention")
        self._tasks.supervise(self._service_manager.keep_alive, "watchdog")
        self._service_manager.notify("READY=1")
        _log.info("gate on %s, ops on %s, ComfyUI at %s", self.public.url, self.ops.url, config.upstream.url)

    async def stop(self) -> None:
        """Drains: no new requests, running ones end within shutdown_grace, WebSockets close 1001."""
        self._service_manager.notify("STOPPING=1")
        self.pipeline.is_draining = self._ops.is_draining = True
        await self.public.stop_accepting()
        self.services.sockets.close_all(GATE_STOPS)
        grace_s = self.services.rulebook.config.server.shutdown_grace
        if not await self.pipeline.running.wait_until_idle(grace_s):
            _log.warning("requests still ran after %.0f s: they are cut off", grace_s)
        await self.pipeline.running.stop(DIALOGUES_END_S)
        await self._tasks.stop()
        if self.metrics.task_failed in on_failure:
            on_failure.remove(self.metrics.task_failed)
        await self._streams.stop()
        await self.services.observer.stop()
        await self._keeper.stop()
        await self._quotas.stop()
        await self.services.catalogue.stop()
        await self.public.stop()
        await self.ops.stop()
        await _stop_verifiers(self.services.rulebook)
        await self._desk.stop()
        await self._limits.stop()
        await self.services.upstream.stop()
        self.audit.close()

    async def reload(self, file: Path) -> bool:
        """Puts a changed file into force, or leaves everything as it is and says why. Returns whether it was taken."""
        try:
            # In a thread: thousands of keys take long to read, and another process may hold the lock of the session secret.
            config = await asyncio.to_thread(load_config, file)
            _check_not_emptied(self.services.rulebook.config, config)
            rulebook = await asyncio.to_thread(build_rulebook, config, self.services.rulebook)
        except ConfigError as error:
            return self._reject(error)
        try:
            self._limits.apply(config)
        except (OSError, ValueError) as error:
            return self._reject(ConfigError(file, [Mistake("limits.storage_file", None, str(error))]))
        self._audit_keys(self.services.rulebook.config, config)
        self._desk.set_weights(_weights(config))
        replaced, self.services.rulebook = self.services.rulebook, rulebook
        await _start_verifiers(rulebook)
        closed = self.services.sockets.close_dead(lambda who: rulebook.authenticator.is_alive(who, time.time()))
        self.pipeline.running.cut_dead()
        self.metrics.set_keys(config.keys)
        self.metrics.reloaded(is_good=True)
        self.audit.write("config", result="good")
        _log.info("configuration reloaded, %d sockets closed", closed)
        if waiting := need_restart(replaced.config, config):
            _log.warning("not taken up until the gate is restarted: %s", ", ".join(waiting))
        # Else the issuers of every earlier configuration would be asked for their keys for ever.
        await _stop_verifiers(replaced)
        return True

    def _reject(self, error: ConfigError) -> bool:
        self.metrics.reloaded(is_good=False)
        self.audit.write("config", result="bad", mistakes=[str(mistake) for mistake in error.mistakes])
        _log.error("the changed configuration is not used, the old one stays in force:\n%s", error)
        return False

    async def _open_state(self, config: Config) -> None:
        """The files that the gate keeps. Raises ConfigError: what cannot be written is told at the start, not at the first use."""
        try:
            self.audit.open()
        except OSError as error:
            raise ConfigError(config.file, [Mistake("log.audit_file", None, f"cannot be written: {error}")]) from None
        try:
            await self._limits.start()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(config.file, [Mistake("server.state_dir", None, f"cannot be used: {error}")]) from None

    async def _close_expired(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRY_CHECK_S)
            authenticator = self.services.rulebook.authenticator
            self.services.sockets.close_dead(lambda who, check=authenticator: check.is_alive(who, time.time()))  # type: ignore[misc]
            self.pipeline.running.cut_dead()

    def _limits_of(self, tenant: TenantId) -> LimitSettings:
        """The default ones for a tenant that was taken out while something of it is under way."""
        config = self.services.rulebook.config
        settings = config.tenants.get(tenant)
        return config.limits.named[settings.limits if settings is not None else "default"]

    def _all_tenants(self) -> list[TenantId]:
        return [TenantId(name) for name in self.services.rulebook.config.tenants]

    @asynccontextmanager
    async def _socket_slot(self, principal: Principal) -> AsyncIterator[None]:
        with await self._limits.slots.claim_socket(principal):
            yield

    async def _connected(self) -> None:
        """ComfyUI is there, perhaps anew: what it can run may have changed, and its queue."""
        self._desk.rebuilt()
        await self.services.catalogue.renew()

    def _seen_running(self, prompt_id: str) -> None:
        """A tenant's own stream says so, before the observer has asked."""
        job = self.services.ledger.job(prompt_id)
        if job is not None and self.services.ledger.start(job):
            self._started(job)

    def _seen_ended(self, prompt_id: str) -> None:
        self.services.ledger.mark_over(prompt_id)
        self.services.observer.poke()

    def _store_changed(self, is_up: bool) -> None:
        self.metrics.limit_store_up.set(is_up)

    def _audit_keys(self, old: Config, new: Config) -> None:
        before, after = ({key.id: key for key in config.keys} for config in (old, new))
        for key_id in sorted(before.keys() | after.keys()):
            was, now = before.get(key_id), after.get(key_id)
            if was != now:
                change = "added" if was is None else "removed" if now is None else "changed"
                key = now or was
                self.audit.write("key", key=key_id, change=change, tenant=key.tenant if key else None)

    async def _is_taken(self, prompt_id: str) -> bool:
        return await self.services.observer.has_job(prompt_id)

    def _queued(self, job: Job) -> None:
        # ComfyUI tells everybody of every queued job, and its web UI reads the queue anew only when it is told so.
        self._streams.announce(job.tenant)

    def _started(self, job: Job) -> None:
        self._desk.started(job)
        self._streams.announce(job.tenant)

    def _ended(self, job: Job) -> None:
        self._desk.ended(job)
        self._streams.job_ended(job)
        self.metrics.job_ended(job)
        self.audit.job_ended(job)
        self._quotas.ended(self.services.storage, job.tenant)
        self._streams.announce(job.tenant)

    def _refresh_gauges(self) -> None:
        self.services.recorder.count_dropped()
        observer = self.services.observer
        self.metrics.upstream_up.set(observer.is_connected)
        self.metrics.worker_stuck.set(observer.is_worker_stuck)
        self.metrics.observer_last_sync_age_seconds.set(observer.last_sync_age_s)
        config = self.services.rulebook.config
        self.metrics.refresh(self.services.sockets, self.services.ledger.active(), config.tenants)


def _check_not_emptied(old: Config, new: Config) -> None:
    """Raises ConfigError for a file that somebody is about to write: emptied first, as `program > config.toml` does."""
    if (old.tenants or old.keys) and not (new.tenants or new.keys):
        words = (
            "has no tenant and no key any more, as a file that is just being written. To let nobody in, stop the gate"
        )
        raise ConfigError(new.file, [Mistake("", None, words)])


def _weights(config: Config) -> dict[str, float]:
    return {name: config.limits.named[tenant.limits].weight for name, tenant in config.tenants.items()}


async def _start_verifiers(rulebook: Rulebook) -> None:
    for verifier in (rulebook.tokens, rulebook.access):
        if verifier is not None:
            await verifier.start()


async def _stop_verifiers(rulebook: Rulebook) -> None:
    for verifier in (rulebook.tokens, rulebook.access):
        if verifier is not None:
            await verifier.stop()
