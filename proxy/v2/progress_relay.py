"""What this gate hears of jobs of Comfy API v2, told to the other gates of its database, whose clients follow them too.

ComfyUI tells it to one socket of a client id, the newest: so of several gates one hears all that there is, whichever has given the job.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from policy.rules.events import PROGRESS, Event
from proxy.persistence.operations import DatabaseUnavailable
from proxy.tasks import Tasks

PACE_S: Final = 0.5
"""Between two times that it tells: as often as who follows a job is told (proxy/v2/audience.py)."""
MAX_TEXT: Final = 7_900
"""Of what is told at once, in characters: PostgreSQL takes 8,000 bytes."""
MAX_EVENT: Final = 64 * 1024
"""Of one event. What a larger one shows is found when the job ends."""
MAX_WAITING: Final = 512
_MAX_UNPACKED: Final = 512 * MAX_EVENT
KINDS: Final = frozenset({"execution_start", "execution_cached", "executing", "executed"}) | PROGRESS
_Said = tuple[str, str, str]

_log = logging.getLogger("comfygate")


class ProgressRelay:
    """say: tells the other gates, raises DatabaseUnavailable. hear: called with what another one has heard, and of which job."""

    def __init__(self, say: Callable[[str], Awaitable[None]], hear: Callable[[str, Event], None]) -> None:
        self._say = say
        self._hear = hear
        self._waiting: dict[object, _Said] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = Tasks()

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.stop()

    def heard(self, prompt_id: str, event: Event) -> None:
        """Here. Of what says how far a job is only the newest is told."""
        if event.kind not in KINDS or len(event.text) > MAX_EVENT:
            return
        key: object = (prompt_id, event.kind) if event.kind in PROGRESS else object()
        self._waiting.pop(key, None)
        self._waiting[key] = (prompt_id, event.kind, event.text)
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PACE_S, self._tell_soon)

    def _tell_soon(self) -> None:
        self._timer = None
        said, self._waiting = list(self._waiting.values()), {}
        self._tasks.start(self._tell(said), "progress for other gates")

    async def _tell(self, said: list[_Said]) -> None:
        try:
            for text in _pack(said):
                await self._say(text)
        except DatabaseUnavailable as error:
            _log.info("other gates are not told how far jobs are: %s", error)

    def told(self, text: str) -> None:
        """By another gate."""
        for prompt_id, kind, frame in _unpack(text):
            self._hear(prompt_id, Event(frame, kind, prompt_id, _data_of(kind, frame)))


def _pack(said: list[_Said]) -> list[str]:
    """In their order, in as many texts as it takes, without what is too large for any."""
    text = base64.b85encode(zlib.compress(orjson.dumps(said), 1)).decode("ascii")
    if len(text) <= MAX_TEXT:
        return [text]
    half = len(said) // 2
    return [] if not half else [*_pack(said[:half]), *_pack(said[half:])]


def _unpack(text: str) -> list[_Said]:
    """Nothing for what no gate of this version has said."""
    try:
        said = orjson.loads(zlib.decompressobj().decompress(base64.b85decode(text), _MAX_UNPACKED))
        return [(str(prompt_id), str(kind), str(frame)) for prompt_id, kind, frame in said]
    except (ValueError, TypeError, zlib.error):
        return []


def _data_of(kind: str, frame: str) -> dict[str, Any]:
    """Of a frame as the tenant sees it; progress is read by who needs it."""
    if kind in PROGRESS:
        return {}
    message = orjson.loads(frame)
    data = message.get("data") if isinstance(message, dict) else None
    return data if isinstance(data, dict) else {}
