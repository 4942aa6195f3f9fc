"""Hears of other gates' commits: PostgreSQL tells them to who listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from proxy.persistence.operations import DatabaseUnavailable
from proxy.persistence.postgres_link import Link

CHANNEL: Final = "comfygate"
WORDS: Final = "comfygate_words"
"""What gates say to each other without keeping it."""
_STILL_THERE_S: Final = 30.0
"""After so long without a word the server is asked whether it is there."""
_AGAIN_S: Final = 0.25


class Listener:
    """own_pid: the server's process of the connection that this gate writes with; what that tells is no news here."""

    def __init__(
        self, link: Link, own_pid: Callable[[], int | None], tell: Callable[[], None], hear: Callable[[str], None]
    ) -> None:
        """hear: called with what another gate says."""
        self._link = link
        self._hear = hear
        self._own_pid = own_pid
        self._tell = tell

    async def listen_forever(self) -> None:
        try:
            while True:
                with suppress(DatabaseUnavailable):
                    await self._listen()
                await asyncio.sleep(_AGAIN_S)
        finally:
            self._link.drop()

    async def _listen(self) -> None:
        """Until the connection is lost."""
        is_lost = asyncio.Event()
        await self._link.listen({CHANNEL: self._heard, WORDS: self._heard_word}, is_lost.set)
        # Nobody told what came between the lost connection and this one, or between the registration and now.
        self._tell()
        while not is_lost.is_set():
            try:
                async with asyncio.timeout(_STILL_THERE_S):
                    await is_lost.wait()
            except TimeoutError:
                await self._link.execute("SELECT 1")

    def _heard(self, pid: int, text: str) -> None:
        if pid != self._own_pid():
            self._tell()

    def _heard_word(self, pid: int, text: str) -> None:
        if pid != self._own_pid():
            self._hear(text)
