"""Watches ComfyUI through one connection of the gate's own, so that the registry knows what runs and what ended without trusting clients."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from policy.rules.jobs import ABSENT_JOB
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, unreachable
from proxy.http.websocket import Close, Hearer
from proxy.http.websocket_frames import Payload
from proxy.jobs.history_reader import HistoryReader, HistoryUnreadable
from proxy.jobs.queue_reader import QueueReader, get_call, number_of
from proxy.jobs.registry import Job, JobRegistry, JobState, Outcome
from proxy.tasks import Tasks
from proxy.upstream.client import Upstream

_POLL_BUSY_S: Final = 5.0
_POLL_IDLE_S: Final = 30.0
_RECONNECT_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_SETTLE_S: Final = 0.03  # ComfyUI announces a change several times within a few milliseconds
_SETTLE_JOB_S: Final = 0.00006
"""More of it for each unfinished job: reading a queue of thousands takes tens of milliseconds, and each submission announces one."""
_SETTLE_AT_MOST_S: Final = 1.0
_CLAIM_LOST_S: Final = 120.0  # a submission whose answer never came: it is in the queue by then, or nowhere
STUCK_AFTER_S: Final = 60.0
STALE_AFTER_S: Final = 120.0

_log = logging.getLogger("comfygate")


class Announcements(Hearer):
    """Hears ComfyUI say that its queue has changed. on_change: called then. over: set when it has hung up."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self.over = asyncio.Event()

    def received(self, data: str | Payload) -> None:
        if isinstance(data, str) and data.startswith('{"type": "status"'):
            self._on_change()

    def ended(self, close: Close, *, is_said: bool) -> None:
        self.over.set()


