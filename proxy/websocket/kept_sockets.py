"""Sockets to ComfyUI that the gate keeps: open as long as somebody needs them, and opened again when they were lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Final, Generic, TypeVar

from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.tasks import Tasks

LOOK_EACH_S: Final = 30.0
"""How long one stays open at least: clients submit one job after the other."""
_TRY_AGAIN_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)

_log = logging.getLogger("comfygate")

Key = TypeVar("Key", bound=Hashable)


class KeptSockets(Generic[Key]):
    """open: one that is not, raises UpstreamUnavailable, UpstreamTimeout. close: one that nobody needs."""

    def __init__(
        self,
        open_one: Callable[[Key], Awaitable[None]],
        *,
        is_open: Callable[[Key], bool],
        is_wanted: Callable[[Key], bool],
        close: Callable[[Key], None],
    ) -> None:
        self._open_one = open_one
        self._is_open = is_open
        self._is_wanted = is_wanted
        self._close = close
        self._looks: dict[Key, asyncio.TimerHandle] = {}
        self._opening: dict[Key, asyncio.Event] = {}
        """Set where it is worth trying at once."""
        self._tasks = Tasks()
        self._is_stopping = False

    async def stop(self) -> None:
        self._is_stopping = True
        for timer in self._looks.values():
            timer.cancel()
        self._looks.clear()
        await self._tasks.stop()

    async def keep(self, key: Key) -> bool:
        """Has it open, and closes it when nobody needs it any more; False where it cannot be opened now."""
        try:
            if not self._is_open(key):
                await self._open_one(key)
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            if key not in self._opening:  # said once
                _log.info("the progress of jobs is not heard (%s): %s", key, error)
            self.lost(key)
            return False
        if key not in self._looks and not self._is_stopping:
            self._look_later(key)
        return True

    def keep_soon(self, key: Key) -> None:
        self._open_until_kept(key, (0.0, *_TRY_AGAIN_S))

    def lost(self, key: Key) -> None:
        """It is not open: it will be, as long as somebody needs it."""
        self._open_until_kept(key, _TRY_AGAIN_S)

    def _open_until_kept(self, key: Key, delays_s: tuple[float, ...]) -> None:
        if not self._is_stopping and key not in self._opening and self._is_wanted(key):
            hurry = self._opening[key] = asyncio.Event()
            self._tasks.start(self._open(key, delays_s, hurry), "event stream of the gate's own")

    def hurry(self, may_open: Callable[[Key], bool]) -> None:
        """Those that wait until they are tried again are tried now."""
        for key, hurry in self._opening.items():
            if may_open(key):
                hurry.set()

    def _look_later(self, key: Key) -> None:
        self._looks[key] = asyncio.get_running_loop().call_later(LOOK_EACH_S, self._look, key)

    def _look(self, key: Key) -> None:
        del self._looks[key]
        if self._is_wanted(key):
            self._look_later(key)
        else:
            self._close(key)

    async def _open(self, key: Key, delays_s: tuple[float, ...], hurry: asyncio.Event) -> None:
        failures = 0
        try:
            while self._is_wanted(key):
                with suppress(TimeoutError):
                    async with asyncio.timeout(delays_s[min(failures, len(delays_s) - 1)]):
                        await hurry.wait()
                hurry.clear()
                if await self.keep(key):
                    return
                failures += 1
        finally:
            del self._opening[key]
