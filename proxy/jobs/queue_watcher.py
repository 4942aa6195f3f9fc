"""Watches ComfyUI through one connection of the gate's own, so that the registry knows what runs and what ended without trusting clients."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from policy.rules.jobs import ABSENT_JOB
from policy.warmup import is_warmup
from proxy.config.comfyui import FIRST
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, unreachable
from proxy.http.websocket import Close, Hearer
from proxy.http.websocket_frames import Payload
from proxy.jobs.absence import Absence, Strays
from proxy.jobs.adoption import Adoption, is_of_run
from proxy.jobs.closing import JobClosing
from proxy.jobs.endings import JobEndings
from proxy.jobs.history_reader import HistoryReader
from proxy.jobs.queue_reader import QueueReader, get_call
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import Job, JobRegistry, JobState, claim_listed_files, ended_at
from proxy.jobs.standstill import Standstill
from proxy.persistence.operations import DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.upstream.client import Upstream

_POLL_BUSY_S: Final = 5.0
_POLL_IDLE_S: Final = 30.0
_POLL_OTHERS_S: Final = 10.0  # where there are several: of one that hangs the others hear before much is given to it
_RECONNECT_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_SETTLE_S: Final = 0.03  # ComfyUI announces a change several times within a few milliseconds
_SETTLE_BUSY_S: Final = 0.003
_SETTLE_JOB_S: Final = 0.00006
"""More of it for each unfinished job: reading a queue of thousands takes tens of milliseconds, and each submission announces one."""
_SETTLE_AT_MOST_S: Final = 1.0
_CLAIM_LOST_S: Final = 120.0  # a submission whose answer never came: it is in the queue by then, or nowhere
STALE_AFTER_S: Final = 120.0

_log = logging.getLogger("comfygate")


async def _current() -> None:
    return


class Announcements(Hearer):
    """Hears ComfyUI say that its queue has changed. on_change: called then. over: set when it has hung up. is_read: whether the queue was read since."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self.over = asyncio.Event()
        self.is_read = False

    def received(self, data: str | Payload, frame: Payload | None) -> None:
        if isinstance(data, str) and data.startswith('{"type": "status"'):
            self.is_read = False
            self._on_change()

    def ended(self, close: Close, *, is_said: bool) -> None:
        self.over.set()


def _settle_s(registry: JobRegistry) -> float:
    """While jobs wait outside ComfyUI its next one is due at once."""
    settle_s = _SETTLE_BUSY_S if registry.tally.waiting else _SETTLE_S
    return min(_SETTLE_AT_MOST_S, settle_s + _SETTLE_JOB_S * len(registry.tally.given))