class QueueWatcher:
    """on_started and on_ended are called once per job, on_synced after each comparison with the queue, on_item and
    on_entry with what ComfyUI's queue and history say of a job, on_connected after each
    (re)connection, when the registry was rebuilt."""

    def __init__(
        self,
        upstream: Upstream,
        registry: JobRegistry,
        *,
        on_started: Callable[[Job], None] = lambda job: None,
        on_ended: Callable[[Job], None] = lambda job: None,
        on_synced: Callable[[], None] = lambda: None,
        on_item: Callable[[Job, list[Any]], None] = lambda job, item: None,
        on_entry: Callable[[Job, Any], None] = lambda job, value: None,
        on_connected: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._upstream = upstream
        self._registry = registry
        self._queue = QueueReader(upstream, registry, lambda job, item: self.on_item(job, item))
        self._history = HistoryReader(upstream)
        self._on_started = on_started
        self._on_ended = on_ended
        self.on_synced = on_synced
        self.on_item = on_item
        self.on_entry = on_entry
        self.on_connected = on_connected
        self._tasks = Tasks()
        self._changed = asyncio.Event()
        self._waiting_since_s: float | None = None
        self._synced_at_s = time.monotonic()
        self._is_failing = False
        self.is_connected = False
        self.is_settled = asyncio.Event()
        """Set while connected and after the registry was rebuilt."""

    def start(self) -> None:
        self._synced_at_s = time.monotonic()
        self._tasks.supervise(self._watch, "observer")
        self._tasks.supervise(self._sync_on_change, "observer sync")

    async def stop(self) -> None:
        await self._tasks.stop()

    def request_sync(self) -> None:
        """Something may have changed."""
        self._changed.set()

    @property
    def last_sync_age_s(self) -> float:
        """Since the registry was last compared with ComfyUI's queue; until the first time since the start."""
        return time.monotonic() - self._synced_at_s

    @property
    def is_stale(self) -> bool:
        """Connected, but what runs and what ended is not known: slots and budgets stand still."""
        return self.is_connected and self.last_sync_age_s > STALE_AFTER_S

    @property
    def is_worker_stuck(self) -> bool:
        """Jobs wait and none runs: ComfyUI's worker thread is dead while its HTTP lives. Only a restart of ComfyUI helps."""
        since = self._waiting_since_s
        return since is not None and time.monotonic() - since > STUCK_AFTER_S

    async def _watch(self) -> None:
        failures = 0
        while True:
            try:
                await self._follow()
                failures = 0
            except (UpstreamUnavailable, UpstreamTimeout) as error:
                if failures == 0:
                    _log.warning("%s The gate tries on.", unreachable(self._upstream.url.rstrip("/"), error))
                failures += 1
            finally:
                if self.is_connected:
                    _log.warning("the connection to ComfyUI ended")
                self.is_connected = False
                self.is_settled.clear()
            await asyncio.sleep(_RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])

    async def _follow(self) -> None:
        # A fresh id each time: when an older socket of the same id closes, ComfyUI takes the newer one off its list (E.4).
        socket = await self._upstream.connect(get_call("ws", clientId=f"comfygate-observer-{secrets.token_hex(8)}"))
        self._queue.forget_version()
        announcements = Announcements(self._changed.set)
        try:
            socket.start(announcements)
            await self.rebuild()
            if self.on_connected is not None:
                await self.on_connected()
            self.is_connected = True
            self.is_settled.set()
            _log.info("connected to ComfyUI at %s", self._upstream.url)
            await announcements.over.wait()
        finally:
            socket.close(Close(1000, ""))

    async def _sync_on_change(self) -> None:
        while True:
            is_busy = self._registry.is_busy
            try:
                async with asyncio.timeout(_POLL_BUSY_S if is_busy else _POLL_IDLE_S):
                    await self._changed.wait()
                await asyncio.sleep(min(_SETTLE_AT_MOST_S, _SETTLE_S + _SETTLE_JOB_S * self._registry.count_active()))
            except TimeoutError:
                pass
            self._changed.clear()
            if not self.is_connected:
                continue
            try:
                await self.sync()
            except (UpstreamUnavailable, UpstreamTimeout) as error:
                # The watching socket may be well all the same.
                if not self._is_failing:
                    _log.warning("ComfyUI's queue cannot be read (%s): what ends is not seen; trying on", error)
                self._is_failing = True

    async def rebuild(self) -> None:
        """Reads ComfyUI's history and queue: what the gate did not know, and what ended or was lost while it did not look."""
        ended = self._registry.ended()
        listed: set[str] = set()
        is_whole = True
        async for page in self._history.pages():
            is_whole &= page is not None
            for prompt_id, entry in (page or {}).items():
                listed.add(prompt_id)
                self.adopt_ended(prompt_id, entry)
        if is_whole and listed.isdisjoint(ended):
            self._registry.forget_restarted(ended)
        await self.sync(was_watched=False)

    async def sync(self, *, was_watched: bool = True) -> None:
        """Compares the registry with ComfyUI's queue and closes what is no longer in it. was_watched: see `JobRegistry.end`."""
        known = {job.prompt_id for job in self._registry.active() if job.state is not JobState.CLAIMED}
        stale_at_s = time.time() - _CLAIM_LOST_S
        known |= {job.prompt_id for job in self._registry.active() if job.claimed_at_s < stale_at_s}
        running, pending = await self._queue.read()
        self._waiting_since_s = (self._waiting_since_s or time.monotonic()) if pending and not running else None
        for prompt_id in running:
            job = self._registry.job(prompt_id)
            if job is not None and self._registry.start(job):
                self._on_started(job)
        for prompt_id in pending:
            job = self._registry.job(prompt_id)
            if job is not None:
                self._registry.submitted(prompt_id, job.number)
        for prompt_id in known - running - pending:
            await self._close(prompt_id, was_watched)
        if self._is_failing:
            _log.info("ComfyUI's queue can be read again")
        self._is_failing = False
        self._synced_at_s = time.monotonic()
        self.on_synced()

    async def has_job(self, prompt_id: str) -> bool:
        """Whether ComfyUI has or had a job of this id, whoever sent it. Raises UpstreamUnavailable, UpstreamTimeout.

        SECURITY: the same is asked whoever has it, and never for a neighbour's entry, whose size would show in the time.
        """
        is_known = self._registry.knows(prompt_id)
        ended = await self._history.has(ABSENT_JOB if is_known else prompt_id)
        running, pending = await self._queue.read()
        return is_known or ended or prompt_id in running | pending

    async def _close(self, prompt_id: str, was_watched: bool) -> None:
        job = self._registry.job(prompt_id)
        if job is None:
            return
        try:
            entry = await self._history.entry(prompt_id)
        except HistoryUnreadable:
            return  # for now: the others' jobs are still to be closed
        if self._registry.end(job, entry, was_watched=was_watched):
            self._on_ended(job)
        if entry is not None and not job.is_deleted:
            self.on_entry(job, {prompt_id: entry})
        if job.outcome is Outcome.LOST or job.is_deleted:
            self._registry.release(prompt_id)  # as in ComfyUI, a job that was taken out of the queue leaves no trace

    def adopt_ended(self, prompt_id: str, entry: Any) -> None:
        """Takes up a job by its entry in ComfyUI's history; nothing for what is none."""
        prompt = entry.get("prompt") if isinstance(entry, dict) else None
        if not isinstance(prompt, list) or len(prompt) < 4 or not isinstance(prompt[3], dict):
            return
        was_known = self._registry.job(prompt_id) is not None
        job = self._registry.adopt(prompt_id, prompt[3].get("client_id"), JobState.PENDING, number_of(prompt))
        if job is None:
            self._registry.mark_unowned(prompt_id)
        elif self._registry.end(job, entry) and was_known:
            self._on_ended(job)
