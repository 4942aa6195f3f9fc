"""A ComfyUI beside the first one."""

from __future__ import annotations

import asyncio

from proxy.http.errors import UpstreamUnreachable
from proxy.upstream.client import Upstream


class OtherUpstream(Upstream):
    """Says its name where it does not answer: the others may do so meanwhile, and nothing of what it has is lost."""

    def __init__(self, name: str, url: str, connect_timeout_s: float) -> None:
        super().__init__(url, connect_timeout_s)
        self._sentence = f"The ComfyUI that has this, {name}, does not answer. Try again in a moment."

    async def _dial(self, protocol: asyncio.BaseProtocol) -> None:
        try:
            await super()._dial(protocol)
        except UpstreamUnreachable as error:
            raise UpstreamUnreachable(self._sentence, status=503) from error
