"""The requests that run: how many, whose, and the rules that go on when their client has left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from policy.call import ClientReply
from policy.principal import Principal
from proxy.http.errors import CredentialEnded, refusal_for
from proxy.http.request import Request
from proxy.http.request_record import Decision, RequestRecord
from proxy.observability.recent_refusals import describe, describe_comfyuis
from proxy.tasks import Tasks

_log = logging.getLogger("comfygate")


class RunningRequests:
    """is_alive: whether the configuration in force still lets a caller in. on_late_end: a rule whose client has left has ended."""

    def __init__(self, is_alive: Callable[[Principal], bool], on_late_end: Callable[[RequestRecord], None]) -> None:
        self._is_alive = is_alive
        self._on_late_end = on_late_end
        self._requests: dict[int, tuple[Request | None, RequestRecord]] = {}
        self._idle: asyncio.Event | None = None
        """While somebody waits for it."""
        self._running_rules = Tasks(is_watched=True)

    def begin(self, request: Request, record: RequestRecord) -> None:
        self._requests[id(record)] = (request, record)

    def upgrade(self, record: RequestRecord) -> None:
        """It is a WebSocket now, which runs without its head."""
        self._requests[id(record)] = (None, record)

    def end(self, record: RequestRecord) -> None:
        self._requests.pop(id(record), None)
        if self._idle is not None and not self._requests:
            self._idle.set()
            self._idle = None

    def check(self, principal: Principal) -> None:
        """Raises CredentialEnded. SECURITY: what waits (for its body, its turn, a limit) may outlive its key (tests/security/test_revoked.py)."""
        if not self._is_alive(principal):
            raise CredentialEnded

    def cut_dead(self) -> int:
        """Cuts off the requests of callers whose credential was revoked or ran out; WebSockets are closed elsewhere, with a word."""
        dead = [
            (request, record)
            for request, record in self._requests.values()
            if request is not None and record.principal is not None and not self._is_alive(record.principal)
        ]
        for request, record in dead:
            record.reason = CredentialEnded.reason
            request.hang_up()
        return len(dead)

    async def wait_until_idle(self, limit_s: float) -> bool:
        """Waits for the requests that run, at most that long; says whether all ended."""
        try:
            async with asyncio.timeout(limit_s):
                if self._requests:
                    self._idle = self._idle or asyncio.Event()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self, limit_s: float) -> None:
        """Waits for rules whose clients have left, at most that long."""
        try:
            async with asyncio.timeout(limit_s):
                await self._running_rules.finish()
        except TimeoutError:
            _log.warning("jobs were being submitted for %.0f s after the last request: that is broken off", limit_s)
        await self._running_rules.stop()

    async def finish(self, run: Coroutine[Any, Any, ClientReply], record: RequestRecord) -> ClientReply:
        """A rule that was begun is ended, also when its client has gone: half a rule is a job without an owner."""
        task = self._running_rules.start(run, "rule")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                record.decision = Decision.OPEN
                task.add_done_callback(lambda ended: self._ended_late(ended, record))
            raise

    def _ended_late(self, task: asyncio.Task[ClientReply], record: RequestRecord) -> None:
        """Nobody waits for it: what became of it is recorded here, and a bug in it is logged here or nowhere."""
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            record.decision = Decision.UNKNOWN
        elif error is None:
            record.decision = Decision.ACCEPTED if task.result().status < 400 else Decision.REFUSED
            record.notes |= describe_comfyuis(task.result())
        else:
            refusal = refusal_for(error) if isinstance(error, Exception) else None
            if refusal is None:
                _log.error("request %s failed after its client had left", record.request_id, exc_info=error)
            else:
                record.reason = refusal.reason
                record.notes |= describe(refusal)
            is_unknown = refusal is None or record.is_submitted
            record.decision = Decision.UNKNOWN if is_unknown else Decision.REFUSED
        self._on_late_end(record)
