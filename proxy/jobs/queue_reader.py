"""What stands in ComfyUI's queue, by either of its two routes: /api/jobs is a short list, /queue carries every graph."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from policy.call import Opaque, UpstreamCall
from policy.rules.prompt import LAST_PLACE
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.registry import JobRegistry
from proxy.upstream.client import Upstream

SYNC_LIMIT_S: Final = 30.0
SILENT_AFTER_S: Final = 15.0
"""ComfyUI answers nobody for some seconds while it loads a model on a slow machine; one of several that says nothing for longer is given nothing more."""


def get_call(*segments: str, **query: str) -> UpstreamCall:
    return UpstreamCall(
        "GET", tuple(Opaque(part) for part in segments), tuple((key, Opaque(value)) for key, value in query.items())
    )


def job_history(prompt_id: str) -> UpstreamCall:
    """What the ComfyUI that has a job says of its end."""
    return UpstreamCall("GET", (Opaque("history"), Opaque(prompt_id)), jobs=(prompt_id,))


class Queue(NamedTuple):
    """Ids that run and that wait. unknown: items of jobs that the registry has not, as `GET /queue` lists them; whether each runs is told by its id.
    tried: of those that wait, the ones that are only to be judged, and are taken out again (proxy/jobs/trial.py).
    """

    running: set[str]
    pending: set[str]
    unknown: list[list[Any]]
    tried: frozenset[str] = frozenset()

    @property
    def given(self) -> set[str]:
        """All but what is tried. What is tried is known already where another gate, or another request, has put it on disk meanwhile: taken for given
        it would never be sent."""
        return self.running | (self.pending - self.tried)


class QueueReader:
    """The short list is enough while it names known jobs only."""

    def __init__(self, upstream: Upstream, registry: JobRegistry) -> None:
        self._upstream = upstream
        self._registry = registry
        self._has_jobs_route = True
        self._asked_at_s: float | None = None
        """Since when there is no answer."""

    def connected(self) -> None:
        """ComfyUI may be another version than before."""
        self._has_jobs_route = True
        self._asked_at_s = None

    @property
    def is_silent(self) -> bool:
        """ComfyUI has not answered for so long that it probably hangs, though its connections stay open."""
        return self._asked_at_s is not None and time.monotonic() - self._asked_at_s > SILENT_AFTER_S

    async def read(self) -> Queue:
        """Raises UpstreamUnavailable, UpstreamTimeout, ReplyTooLarge."""
        asked_at_s = time.monotonic() if self._asked_at_s is None else self._asked_at_s
        self._asked_at_s = asked_at_s
        try:
            queue = await self._read()
        except UpstreamTimeout:
            raise
        except BaseException:
            self._asked_at_s = None
            raise
        self._asked_at_s = None
        return queue

    async def _read(self) -> Queue:
        if self._has_jobs_route:
            reply = await self._upstream.ask(
                get_call("api", "jobs", status="pending,in_progress"), time_limit_s=SYNC_LIMIT_S
            )
            rows = reply.value.get("jobs") if reply.status == 200 and isinstance(reply.value, dict) else None
            if isinstance(rows, list):
                rows = [row for row in rows if isinstance(row, dict)]
                states = {str(row.get("id")): row.get("status") for row in rows}
                if all(self._registry.knows(prompt_id) for prompt_id in states):
                    running = {prompt_id for prompt_id, state in states.items() if state == "in_progress"}
                    tried = _tried([row.get("priority"), row.get("id")] for row in rows)
                    return Queue(running, set(states) - running, [], tried)
            else:
                # No such route before 0.33. A history entry can break it for everybody too, but that one goes again.
                self._has_jobs_route = reply.status not in (404, 405)
        reply = await self._upstream.ask(get_call("queue"), time_limit_s=SYNC_LIMIT_S)
        queue = reply.value if reply.status == 200 else None
        if not isinstance(queue, dict):
            # Not knowing is not an empty queue: else every job would be taken for lost.
            raise UpstreamUnavailable("ComfyUI does not tell its queue.")
        items = [_items(queue.get(key)) for key in ("queue_running", "queue_pending")]
        unknown = [item for listed in items for item in listed if not self._registry.knows(str(item[1]))]
        running, pending = ({str(item[1]) for item in listed} for listed in items)
        return Queue(running, pending, unknown, _tried(items[1]))


def _tried(items: Iterable[list[Any]]) -> frozenset[str]:
    """items: number and id, and perhaps more."""
    return frozenset(str(item[1]) for item in items if number_of(item) >= LAST_PLACE)


def _items(listed: Any) -> list[list[Any]]:
    items = listed if isinstance(listed, list) else []
    whole = [item for item in items if isinstance(item, list) and len(item) >= 4 and isinstance(item[3], dict)]
    return sorted(whole, key=number_of)


def number_of(item: Any) -> float:
    try:
        return float(item[0])
    except (TypeError, ValueError, LookupError, OverflowError):
        return 0.0
