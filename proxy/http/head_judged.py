"""A body that goes on as it comes, once its first bytes were judged: nothing of a refused one reaches ComfyUI but its head."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from policy.call import HeadJudged
from proxy.http.request_body import BodyStream

Spend = Callable[[int], Awaitable[None]]


class HeadJudgedStream:
    """A body whose first bytes are judged before any go on. Raises what its source and the judge do, and LimitExceeded."""

    def __init__(self, source: BodyStream, body: HeadJudged, spend: Spend) -> None:
        """spend: pays for bytes, before they go on."""
        self._source = source
        self._body = body
        self._spend = spend

    async def __aiter__(self) -> AsyncIterator[bytes]:
        head: bytearray | None = bytearray()
        async for chunk in self._source:
            await self._spend(len(chunk))
            if head is not None:
                head += chunk
                if len(head) < self._body.head_bytes:
                    continue
                chunk, head = self._judged(head), None
            yield chunk
        if head is not None:
            yield self._judged(head)

    def _judged(self, head: bytearray) -> bytes:
        self._body.judge(bytes(head[: self._body.head_bytes]))
        return bytes(head)
