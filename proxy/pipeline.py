"""Handles one public request: parse, permit, read, apply the rule, send, record. What each step does is in proxy/steps/; what is decided, in policy/."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import Final

from policy.principal import Principal
from policy.routes import RelayWebSocket, RunFunction, StreamEvents
from policy.violation import Reason, Violation
from proxy.compiled_config import CompiledConfig
from proxy.dependencies import Dependencies
from proxy.http.errors import ClientGone, Refusal, TurnedAway, refusal_for
from proxy.http.replies import Reply, UpgradedReply
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.http.sending import send
from proxy.http.server import HEALTH_PATH
from proxy.observability.recent_refusals import describe
from proxy.pages.refusals import refuse
from proxy.pages.routes import has_page, shortcut
from proxy.running_requests import RunningRequests
from proxy.steps.apply import RuleApplier
from proxy.steps.held import Held
from proxy.steps.permit import PermittedRequest, permit, permit_again
from proxy.steps.rule_input import read_rule_input

_log = logging.getLogger("comfygate")
_BUG: Final = Refusal(500, "internal-error", "The gate failed. The request id is in its log.")
_CLOSING: Final = (("Connection", "close"), ("Retry-After", "5"))
_STOPPING: Final = Refusal(503, "gate-stopping", "The gate is stopping.", headers=_CLOSING)
_NO_PLACE: Final = Refusal(
    503, "no-connections-left", "The gate has as many connections as it takes.", headers=_CLOSING
)


class Pipeline:
    """The handler of the public listener. dependencies: everything that lives longer than a request. is_closed: it answers no more."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self.is_closed = False
        self.running = RunningRequests(self._is_alive)
        self._rules = RuleApplier(dependencies, self.running)

    def _is_alive(self, principal: Principal) -> bool:
        # SECURITY: of the configuration in force, not the request's: a revoked key ends what waits (tests/security/test_revoked.py).
        return self._dependencies.compiled.authenticator.is_alive(principal, time.time())

    async def handle(self, request: Request) -> None:
        """Answers one request; every exception becomes an answer or a broken connection, and always a record."""
        compiled = self._dependencies.compiled
        record = RequestRecord.begin(request, compiled.client_address(request), compiled.public_path)
        self.running.begin(request, record)
        held = Held()
        reply: Reply | None = None
        try:
            try:
                reply = await self._reply_to(request, record, compiled, held)
                await send(request, record, reply)
            finally:
                held.release()
        except asyncio.CancelledError:
            record.status = 499
            raise
        except Exception as error:
            await self._failed(request, record, error)
        finally:
            if isinstance(reply, UpgradedReply):
                self.running.upgrade(record)
                reply.at_end(partial(self._end, record))
            else:
                self._end(record)

    def _end(self, record: RequestRecord) -> None:
        self.running.end(record)
        self._dependencies.recorder.record(record)

    async def _reply_to(self, request: Request, record: RequestRecord, compiled: CompiledConfig, held: Held) -> Reply:
        """compiled: the one configuration that the request goes by. held: its places and ComfyUI's answer, until its own has left."""
        if self.is_closed:
            raise TurnedAway(_STOPPING)
        permitted: PermittedRequest | Reply | None = permit_again(self._dependencies, request, record, compiled)
        if permitted is None:
            permitted = await self._permit(request, record, compiled)
        if not isinstance(permitted, PermittedRequest):
            return permitted
        if isinstance(permitted.rule, RelayWebSocket):
            return await self._rules.relay(permitted)
        if isinstance(permitted.rule, StreamEvents):
            return await self._rules.follow(permitted)
        if isinstance(permitted.rule, RunFunction):
            return await self._rules.call(permitted, held)
        asked = await read_rule_input(self._dependencies, permitted, held, self.running.check)
        if asked is None:
            return await self._rules.pass_on(permitted, held)
        return await self._rules.apply(permitted, asked, held)

    async def _permit(
        self, request: Request, record: RequestRecord, compiled: CompiledConfig
    ) -> PermittedRequest | Reply:
        """A reply: that of a page, or what is given in a row's place."""
        if request.is_reserved and request.raw_path.partition("?")[0] != HEALTH_PATH:
            raise TurnedAway(_NO_PLACE)
        max_head_bytes = compiled.config.server.max_header_bytes
        if request.head_bytes > max_head_bytes:
            raise Violation(
                Reason.HEADER_MALFORMED, "The head of the request is too large.", f"at most {max_head_bytes} bytes"
            )
        if (elsewhere := shortcut(request, record)) is not None:
            return elsewhere
        target = compiled.table.read(request.method, request.raw_path)
        if has_page(target):
            return await self._dependencies.pages.serve(request, record, compiled, target)
        return await permit(self._dependencies, request, record, compiled, target)

    async def _failed(self, request: Request, record: RequestRecord, error: Exception) -> None:
        refusal = refusal_for(error)
        if refusal is not None:
            record.notes |= describe(refusal)
        is_gone = isinstance(error, ClientGone | ConnectionResetError)
        if is_gone:
            record.reason = record.reason or "client-gone"
            record.status = 499
        elif request.has_answer:
            # The head is out: an honest end is impossible, so the connection breaks and the client sees an error.
            record.reason = refusal.reason if refusal else "internal-error"
        if refusal is None and not is_gone:
            _log.error("request %s failed", record.request_id, exc_info=error)
        if not request.has_answer and record.status != 499:
            try:
                await send(request, record, refuse(request, record, refusal or _BUG))
                return
            except ConnectionResetError:
                record.status = 499
        request.hang_up()
