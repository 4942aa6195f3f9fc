"""Who takes a body, as a client's connection does: quickly or slowly."""

from __future__ import annotations

import asyncio


class Slow:
    """Takes a body as a slow client's connection does: each piece is kept as it was given until `ready`, and only looked at then.

    began: it keeps an uncopied one. turn: it is not ready before that.
    """

    def __init__(self, turn: asyncio.Event | None = None) -> None:
        self.taken = b""
        self.kept: list[bytes | memoryview] = []
        self.began = asyncio.Event()
        self.turn = turn

    def take(self, piece: bytes | memoryview) -> bool:
        assert not self.kept, "it takes no more before it is ready"
        self.kept.append(piece)
        if isinstance(piece, memoryview):
            self.began.set()
        return False

    async def ready(self) -> None:
        if self.turn is not None and self.began.is_set():
            await self.turn.wait()
        await asyncio.sleep(0)
        self.taken += b"".join(self.kept)
        self.kept.clear()


class Quick:
    """Takes each piece at once. error: raised instead of taking a second one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.pieces: list[bytes] = []
        self.views = 0
        self._error = error
        self._came = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def take(self, piece: bytes | memoryview) -> bool:
        if self._error is not None and self.pieces:
            raise self._error
        self.pieces.append(bytes(piece))
        self.views += isinstance(piece, memoryview)
        self._came.set()
        return True

    async def ready(self) -> None:
        """It always is."""

    async def until(self, size: int) -> None:
        """Until so many bytes have come in all."""
        while sum(map(len, self.pieces)) < size:
            self._came.clear()
            await self._came.wait()
