"""What ComfyUI's history says, also where some of it cannot be read: what one tenant's job has in it hides no other job."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

from proxy.http.errors import ReplyTooLarge, UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.queue_reader import SYNC_LIMIT_S, get_call
from proxy.upstream.client import MAX_REPLY_BYTES, Upstream

ENTRY_LIMIT_S: Final = 10.0
MAX_TRIES: Final = 3
"""Of reading the history entry of one job. SECURITY: an entry that cannot be read keeps neither its own slot nor the others from
being freed (tests/security/test_unreadable.py)."""
MAX_UNANSWERED: Final = 20
"""Of reading it where no answer comes: that is more likely to be ComfyUI than the entry, and a job whose end is given up leaves no trace."""
_NOT_READY: Final = frozenset({502, 503, 504})
"""What a server in front of ComfyUI answers while that is away."""
_HISTORY_PAGE: Final = 100
_PAGE_BYTES: Final = 32 * 1024**2
_MAX_UNREADABLE: Final = 200

_log = logging.getLogger("comfygate")


UNREADABLE: Final = object()
"""In the place of an entry that is there, or may be, and cannot be read."""


class Found(NamedTuple):
    """entry: None where there is none. size: in bytes, of ComfyUI's answer."""

    entry: Any
    size: int = 0


class HistoryUnreadable(Exception):
    """The history could not be asked for an entry; the next time it may be."""


class HistoryReader:
    """Raises UpstreamUnavailable and UpstreamTimeout, but for `entry`."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._tries: dict[tuple[str, int], int] = {}
        """By id, and by how many there may be of such."""

    def connected(self) -> None:
        """ComfyUI was away: what could not be read then says nothing of the entries."""
        self._tries.clear()

    async def has(self, prompt_id: str) -> bool:
        reply = await self._upstream.ask(get_call("history", prompt_id), time_limit_s=SYNC_LIMIT_S)
        return reply.status == 200 and bool(reply.value)

    async def pages(self) -> AsyncIterator[dict[str, Any] | None]:
        """Entries by id, page by page; None in the place of an entry that cannot be read.

        SECURITY: a page that cannot be read, or is too large, is asked for in smaller ones: what one tenant's job has in it hides no
        other job, and keeps no gate from its start (tests/security/test_unreadable.py).
        """
        offset, size, unreadable = 0, _HISTORY_PAGE, 0
        while unreadable < _MAX_UNREADABLE:
            page = await self._page(offset, size)
            if page is None and size > 1:
                size = max(1, size // 8)
                continue
            yield page
            if page is None:
                unreadable += 1
                offset += 1
                continue
            offset += len(page)
            if len(page) < size:
                break
            size = min(_HISTORY_PAGE, size * 2)
        if unreadable:
            _log.warning("%d entries of ComfyUI's history cannot be read: their tenants do not see them", unreadable)

    async def find(self, prompt_id: str) -> Found:
        """The entry of a job, UNREADABLE for one that is too large, or could not be read too often.

        Raises HistoryUnreadable.
        """
        limit = MAX_TRIES
        try:
            reply = await self._upstream.ask(get_call("history", prompt_id), time_limit_s=ENTRY_LIMIT_S)
        except ReplyTooLarge:
            return self._ended(prompt_id, Found(UNREADABLE))
        except (UpstreamTimeout, UpstreamUnavailable) as error:
            problem = str(error) or type(error).__name__
            if isinstance(error, UpstreamUnavailable):
                limit = MAX_UNANSWERED
        else:
            if reply.status == 200 and isinstance(reply.value, dict):
                return self._ended(prompt_id, Found(reply.value.get(prompt_id), len(reply.body)))
            problem = f"status {reply.status}"
            limit = MAX_UNANSWERED if reply.status in _NOT_READY else MAX_TRIES
        if self._tries.keys().isdisjoint(((prompt_id, MAX_TRIES), (prompt_id, MAX_UNANSWERED))):
            _log.warning("the end of job %s cannot be read from ComfyUI's history (%s)", prompt_id, problem)
        tries = self._tries.get((prompt_id, limit), 0) + 1
        if tries >= limit:
            return self._ended(prompt_id, Found(UNREADABLE))
        self._tries[prompt_id, limit] = tries
        raise HistoryUnreadable(problem)

    def _ended(self, prompt_id: str, found: Found) -> Found:
        for limit in (MAX_TRIES, MAX_UNANSWERED):
            self._tries.pop((prompt_id, limit), None)
        return found

    async def _page(self, offset: int, size: int) -> dict[str, Any] | None:
        call = get_call("history", max_items=str(size), offset=str(offset))
        try:
            reply = await self._upstream.ask(
                call, time_limit_s=SYNC_LIMIT_S, max_bytes=_PAGE_BYTES if size > 1 else MAX_REPLY_BYTES
            )
        except ReplyTooLarge:
            return None
        return reply.value if reply.status == 200 and isinstance(reply.value, dict) else None
