"""The requests that run: how many, whose, and the rules that go on when their client has left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from policy.call import ClientReply
from policy.principal import Principal
from proxy.http.errors import ClientGone, CredentialEnded, refusal_for
from proxy.http.request import Request
from proxy.http.request_record import Decision, RequestRecord
from proxy.observability.recent_refusals import describe, describe_comfyuis

_log = logging.getLogger("comfygate")


class RunningRequests:
    """is_alive: whether the configuration in force still lets a caller in."""

    def __init__(self, is_alive: Callable[[Principal], bool]) -> None:
        self._is_alive = is_alive
        self._requests: dict[int, tuple[Request | None, RequestRecord]] = {}
        self._idle: asyncio.Event | None = None
        """While somebody waits for it."""
        self._rules: dict[int, asyncio.Task[Any] | None] = {}
        """In which tasks rules run that are ended also when their clients have left."""
        self._rule_ended: asyncio.Event | None = None
        self.stopping = asyncio.Event()
        """The gate stops: an answer that has no end of its own ends now, in order, so that its client comes again."""

    def begin(self, request: Request, record: RequestRecord) -> None:
        self._requests[id(record)] = (request, record)

    def upgrade(self, record: RequestRecord) -> None:
        """It is a WebSocket or a stream of events now, which runs without its head."""
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
        """Waits for the requests that run and have a client, at most that long; says whether all ended."""
        try:
            async with asyncio.timeout(limit_s):
                if not all(_is_left(request) for request, _ in self._requests.values()):
                    self._idle = self._idle or asyncio.Event()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self, limit_s: float) -> None:
        """Waits for rules that were begun, whether their clients are there or not; what takes longer than that is broken off."""
        try:
            async with asyncio.timeout(limit_s):
                await self._until_no_rule_runs()
        except TimeoutError:
            _log.warning("jobs were being submitted for %.0f s after the last request: that is broken off", limit_s)
        for task in tuple(self._rules.values()):
            if task is not None:
                task.cancel()
        await self._until_no_rule_runs()

    async def _until_no_rule_runs(self) -> None:
        while self._rules:
            self._rule_ended = self._rule_ended or asyncio.Event()
            await self._rule_ended.wait()
            self._rule_ended = None

    async def finish(self, run: Awaitable[ClientReply], request: Request, record: RequestRecord) -> ClientReply:
        """A rule that was begun is ended, also when its client has gone: half a rule is a job without an owner."""
        request.goes_on = True
        self._rules[id(record)] = asyncio.current_task()
        try:
            reply = await run
        except BaseException as error:
            if is_gone(request):
                _tell_failure(error, record)
                raise asyncio.CancelledError from error
            raise
        finally:
            request.goes_on = False
            del self._rules[id(record)]
            if self._rule_ended is not None:
                self._rule_ended.set()
        if is_gone(request):
            record.decision = Decision.ACCEPTED if reply.status < 400 else Decision.REFUSED
            record.notes |= describe_comfyuis(reply)
            raise asyncio.CancelledError
        return reply


def is_gone(request: Request) -> bool:
    """Whether its client has left: nobody is there to be answered."""
    return not request.connection.is_usable


def _is_left(request: Request | None) -> bool:
    """Whether it goes on without its client."""
    return request is not None and request.goes_on and is_gone(request)


def _tell_failure(error: BaseException, record: RequestRecord) -> None:
    """Nobody is there to be answered: what became of it is recorded here, and a bug in it is logged here or nowhere."""
    if isinstance(error, asyncio.CancelledError):
        record.decision = Decision.UNKNOWN
        return
    refusal = refusal_for(error) if isinstance(error, Exception) else None
    if isinstance(error, ClientGone):  # in the middle of its body, which a rule waited for
        record.reason = "client-gone"
    elif refusal is None:
        _log.error("request %s failed after its client had left", record.request_id, exc_info=error)
    else:
        record.reason = refusal.reason
        record.notes |= describe(refusal)
    is_unknown = (refusal is None and not isinstance(error, ClientGone)) or record.is_submitted
    record.decision = Decision.UNKNOWN if is_unknown else Decision.REFUSED
