"""The composition root: builds everything from a configuration, starts and stops the listeners, swaps the configuration while it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

from proxy.compiled_config import CompiledConfig, compile_config
from proxy.config import Config, ConfigError, Mistake, load_config
from proxy.config.restart import need_restart
from proxy.dependencies import Dependencies
from proxy.http.listener import Listener
from proxy.http.server import DRAIN_IDLE_S, ops_server, public_server
from proxy.jobs.events import JobEvents
from proxy.limits.limits import Limits
from proxy.observability.access_log import Recorder, RequestLog
from proxy.observability.audit_log import AuditTrail
from proxy.observability.metrics import Metrics, name_comfyuis
from proxy.observability.ops_server import Ops
from proxy.persistence.chosen import chosen_database, setting_of
from proxy.persistence.operations import DatabaseUnavailable, StateError
from proxy.pipeline import Pipeline
from proxy.systemd import PassedSockets, ServiceManager
from proxy.tasks import Stop, Tasks, on_failure, stop_in_turn
from proxy.upstream.aliases import find_aliases
from proxy.upstream.merged_catalogue import MergedCatalogue
from proxy.websocket.connections import GATE_STOPS
from proxy.wiring.fleet import Fleet
from proxy.wiring.followers import JobFollowers
from proxy.wiring.gauges import Gauges
from proxy.wiring.parts import build_dependencies
from proxy.wiring.warmups import build_warmups

_log = logging.getLogger("comfygate")
_EXPIRY_CHECK_S: Final = 0.5
DIALOGUES_END_S: Final = 5.0
_LAST_REQUESTS_S: Final = 15.0
"""For requests that came last, while who connects waits: many clients wait for 30 s, the start of the next gate included."""
_CUT_OFF: Final = "requests still ran after %.0f s: they are cut off"


class Gate:
    """One running gate. `dependencies.compiled` is what a reload replaces; everything else lives until stop()."""

    def __init__(self, config: Config, log: RequestLog, passed: PassedSockets | None = None) -> None:
        """Raises ConfigError."""
        self._passed = passed or PassedSockets()
        self._began_with = config
        self._state = chosen_database(config)
        compiled = compile_config(config, state=self._state)
        self.metrics = Metrics()
        self.metrics.set_keys(config.keys)
        name_comfyuis(self.metrics, [comfyui.name for comfyui in config.comfyuis])
        self.audit = AuditTrail(config.audit_file, config.log.audit_max_bytes, config.log.audit_keep)
        self._service_manager = ServiceManager()
        self._tasks = Tasks()
        try:
            self._limits = Limits(config, self._state, self._store_changed)
        except (OSError, ValueError) as error:
            raise ConfigError(config.file, [Mistake("limits.storage", None, str(error))]) from None
        self._events = JobEvents()
        recorder = Recorder(self.metrics, log, self.audit)
        self.dependencies, self._fleet = build_dependencies(
            compiled, self._limits, self._state, self._events, recorder, lambda: self.dependencies.compiled
        )
        self._followers = JobFollowers(
            self.dependencies, self._events, self._state, self._limits.allotment, self.metrics, self.audit
        )
        self._warmups = build_warmups(self.dependencies, self._state, self.metrics)
        self.dependencies.queue_watchers.on_connected(self._connected)
        self.dependencies.queue_watchers.on_cold(self._warmups.start)
        if self._fleet is not None:
            self._fleet.on_named = partial(name_comfyuis, self.metrics)
            self._fleet.on_leaving = self._warmups.cancel
        self.pipeline = Pipeline(self.dependencies)
        self._gauges = Gauges(self.dependencies, self._fleet, self._state, self.metrics)
        self._ops = Ops(self.metrics, self.dependencies.queue_watchers, self._gauges.refresh)
        self._last_s: float | None = None
        """How long stop() may drain, where wind_down() has come before."""
        self.public: Listener
        self.ops: Listener

    async def start(self) -> None:
        """Listens. Raises ListenError. ComfyUI may be down: the gate starts, and /readyz says so."""
        config = self.dependencies.compiled.config
        self.public = Listener(
            public_server(self.pipeline.handle, config.server, self._limits.slots.claim_connection),
            config.server.host,
            config.server.port,
            "server.port",
            self._passed.public,
        )
        self.ops = Listener(
            ops_server(self._ops.handle), config.ops.host, config.ops.port, "ops.port", self._passed.ops
        )
        # Everything a request needs is there before the first one can come; what was opened is closed when a port is taken.
        async with AsyncExitStack() as opened:
            opened.callback(self.audit.close)
            opened.push_async_callback(self._state.close)
            opened.push_async_callback(self._limits.stop)
            await self._open_state(config)
            opened.push_async_callback(self.dependencies.upstream.stop)
            opened.push_async_callback(_stop_verifiers, self.dependencies.compiled)
            await _start_verifiers(self.dependencies.compiled)
            await self.ops.start()
            opened.push_async_callback(self.ops.stop)
            await self.public.start()
            opened.pop_all()
        on_failure.append(self.metrics.task_failed)
        _start_watching(self.dependencies, self._fleet)
        self._tasks.supervise(self._close_expired, "expiry")
        self._followers.start()
        self._tasks.supervise(self.dependencies.storage.sweep_forever, "retention")
        if isinstance(catalogue := self.dependencies.catalogue, MergedCatalogue):
            self._tasks.supervise(lambda: catalogue.keep_fresh(self._has_waiting), "catalogues")
        self._tasks.supervise(self._service_manager.keep_alive, "watchdog")
        self._tasks.start(_tell_aliases(config), "aliases")
        self._service_manager.notify("READY=1")
        _log.info("gate on %s, ops on %s, ComfyUI at %s", self.public.url, self.ops.url, config.upstream.url)
        if self.public.is_passed:
            _log.info("connections come from the service manager's socket: over a restart they wait")

    async def wind_down(self) -> None:
        """Comes before stop(). Where who connects would wait for the next gate, goes on answering until what runs has ended, within shutdown_grace: nobody
        waits for another's transfer. WebSockets close 1001; those that come meanwhile are served until stop(). May be reloaded.
        """
        if not self.public.is_passed:
            return
        self._begin_stopping()
        self.dependencies.sockets.close_open(GATE_STOPS)
        grace_s = self.dependencies.compiled.config.server.shutdown_grace
        began_s = time.monotonic()
        if not await self.public.wind_down(grace_s):
            _log.warning(_CUT_OFF, grace_s)
        left_s = grace_s - (time.monotonic() - began_s)
        self._last_s = min(max(left_s, DRAIN_IDLE_S), _LAST_REQUESTS_S, grace_s)

    async def stop(self) -> bool:
        """Drains: no new connections; requests that run, or come on those that there are, end within shutdown_grace; WebSockets close 1001.

        Returns whether everything has ended. What has not is a bug, stands in the log, and is not waited for.
        """
        self._begin_stopping()
        await self.public.stop_accepting()
        await self.dependencies.streams.close_all(GATE_STOPS)
        self.dependencies.sockets.close_all(GATE_STOPS)
        limit_s = self.dependencies.compiled.config.server.shutdown_grace if self._last_s is None else self._last_s
        if not await self._drain(limit_s):
            _log.warning(_CUT_OFF, limit_s)
        self.pipeline.is_closed = True
        is_whole = await stop_in_turn(self._stops())
        if self.metrics.task_failed in on_failure:
            on_failure.remove(self.metrics.task_failed)
        self.audit.close()
        return is_whole

    def _stops(self) -> list[tuple[str, Stop]]:
        """What still writes or asks, before what it writes to and asks."""
        parts = self.dependencies
        return [
            ("requests", partial(self.pipeline.running.stop, DIALOGUES_END_S)),
            ("the gate's loops", self._tasks.stop),
            ("its own sockets", parts.v2.own_sockets.stop),
            ("events", parts.streams.stop),
            *([("ComfyUIs that leave", self._fleet.stop)] if self._fleet is not None else []),
            ("queue watchers", parts.queue_watchers.stop),
            ("warm-ups", self._warmups.stop),
            ("results", parts.jobs.results.stop),
            ("followers of jobs", self._followers.stop),
            ("conversions", parts.conversions.stop),
            ("Comfy API v2", parts.v2.stop),
            ("the catalogue", parts.catalogue.stop),
            ("documents", parts.document_cache.stop),
            ("web files", parts.web_files.stop),
            ("compression", parts.compressor.stop),
            ("clients' connections", self.public.stop),
            ("the ops server", self.ops.stop),
            ("gauges", self._gauges.stop),
            ("verifiers", partial(_stop_verifiers, parts.compiled)),
            ("GPU seconds", parts.admission.stop),
            ("limits", self._limits.stop),
            ("the database", self._state.close),
            ("ComfyUI's connections", parts.upstream.stop),
            ("fetches", parts.fetches.stop),
        ]

    def _begin_stopping(self) -> None:
        self._service_manager.notify("STOPPING=1")
        self._ops.is_draining = True
        self.pipeline.running.stopping.set()

    async def _drain(self, limit_s: float) -> bool:
        """Says whether all ended in the time. Where new connections are refused meanwhile, it ends with the last request; where they wait for the next
        gate, idle ones are given the time for a last request too.
        """
        deadline_s = time.monotonic() + limit_s
        if self.public.is_passed:
            try:
                async with asyncio.timeout(limit_s):
                    await self.public.drain()
            except TimeoutError:
                return False
        return await self.pipeline.running.wait_until_idle(deadline_s - time.monotonic())

    async def reload(self, file: Path) -> bool:
        """Puts a changed file into force, or leaves everything as it is and says why. Returns whether it was taken."""
        try:
            # In a thread: thousands of keys take long to read, and another process may hold the lock of the session secret.
            config = await asyncio.to_thread(load_config, file)
            _check_not_emptied(self.dependencies.compiled.config, config)
            compiled = await asyncio.to_thread(compile_config, config, self.dependencies.compiled)
            comfyuis = None if self._fleet is None else self._fleet.prepare(config)
        except ConfigError as error:
            return self._reject(error)
        try:
            self._limits.apply(config)
        except (OSError, ValueError) as error:
            return self._reject(ConfigError(file, [Mistake("limits.storage_file", None, str(error))]))
        self._audit_keys(self.dependencies.compiled.config, config)
        replaced, self.dependencies.compiled = self.dependencies.compiled, compiled
        if self._fleet is not None:
            self._fleet.take_up(comfyuis)
        await _start_verifiers(compiled)
        await self._followers.reconfigured()
        closed = self.dependencies.sockets.close_revoked(lambda who: compiled.authenticator.is_alive(who, time.time()))
        self.pipeline.running.cut_dead()
        self.metrics.set_keys(config.keys)
        self.metrics.reloaded(is_good=True)
        self.audit.write("config", result="good")
        _log.info("configuration reloaded, %d sockets closed", closed)
        if config.comfyui != replaced.config.comfyui:
            self._tasks.start(_tell_aliases(config), "aliases")
        if waiting := need_restart(replaced.config, config, self._began_with):
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
            await self._state.open()
            await self.dependencies.compiled.authenticator.sessions.revoked.load()
            await self._limits.start()
            if self._fleet is not None:
                await self._fleet.resume()
            await self.dependencies.jobs.replica.load()
            await self._followers.open()
        except (OSError, DatabaseUnavailable, StateError) as error:
            raise ConfigError(config.file, [Mistake(setting_of(config), None, f"cannot be used: {error}")]) from None

    async def _close_expired(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRY_CHECK_S)
            authenticator = self.dependencies.compiled.authenticator
            self.dependencies.sockets.close_revoked(lambda who, check=authenticator: check.is_alive(who, time.time()))  # type: ignore[misc]
            self.pipeline.running.cut_dead()

    async def _connected(self, comfyui: str) -> None:
        """A ComfyUI is there, perhaps anew: what it can run may have changed, and its queue."""
        self.dependencies.admission.synced()
        is_first = comfyui == self.dependencies.queue_watchers.first.name
        if is_first:
            self.dependencies.web_files.connected()
        if (several := self.dependencies.streams.several) is not None:
            several.connected("" if is_first else comfyui)
        await self.dependencies.v2.own_sockets.listen_for_all()
        await self.dependencies.catalogue.renew(comfyui)

    def _has_waiting(self) -> bool:
        return self.dependencies.registry.tally.waiting > 0

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


def _check_not_emptied(old: Config, new: Config) -> None:
    """Raises ConfigError for a file that somebody is about to write: emptied first, as `program > config.toml` does."""
    if (old.tenants or old.keys) and not (new.tenants or new.keys):
        words = (
            "has no tenant and no key any more, as a file that is just being written. To let nobody in, stop the gate"
        )
        raise ConfigError(new.file, [Mistake("", None, words)])


def _start_watching(parts: Dependencies, fleet: Fleet | None) -> None:
    """Each ComfyUI that there is, and those that leave."""
    parts.queue_watchers.start()
    if fleet is not None:
        fleet.start()


async def _tell_aliases(config: Config) -> None:
    """It is looked for beside everything else: a name server may be slow."""
    for sentence in await find_aliases(config):
        _log.warning("%s", sentence)


async def _start_verifiers(compiled: CompiledConfig) -> None:
    for verifier in (compiled.tokens, compiled.access):
        if verifier is not None:
            await verifier.start()


async def _stop_verifiers(compiled: CompiledConfig) -> None:
    for verifier in (compiled.tokens, compiled.access):
        if verifier is not None:
            await verifier.stop()
