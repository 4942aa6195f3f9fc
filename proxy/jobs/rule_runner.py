"""Carries out what a dialogue rule asks for, step by step, and gives it the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from policy.call import ClaimedJob, ClaimJob, ClientReply, Dialogue, ReleaseJob, Step, UpstreamCall, UpstreamReply, Work
from policy.principal import Principal
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.http.request_record import Decision, Exchange
from proxy.jobs.admission_protocol import JobDesk
from proxy.limits.heavy_work import HeavyWork
from proxy.upstream.client import Upstream


class Conversation:
    """One dialogue. A claimed job that did not come to be is released, whatever went wrong."""

    def __init__(
        self,
        upstream: Upstream,
        desk: JobDesk,
        principal: Principal,
        exchange: Exchange,
        time_limit_s: float,
        check: Callable[[Principal], None] = lambda principal: None,
        heavy: HeavyWork | None = None,
    ) -> None:
        """check: raises when the caller may not go on; asked before ComfyUI is asked first. heavy: where large work takes its turn."""
        self._heavy = heavy or HeavyWork()
        self._check: Callable[[Principal], None] | None = check
        self._upstream = upstream
        self._desk = desk
        self._principal = principal
        self._exchange = exchange
        self._time_limit_s = time_limit_s
        self._claimed: ClaimedJob | None = None

    async def hold(self, dialogue: Dialogue) -> ClientReply:
        """Runs the dialogue to its reply. What goes wrong on the way is raised inside the dialogue, and from there to the caller."""
        try:
            step = next(dialogue)
            while True:
                try:
                    answer = await self._perform(step)
                except Exception as error:
                    step = dialogue.throw(error)
                else:
                    step = dialogue.send(answer)
        except StopIteration as end:
            reply: ClientReply = end.value
            if self._claimed is not None:
                self._desk.submitted(self._claimed)
            for news in reply.news:
                self._desk.learned(news)
            return reply
        except BaseException as error:
            if self._exchange.is_submitted and isinstance(
                error, UpstreamTimeout | UpstreamUnavailable | asyncio.CancelledError
            ):
                self._exchange.decision = Decision.UNKNOWN
            # Where ComfyUI took the job all the same, the observer finds it in the queue, with its owner.
            if self._claimed is not None:
                self._desk.release(self._claimed.prompt_id)
            raise
        finally:
            dialogue.close()

    async def hold_in(self, turn: AbstractAsyncContextManager[None], dialogue: Dialogue) -> ClientReply:
        """The same, when it is its turn."""
        async with turn:
            return await self.hold(dialogue)

    async def _perform(self, step: Step) -> Any:
        if self._check is not None and not isinstance(step, ClaimJob | ReleaseJob):
            check, self._check = self._check, None
            check(self._principal)
        match step:
            case UpstreamCall():
                self._exchange.is_submitted |= self._claimed is not None
                return await self._ask(step)
            case ClaimJob():
                self._exchange.notes |= {"workflow": step.workflow, "classes": step.classes}
                self._claimed = await self._desk.claim(self._principal, step)
                self._exchange.notes["prompt_id"] = self._claimed.prompt_id
                return self._claimed
            case ReleaseJob():
                self._desk.release(step.prompt_id)
                self._claimed = None
                self._exchange.is_submitted = False
                return None
            case Work():
                return await self._heavy.run(self._principal.tenant, step.function, step.size)
            case _:
                try:
                    async with asyncio.TaskGroup() as group:
                        asked = [group.create_task(self._ask(call)) for call in step]
                except ExceptionGroup as errors:
                    raise errors.exceptions[0] from None  # the first failure cancelled the others
                return [task.result() for task in asked]

    async def _ask(self, call: UpstreamCall) -> UpstreamReply:
        started_s = time.perf_counter()
        try:
            return await self._upstream.ask(call, time_limit_s=self._time_limit_s)
        finally:
            self._exchange.upstream_s += time.perf_counter() - started_s
