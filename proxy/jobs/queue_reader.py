"""What stands in ComfyUI's queue, by either of its two routes: /api/jobs is a short list, /queue carries every graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from policy.call import Opaque, UpstreamCall
from proxy.http.errors import UpstreamUnavailable
from proxy.jobs.registry import Job, JobRegistry, JobState
from proxy.upstream.client import Upstream

SYNC_LIMIT_S: Final = 30.0


def get_call(*segments: str, **query: str) -> UpstreamCall:
    return UpstreamCall(
        "GET", tuple(Opaque(part) for part in segments), tuple((key, Opaque(value)) for key, value in query.items())
    )


class QueueReader:
    """The short list is enough while it names known jobs only."""

    def __init__(self, upstream: Upstream, registry: JobRegistry, on_item: Callable[[Job, list[Any]], None]) -> None:
        """on_item: told what the long list says of a job."""
        self._upstream = upstream
        self._registry = registry
        self._on_item = on_item
        self._has_jobs_route = True

    def forget_version(self) -> None:
        """ComfyUI may be another version than before."""
        self._has_jobs_route = True

    async def read(self) -> tuple[set[str], set[str]]:
        """Ids that run and that wait. Jobs that were not known are taken up. Raises UpstreamUnavailable, UpstreamTimeout, ReplyTooLarge."""
        if self._has_jobs_route:
            reply = await self._upstream.ask(
                get_call("api", "jobs", status="pending,in_progress"), time_limit_s=SYNC_LIMIT_S
            )
            rows = reply.value.get("jobs") if reply.status == 200 and isinstance(reply.value, dict) else None
            if isinstance(rows, list):
                states = {str(row.get("id")): row.get("status") for row in rows if isinstance(row, dict)}
                if all(self._registry.knows(prompt_id) for prompt_id in states):
                    running = {prompt_id for prompt_id, state in states.items() if state == "in_progress"}
                    return running, set(states) - running
            else:
                # No such route before 0.33. A history entry can break it for everybody too, but that one goes again.
                self._has_jobs_route = reply.status not in (404, 405)
        reply = await self._upstream.ask(get_call("queue"), time_limit_s=SYNC_LIMIT_S)
        queue = reply.value if reply.status == 200 else None
        if not isinstance(queue, dict):
            # Not knowing is not an empty queue: else every job would be taken for lost.
            raise UpstreamUnavailable("ComfyUI does not tell its queue.")
        running = self._read_items(queue.get("queue_running"), JobState.RUNNING)
        return running, self._read_items(queue.get("queue_pending"), JobState.PENDING)

    def _read_items(self, items: Any, state: JobState) -> set[str]:
        found = set()
        for item in sorted(items, key=number_of) if isinstance(items, list) else ():
            if not isinstance(item, list) or len(item) < 4 or not isinstance(item[3], dict):
                continue
            prompt_id = str(item[1])
            found.add(prompt_id)
            job = self._registry.adopt(prompt_id, item[3].get("client_id"), JobState.PENDING, number_of(item))
            if job is None:
                self._registry.mark_unowned(prompt_id)
            else:
                self._registry.submitted(prompt_id, number_of(item))
                self._on_item(job, item)
        return found


def number_of(item: Any) -> float:
    try:
        return float(item[0])
    except (TypeError, ValueError, LookupError, OverflowError):
        return 0.0
