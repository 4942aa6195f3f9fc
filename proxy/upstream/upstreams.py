"""Several ComfyUIs as one: what concerns a job, or a file that one of them made, goes there, and everything else to the first."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping

from multidict import CIMultiDict

from policy.call import UpstreamCall
from proxy.upstream.client import FieldLines, Upstream, UpstreamStream

Chooses = Callable[[UpstreamCall], str]


class Upstreams(Upstream):
    """others: by name. choose: the name of the one that a call goes to; those that are not among the others go to the first."""

    def __init__(
        self, url: str, connect_timeout_s: float, others: Mapping[str, Upstream], choose: Chooses = lambda call: ""
    ) -> None:
        super().__init__(url, connect_timeout_s)
        self.others = others
        self.choose = choose

    async def open(
        self,
        call: UpstreamCall,
        headers: CIMultiDict[str] | FieldLines | None = None,
        body: AsyncIterable[bytes] | bytes | None = None,
        *,
        time_limit_s: float,
        is_for_all: bool = False,
    ) -> UpstreamStream:
        other = self.others.get(self.choose(call))
        send = super().open if other is None else other.open
        return await send(call, headers, body, time_limit_s=time_limit_s, is_for_all=is_for_all)

    async def stop(self) -> None:
        for other in self.others.values():
            await other.stop()
        await super().stop()
