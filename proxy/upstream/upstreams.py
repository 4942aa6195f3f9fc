"""Several ComfyUIs as one: what concerns jobs, or a file that one of them made, goes there, and everything else to the first."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import replace

from multidict import CIMultiDict

from policy.call import UpstreamCall, UpstreamReply
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.upstream.client import MAX_REPLY_BYTES, FieldLines, Upstream, UpstreamStream

Chooses = Callable[[UpstreamCall], str]


def _of_none(call: UpstreamCall) -> str:
    return ""


class Upstreams(Upstream):
    """others: by name; replaced when some come or go. choose: the name of the one that a call goes to; those that are not among the others go to the first.

    absent_maker: the name of one that is not there any more and has made what a call is for, "" for all others: the first may have a copy.
    is_told: whether a client is told that the one of that name does not answer. answers: whether it does, as far as is known.
    """

    def __init__(
        self, url: str, connect_timeout_s: float, others: Mapping[str, Upstream], choose: Chooses = _of_none
    ) -> None:
        super().__init__(url, connect_timeout_s)
        self.others = others
        self.choose = choose
        self.absent_maker: Chooses = _of_none
        self.is_told: Callable[[UpstreamCall, str], bool] = lambda call, name: True
        self.answers: Callable[[str], bool] = lambda name: True
        self.is_awaited = self._is_awaited

    def of(self, comfyui: str) -> Upstream:
        return self.others.get(comfyui, self)

    async def stop(self) -> None:
        for other in self.others.values():
            await other.stop()
        await super().stop()

    async def open(
        self,
        call: UpstreamCall,
        headers: CIMultiDict[str] | FieldLines | None = None,
        body: AsyncIterable[bytes] | bytes | None = None,
        *,
        time_limit_s: float,
        is_for_all: bool = False,
    ) -> UpstreamStream:
        name = self.choose(call)
        other = self.others.get(name)
        send = super().open if other is None else other.open
        stream = await send(call, headers, body, time_limit_s=time_limit_s, is_for_all=is_for_all)
        stream.comfyui = "" if other is None else name
        if stream.status == 404 and (absent := self.absent_maker(call)):
            stream.close()
            raise UpstreamUnavailable(
                f"The ComfyUI that has this, {absent}, is not among the gate's any more.", status=503
            )
        return stream

    async def open_instead(
        self, call: UpstreamCall, headers: CIMultiDict[str] | FieldLines, *, time_limit_s: float
    ) -> UpstreamStream | None:
        name = self.choose(call)
        if name not in self.others or self.is_told(call, name):
            return None
        return await super().open(call, headers, time_limit_s=time_limit_s)

    def _is_awaited(self, call: UpstreamCall) -> bool:
        # SECURITY: how long it takes until nobody answers tells that there is one (tests/several/test_fleet_files.py::test_nobody_is_waited_for_in_vain).
        name = self.choose(call)
        return name not in self.others or self.answers(name) or self.is_told(call, name)

    async def ask(self, call: UpstreamCall, *, time_limit_s: float, max_bytes: int = MAX_REPLY_BYTES) -> UpstreamReply:
        """One of several jobs goes to each ComfyUI that has one of them, whatever the others say; answered with the first refusal, else with the last answer.
        Raises what the first one did that failed."""
        if len(call.jobs) < 2:
            return await super().ask(call, time_limit_s=time_limit_s, max_bytes=max_bytes)
        parts = {self.choose(part): part for part in (replace(call, jobs=(job,)) for job in call.jobs)}
        reply: UpstreamReply | None = None
        failure: UpstreamUnavailable | UpstreamTimeout | None = None
        for part in parts.values():
            try:
                told = await super().ask(part, time_limit_s=time_limit_s, max_bytes=max_bytes)
            except (UpstreamUnavailable, UpstreamTimeout) as error:
                failure = failure or error
            else:
                reply = told if reply is None or reply.status == 200 else reply
        if failure is not None:
            raise failure
        assert reply is not None, "of at least two jobs"
        return reply