class QueueWatcher:
    """on_started is called once per job, on_synced after each comparison with the queue, on_connected after each (re)connection, when the registry was
    rebuilt; on_cold then, where ComfyUI has run nothing yet. endings: told how jobs end. name: of this ComfyUI; jobs that another one has are that one's.
    """

    def __init__(
        self,
        upstream: Upstream,
        registry: JobRegistry,
        records: JobRecords,
        endings: JobEndings,
        *,
        name: str = FIRST,
        on_started: Callable[[Job], None] = lambda job: None,
        on_synced: Callable[[], None] = lambda: None,
        on_connected: Callable[[str], Awaitable[None]] | None = None,
        gone_after_s: float | None = None,
        current: Callable[[], Awaitable[None]] = _current,
    ) -> None:
        """current: see Strays. gone_after_s: how long it may be away until others go on with what it had; None where there are no others."""
        self._registry = registry
        self._records, self._endings = records, endings
        self.name = name
        self._upstream = upstream
        self.queue = QueueReader(upstream, registry)
        self._history = HistoryReader(upstream)
        self._adoption = Adoption(upstream, registry, records, name)
        self._strays = Strays(upstream, registry, name, current)
        self._on_started = on_started
        self.on_synced = on_synced
        self.on_connected = on_connected
        self.on_cold: Callable[[str], None] = lambda name: None
        self._tasks = Tasks()
        self._changed = asyncio.Event()
        self.closing = JobClosing(registry, records, endings, self._history, self._changed.set, name)
        self._standstill = Standstill(upstream, registry)
        self._synced_at_s = time.monotonic()
        self._is_failing = False
        self._announcements = Announcements(self._changed.set)
        self._was_current = False
        """All that ComfyUI had announced was read when the connection before this one ended."""
        self.absence = Absence(gone_after_s)
        self.is_connected = False
        self.is_settled = asyncio.Event()
        """Set while connected and after the registry was rebuilt."""

    def start(self) -> None:
        self._synced_at_s = time.monotonic()
        self._tasks.supervise(self._watch, "observer")
        self._tasks.supervise(self._sync_on_change, "observer sync")

    async def stop(self) -> None:
        await self._tasks.stop()
        await self.closing.stop()

    def request_sync(self) -> None:
        """Something may have changed."""
        self._changed.set()

    def close_soon(self, prompt_id: str) -> None:
        """Its client was told that it ended."""
        self.closing.close_soon(prompt_id)
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
        """It answers, and runs nothing."""
        return self._standstill.is_on

    async def _watch(self) -> None:
        failures = 0
        while True:
            try:
                await self._follow()
                failures = 0
            except DatabaseUnavailable as error:
                if failures == 0:
                    _log.error("jobs are not followed until the database can be used again: %s", error)
                failures += 1
                self.absence.ended()  # it is not ComfyUI that is away
            except (UpstreamUnavailable, UpstreamTimeout) as error:
                if failures == 0:
                    setting = self.absence.setting(self.name)
                    _log.warning("%s The gate tries on.", unreachable(self._upstream.url.rstrip("/"), error, setting))
                failures += 1
            except asyncio.CancelledError:
                self.is_connected = False  # which nobody is warned of: it is the gate that leaves
                raise
            finally:
                if self.is_connected:
                    _log.warning("the connection to %s ended", self.absence.title(self.name))
                self.absence.began()
                self._registry.connections.over(self.name)
                self.is_connected = False
                self.is_settled.clear()
            await self.absence.give_up(self.name, self.closing)
            await asyncio.sleep(_RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])

    async def _follow(self) -> None:
        # A fresh id each time: when an older socket of the same id closes, ComfyUI takes the newer one off its list (E.4).
        socket = await self._upstream.connect(get_call("ws", clientId=f"comfygate-observer-{secrets.token_hex(8)}"))
        self.queue.connected()
        self._history.connected()
        self._registry.connections.made(self.name)
        self._was_current = self._announcements.is_read
        announcements = self._announcements = Announcements(self._changed.set)
        try:
            socket.start(announcements)
            is_cold = await self.rebuild()
            self.absence.ended()  # what it has is known, whatever else it does not tell
            if self.on_connected is not None:
                await self.on_connected(self.name)
            self.is_connected = True
            self.is_settled.set()
            if is_cold:
                self.on_cold(self.name)
            _log.info("connected to %s at %s", self.absence.title(self.name), self._upstream.url)
            await announcements.over.wait()
        finally:
            socket.close(Close(1000, ""))

    async def _sync_on_change(self) -> None:
        while True:
            idle_s = _POLL_OTHERS_S if self.absence.is_possible else _POLL_IDLE_S
            try:
                async with asyncio.timeout(_POLL_BUSY_S if self._registry.is_busy else idle_s):
                    await self._changed.wait()
                await asyncio.sleep(_settle_s(self._registry))
            except TimeoutError:
                pass
            self._changed.clear()
            if not self.is_connected:
                continue
            try:
                await self.sync()
            except DatabaseUnavailable as error:
                if not self._is_failing:
                    _log.error("jobs are not followed until the database can be used again: %s", error)
                self._is_failing = True
            except (UpstreamUnavailable, UpstreamTimeout) as error:
                # The watching socket may be well all the same.
                if not self._is_failing:
                    _log.warning(
                        "the queue of %s cannot be read (%s): what ends is not seen; trying on",
                        self.absence.title(self.name),
                        error.message,
                    )
                self._is_failing = True

    async def rebuild(self) -> bool:
        """Reads ComfyUI's history and queue: what the gate did not know, and what ended or was lost while it did not look.

        Whether it has nothing of what ended there, and no warm-up: then it was started anew, and not only its connection broke.
        """
        begun_s, ended = time.time(), ended_at(self._registry, self.name)
        listed: set[str] = set()
        is_whole, was_warmed = True, False
        async for page in self._history.pages():
            is_whole &= page is not None
            for prompt_id, entry in (page or {}).items():
                listed.add(prompt_id)
                was_warmed |= is_warmup(entry)
                await self.take_entry(prompt_id, entry)
        if is_whole and listed.isdisjoint(ended):
            self._registry.forget_restarted(self.name, ended)
        queued = await self.sync()
        if is_whole:  # they would keep ComfyUI's window from those that wait
            await self._records.doubts.drop(begun_s, listed | queued)
        return is_whole and not was_warmed and listed.isdisjoint(ended)

    async def sync(self) -> set[str]:
        """Compares the registry with ComfyUI's queue and closes what is no longer in it; what is in it."""
        known = {job.prompt_id for job in self._registry.given_to(self.name) if self._is_followed(job)}
        announcements = self._announcements
        announcements.is_read = True
        try:
            queue = await self.queue.read()
        except BaseException:
            announcements.is_read = False
            raise
        await self._adoption.take(queue)
        if self.absence.is_possible:
            queue = await self._strays.take_out(queue)
        self._standstill.look(queue, is_one_of_several=self.absence.is_possible)
        for prompt_id in queue.given:
            self._registry.dispatched(prompt_id)
            if (job := self._registry.job(prompt_id)) is not None:
                job.seen_in = self._registry.connections.to(self.name)
        for prompt_id in queue.running:
            job = self._registry.job(prompt_id)
            if job is not None and self._registry.start(job):
                self._on_started(job)
        missing = known - queue.running - queue.pending
        await self.closing.close_missing(missing, was_current=self._was_current)
        self.closing.listed(queue.given)
        if self._is_failing:
            _log.info("the queue of %s can be read again", self.absence.title(self.name))
        self._is_failing = False
        self._synced_at_s = time.monotonic()
        if self.is_worker_stuck and self.absence.is_possible:
            await self._standstill.mark(self.name, queue)
            await self.absence.stands_still(self.name, self.closing)
        self.on_synced()
        return queue.running | queue.pending

    def _is_followed(self, job: Job) -> bool:
        """Whether ComfyUI should have it in its queue, and this gate is the one that sees to its end."""
        if job.gate != self._records.gate or job.comfyui != self.name:
            return False
        if job.is_being_sent:
            return False
        if job.state is JobState.SENT:
            # Of an earlier connection, or sent so long ago that it is in the queue by now, or nowhere.
            return (
                job.sent_in != self._registry.connections.to(self.name) or time.time() - job.sent_at_s > _CLAIM_LOST_S
            )
        return job.state in (JobState.DISPATCHED, JobState.RUNNING)

    async def has_job(self, prompt_id: str) -> bool:
        """Whether ComfyUI has or had a job of this id, whoever sent it. Raises UpstreamUnavailable, UpstreamTimeout.

        SECURITY: the same is asked whoever has it, and never for a neighbour's entry, whose size would show in the time.
        """
        is_known = self._registry.knows(prompt_id)
        ended = await self._history.has(ABSENT_JOB if is_known else prompt_id)
        queue = await self.queue.read()
        await self._adoption.take(queue)
        return is_known or ended or prompt_id in queue.running | queue.pending

    async def take_entry(self, prompt_id: str, entry: Any) -> None:
        """What ComfyUI's history has of a job: its end, where that was not known; nothing for what is none."""
        job = self._registry.job(prompt_id)
        if job is None:
            await self._adoption.take_entry(prompt_id, entry)
            # It may be on disk already, as one whose submission got no answer: then this is the first that is heard of its end.
            job = self._registry.job(prompt_id)
        if job is None:
            return
        if job.state is JobState.ENDED:
            claim_listed_files(self._registry, job, entry)
        elif self._is_followed(job) and is_of_run(entry, job):
            await self._endings.told(job, entry)
