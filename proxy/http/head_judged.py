"""A body that goes on as it comes, once its first bytes were judged: nothing of a refused one reaches ComfyUI but its head."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from policy.call import HeadJudged
from policy.violation import Violation
from proxy.http.errors import BodyTimeout, ClientGone, CredentialEnded, LimitExceeded
from proxy.http.request_body import BodyStream

Spend = Callable[[int], Awaitable[None]]


class HeadJudgedStream:
    """`error` holds why it broke off, since the HTTP client hides it in an exception of its own."""

    def __init__(self, source: BodyStream, body: HeadJudged, spend: Spend) -> None:
        """spend: pays for bytes, before they go on."""
        self._source = source
        self._body = body
        self._spend = spend
        self.error: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        head: bytearray | None = bytearray()
        try:
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
        except (Violation, LimitExceeded, BodyTimeout, ClientGone, CredentialEnded) as error:
            self.error = error
            raise

    def _judged(self, head: bytearray) -> bytes:
        self._body.judge(bytes(head[: self._body.head_bytes]))
        return bytes(head)
