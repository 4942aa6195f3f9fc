"""Whose a file of ComfyUI's temp folder is by now, told by the file's own time: what the gate has heard of jobs may be behind what they write."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Final

from multidict import CIMultiDict

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.principal import TenantId
from policy.rules.files import view_of
from proxy.http import hdrs
from proxy.http.errors import UpstreamUnavailable, UpstreamUnreachable
from proxy.jobs.adoption import is_of_run
from proxy.jobs.history import read_entry
from proxy.jobs.job import Job, JobState
from proxy.jobs.queue_reader import job_history
from proxy.jobs.registry import JobRegistry
from proxy.jobs.temp_files import CLOCK_SLACK_S
from proxy.upstream.client import Upstream, UpstreamStream
from proxy.v2.stamps import stamp_of_etag, time_of

_LIMIT_S: Final = 30.0
_NOT_SEEN: Final = "ComfyUI was away just now, and may have been restarted. Try again in a moment."

_log = logging.getLogger("comfygate")


class NotItsOwn(Exception):
    """A file that was to be shown is another one of its name."""


class TempFileOwners:
    """Every method raises UpstreamUnavailable and UpstreamTimeout."""

    def __init__(self, upstream: Upstream, registry: JobRegistry) -> None:
        self._upstream = upstream
        self._registry = registry

    async def check(self, tenant: TenantId, path: UpstreamPath, answer: UpstreamStream) -> None:
        """Of an answer that ComfyUI has begun to give, so that it has opened the file. Raises NotItsOwn: the name is not the tenant's any more then, or it is
        that of another file elsewhere."""
        if answer.status < 400:
            stamp = stamp_of_etag(answer.headers)
            if not await self.is_own(tenant, path, stamp, answer.comfyui):
                raise NotItsOwn

    async def is_own(self, tenant: TenantId, path: UpstreamPath, stamp: str = "", comfyui: str | None = None) -> bool:
        """Whether the file that has the stamp was written by the run that the tenant has the name from; it loses a name of which that is not so.

        stamp: of the bytes in question; "" for the file as it is now, which is no older. comfyui: which of several has them, "" for the first; None for
        who has the file of that name now.
        """
        files = self._registry.temp_files
        asked = set() if comfyui is None else {comfyui}
        if not stamp:
            stamp, now_at = await self._ask(path)
            asked.add(now_at)
        job = files.origin(tenant, path)
        if not isinstance(job, Job):
            return False
        # SECURITY: the name may have led to a neighbour's file elsewhere, and lead to the tenant's own again
        # (tests/several/test_files.py::test_a_preview_is_shown_from_where_its_own_is).
        if asked - {job.comfyui if job.comfyui in self._registry.comfyuis[1:] else ""}:
            return False
        end_s = await self._end_of(job)
        if stamp and time_of(stamp) <= end_s + CLOCK_SLACK_S:
            return True
        _log.warning("temp file %s is none of job %s any more: %s", path, job.prompt_id, _reason(stamp, end_s))
        if files.origin(tenant, path) is job:
            files.lose(job, path)
        return False

    async def are_own(self, tenant: TenantId, paths: Sequence[UpstreamPath]) -> bool:
        """Whether all of them are, as they are now."""
        return all([await self.is_own(tenant, path) for path in paths])

    async def _ask(self, path: UpstreamPath) -> tuple[str, str]:
        """The stamp of the file as it is, "" where there is none; and who has said so."""
        fields = CIMultiDict({hdrs.ACCEPT_ENCODING: "identity"})
        async with await self._upstream.open(
            view_of("HEAD", Folder.TEMP, path), fields, time_limit_s=_LIMIT_S
        ) as answer:
            if answer.status >= 500:
                raise UpstreamUnavailable
            return stamp_of_etag(answer.headers) if answer.status < 400 else "", answer.comfyui

    async def _end_of(self, job: Job) -> float:
        """When it wrote its last, by ComfyUI's clock; infinity while it runs. ComfyUI writes a job's history before it begins another one."""
        if job.state is JobState.ENDED:
            return -math.inf if job.ended_at_s is None else job.ended_at_s
        reply = await self._upstream.ask(job_history(job.prompt_id), time_limit_s=_LIMIT_S)
        if reply.status != 200 or not isinstance(reply.value, dict):
            raise UpstreamUnavailable
        entry = reply.value.get(job.prompt_id)
        told = read_entry(entry)
        # SECURITY: between two tries of a job others run (tests/proxy/test_temp_file_owners.py).
        is_between = job.was_tried and job.state is not JobState.RUNNING
        if told is not None and (is_between or is_of_run(entry, job)):
            return -math.inf if told.ended_at_s is None else told.ended_at_s
        if is_between:
            return -math.inf
        # SECURITY: a ComfyUI that was restarted has forgotten the run, and others write names anew before this gate has seen that
        # (tests/proxy/test_temp_file_owners.py).
        if self._is_unseen(job):
            raise UpstreamUnreachable(_NOT_SEEN, status=503)
        return math.inf

    def may_be_lost(self, tenant: TenantId, path: UpstreamPath) -> bool:
        """Whether the run that the tenant has the name from may be lost: then a file of that name is not given without `is_own`."""
        job = self._registry.temp_files.origin(tenant, path)
        return isinstance(job, Job) and job.state is not JobState.ENDED and self._is_unseen(job)

    def _is_unseen(self, job: Job) -> bool:
        """Whether its ComfyUI had it, and is not known to have it by the connection that there is."""
        connections = self._registry.connections
        is_seen = connections.is_there(job.comfyui) and job.seen_in == connections.to(job.comfyui)
        return job.seen_in >= 0 and not is_seen


def _reason(stamp: str, end_s: float) -> str:
    if not stamp:
        return "it is gone, or ComfyUI's answer has no ETag that says of when it is"
    if not math.isfinite(end_s):
        return "when the job ended is not known"
    return f"it was written {time_of(stamp) - end_s:.3f} s after the end of the job"
