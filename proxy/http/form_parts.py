"""A multipart form, read part after part as it streams. Memory: one piece of the body, and what whoever asks keeps."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from proxy.http.multipart_part import Part, malformed
from proxy.http.multipart_reader import MultipartReader
from proxy.http.request_body import BodyStream

Pay = Callable[[int], Awaitable[None]]
MAX_PARTS: Final = 256
"""Of one form, empty ones too."""
_PAY_BYTES = 1024 * 1024


class FormParts:
    """pay: for what came. Every method raises what the source and `pay` do, and Violation(body-malformed)."""

    def __init__(self, source: BodyStream, boundary: bytes, pay: Pay) -> None:
        self._source = source
        self._chunks = aiter(source)
        self._pay = pay
        self._unpaid = 0
        self._part_count = 0
        self._reader = MultipartReader(boundary, self, texts=())
        self._read: deque[Part | bytes | None] = deque()
        """Heads, content, and a None behind each part."""

    @property
    def received_bytes(self) -> int:
        return self._source.received_bytes

    async def next(self) -> Part | None:
        """The head of the next part, when all of the one before was read; None at the end of the form."""
        head = await self._take()
        if head is None:
            await self._pay_rest()
        assert head is None or isinstance(head, Part), "its content was read"
        return head

    async def content(self) -> AsyncIterator[bytes]:
        """What is still to come of the part, once."""
        while (piece := await self._take()) is not None:
            assert isinstance(piece, bytes), "a head comes behind the end of the part before"
            yield piece

    async def _take(self) -> Part | bytes | None:
        while not self._read:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                if not self._reader.is_ended:
                    raise malformed("the closing boundary is missing")
                return None
            self._unpaid += len(chunk)
            if self._unpaid >= _PAY_BYTES:
                await self._pay_rest()
            self._reader.feed(chunk)
        return self._read.popleft()

    async def _pay_rest(self) -> None:
        amount, self._unpaid = self._unpaid, 0
        await self._pay(amount)

    # What the reader calls.

    def part_begun(self, part: Part) -> None:
        # SECURITY: each costs far more than its bytes, and a piece of a body holds thousands (tests/proxy/functions/test_calls.py).
        self._part_count += 1
        if self._part_count > MAX_PARTS:
            raise malformed(f"a form has at most {MAX_PARTS} parts")
        self._read.append(part)

    def part_data(self, data: bytes) -> None:
        self._read.append(data)

    def part_ended(self) -> None:
        self._read.append(None)
