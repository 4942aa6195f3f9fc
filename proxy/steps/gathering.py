"""Asks each of several ComfyUIs that run a tenant's jobs, and makes one answer of what they say. With one ComfyUI, or for the first alone, nobody gathers."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import orjson

from policy.call import ClientReply, UpstreamCall, UpstreamReply
from policy.passed_calls import forward_call
from policy.routes import Rewrite
from policy.rule_context import RuleInput
from proxy.dependencies import Dependencies
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.steps.permit import PermittedRequest
from proxy.upstream.upstreams import Upstreams

LIMIT_S: Final = 10.0
"""One that says nothing keeps the others' answer for so long, until it counts as away."""

_Said = UpstreamReply | UpstreamUnavailable | UpstreamTimeout


class Gathering:
    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies

    def names_for(self, permitted: PermittedRequest) -> tuple[str, ...] | None:
        """Which of them are asked; None where the call goes to the first as ever."""
        placing, principal = self._dependencies.jobs.placing, permitted.principal
        if permitted.route.gather is None or placing is None or principal.is_admin:
            return None
        names = tuple(comfyui.name for comfyui in placing.open_to(principal.tenant))
        return None if names == tuple(self._dependencies.registry.comfyuis[:1]) else names

    async def answer(self, permitted: PermittedRequest, asked: RuleInput | None, names: tuple[str, ...]) -> ClientReply:
        """Of those that are there. Raises what the first of them did when none says anything, and what the rule does."""
        rule, gather = permitted.rule, permitted.route.gather
        assert gather is not None, "of a row that has it"
        call: UpstreamCall | ClientReply = forward_call(permitted.call, has_body=False)
        if isinstance(rule, Rewrite) and asked is not None:
            call = rule.request(asked)
        if isinstance(call, ClientReply):
            return call
        said = await self._ask(permitted, call, names)
        replies = [each for each in said if isinstance(each, UpstreamReply)]
        good = [reply.value for reply in replies if reply.status == 200]
        if good or not names:
            value = gather(good)
            if isinstance(rule, Rewrite) and rule.reply is not None and asked is not None:
                value = rule.reply(value, asked)
            return ClientReply(body=orjson.dumps(value))
        if replies:
            return ClientReply(replies[0].status, replies[0].body, replies[0].content_type)
        failure = said[0]
        assert not isinstance(failure, UpstreamReply), "there is none"
        raise failure

    async def _ask(self, permitted: PermittedRequest, call: UpstreamCall, names: tuple[str, ...]) -> list[_Said]:
        watchers, upstream = self._dependencies.queue_watchers, self._dependencies.upstream
        assert isinstance(upstream, Upstreams), "there are several"
        there = [name for name in names if watchers.of(name).is_connected] or names
        began_s = time.perf_counter()

        async def ask(name: str) -> _Said:
            try:
                return await upstream.of(name).ask(call, time_limit_s=LIMIT_S)
            except (UpstreamUnavailable, UpstreamTimeout) as error:
                return error

        try:
            return list(await asyncio.gather(*map(ask, there)))
        finally:
            permitted.record.upstream_s = time.perf_counter() - began_s
