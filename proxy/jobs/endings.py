"""How jobs end: once each, on disk first, and by the class of what went wrong. A job that is to be tried again waits where it stood.

Validation is never tried again. When the GPU's memory did not suffice, ComfyUI is told to free it, and the job is tried once more. When ComfyUI went
away while it ran, it is tried once more where the configuration says so; a job during which it went away twice has failed for good.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from policy.call import UpstreamReply
from policy.documents import Document, Kind, keep
from policy.fairness import correction_of
from policy.namespace import Namespace
from policy.rules.joblist import keep_row
from policy.rules.jobs import json_call, keep_entry
from policy.rules.overtime import mark_entry
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.events import JobEvent
from proxy.jobs.history import read_entry
from proxy.jobs.job import COMFYUI_GONE, COMFYUI_RESTARTED, OUT_OF_MEMORY, PERHAPS_GONE, Job, Outcome, take_told
from proxy.jobs.job_documents import JobDocuments
from proxy.jobs.job_rows import Ended, StoredState
from proxy.jobs.kept_documents import KeptDocuments
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import NO_FILES, JobRegistry
from proxy.jobs.temp_files import Made
from proxy.limits.heavy_work import WORK_BYTES
from proxy.upstream.client import Upstream

VALIDATION: Final = "validation"
MAX_LOST_RUNS: Final = 2
_FREE_LIMIT_S: Final = 30.0

_STORED: Final = {
    Outcome.COMPLETED: StoredState.SUCCEEDED,
    Outcome.FAILED: StoredState.FAILED,
    Outcome.CANCELLED: StoredState.CANCELED,
    Outcome.LOST: StoredState.CANCELED,
}

_log = logging.getLogger("comfygate")


class JobEndings:
    """on_ended: called once for each job that has ended. on_waiting: a job waits again. on_failed: told the history entry (in the client's names) of a
    job whose end ComfyUI does not tell. Every method raises DatabaseUnavailable; the job has not ended then."""

    def __init__(
        self,
        upstream: Upstream,
        registry: JobRegistry,
        records: JobRecords,
        documents: JobDocuments,
        kept: KeptDocuments,
        retries_interrupted: Callable[[], bool],
        on_ended: JobEvent,
        on_waiting: Callable[[Job], None] = lambda job: None,
        on_failed: Callable[[Job, Mapping[str, Any]], None] = lambda job, entry: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._upstream = upstream
        self._registry = registry
        self._records = records
        self._documents = documents
        self._kept = kept
        self._retries_interrupted = retries_interrupted
        self._on_ended = on_ended
        self.on_waiting = on_waiting
        self.on_failed = on_failed
        self._clock = clock

    async def told(self, job: Job, entry: Mapping[str, Any], size: int = WORK_BYTES) -> None:
        """ComfyUI's history says how it ended. size: of the entry, in bytes, as far as it is known."""
        told = read_entry(entry)
        assert told is not None, "an entry"
        if told.is_out_of_memory and not job.was_out_of_memory:
            number = job.number
            await self._free_memory(job)
            await self._try_again(job, OUT_OF_MEMORY, number)
            return
        names, jobs = Namespace(job.tenant), self._registry.of(job.tenant)
        value = mark_entry({job.prompt_id: entry}, job.prompt_id, jobs)
        if size < WORK_BYTES:
            shown, row = _documents(value, job.prompt_id, names)
        else:
            shown, row = await asyncio.to_thread(_documents, value, job.prompt_id, names)
        await self._end(job, shown, row, take_told(job, told))

    async def taken_out(self, job: Job, *, was_watched: bool) -> None:
        """ComfyUI has it no more, and no entry of it: somebody took it out of the queue."""
        if was_watched and job.started_at_s is not None:
            # SECURITY: who deletes a job from the history, or makes its entry unreadable, before the gate has read it, has used the GPU
            # all the same (tests/security/test_unreadable.py).
            job.gpu_s = max(0.0, self._clock() - job.started_at_s)
        job.outcome = Outcome.LOST
        await self._end(job, None, None)
        self._registry.release(job.prompt_id)  # as in ComfyUI, it leaves no trace

    async def lost(self, job: Job, *, has_run: bool, is_sure: bool = True) -> None:
        """ComfyUI was restarted and does not know it any more. has_run: it ran, or where that is not sure, it may have.

        One that may have run goes alone the next time, so that it is sure then; until it is, that does not count against it.
        """
        if not has_run:
            await self._try_again(job, COMFYUI_RESTARTED)
            return
        if self._retries_interrupted() and job.lost_runs + is_sure < MAX_LOST_RUNS:
            await self._try_again(job, COMFYUI_GONE if is_sure else PERHAPS_GONE)
            return
        often = "twice " if job.lost_runs else ""
        message = f"ComfyUI went away {often}while this job ran. It is not tried again."
        await self._fail(job, COMFYUI_GONE, "ComfyUIWentAway", message)

    async def not_taken(self, job: Job) -> None:
        """ComfyUI was sent it, and never had it."""
        await self._try_again(job, "comfyui-unreachable")

    async def refused(self, job: Job, reply: UpstreamReply) -> None:
        """ComfyUI does not take it when it has come to its turn: what it took at its submission has changed."""
        error = reply.value.get("error") if isinstance(reply.value, dict) else None
        said = error.get("message") if isinstance(error, dict) else None
        message = f"ComfyUI does not take this job any more: {said if isinstance(said, str) else f'it answered {reply.status}'}"
        await self._fail(job, VALIDATION, "ValidationFailed", message)

    async def _try_again(self, job: Job, reason: str, number: float | None = None) -> None:
        """number: of the run that has ended, where something was waited for since."""
        if await self._records.give_back(job, reason, number):
            _log.warning("job %s of tenant %s waits again: %s", job.prompt_id, job.tenant, reason)
            self.on_waiting(job)

    async def _fail(self, job: Job, error: str, kind: str, message: str) -> None:
        """It failed without ComfyUI saying so: its history entry is of the gate's making, in ComfyUI's shape."""
        read = await self._documents.read(job.tenant, Kind.ITEM, (job.prompt_id,))
        item = read.documents.get(job.prompt_id)
        prompt = [0, job.prompt_id, {}, {}, []] if item is None else orjson.loads(item.numbered(0))
        entry = failed_entry(prompt, job, kind, message, self._clock())
        job.error = error
        shown, row = await asyncio.to_thread(_keep, entry, job.prompt_id)
        job.outcome, job.failing_class = Outcome.FAILED, ""
        await self._end(job, shown, row)
        self.on_failed(job, entry)

    async def _end(
        self, job: Job, shown: Document | None, row: Document | None, files: Mapping[str, Made] = NO_FILES
    ) -> None:
        now_s = self._clock()
        ended = Ended(
            state=_STORED[job.outcome or Outcome.LOST],
            ended_at_s=job.ended_at_s or now_s,
            started_at_s=job.started_at_s,
            gpu_s=job.gpu_s,
            error=job.error,
            failing_class=job.failing_class,
            correction=_correction(job),
            entry=None if shown is None else shown.to_bytes(),
            row=None if row is None else row.to_bytes(),
            body=await self._documents.without_credentials(job) if job.outcome is Outcome.FAILED else None,
        )
        if await self._records.finish(job, ended) is None:
            return
        for document in (shown, row):
            if document is not None:
                self._kept.put(job.tenant, job.prompt_id, document)
        if self._registry.end(job, files):
            self._on_ended(job)

    async def _free_memory(self, job: Job) -> None:
        call = json_call("POST", ("free",), {"unload_models": True, "free_memory": True}, (job.prompt_id,))
        try:
            await self._upstream.ask(call, time_limit_s=_FREE_LIMIT_S)
        except (UpstreamTimeout, UpstreamUnavailable) as error:
            _log.warning("ComfyUI does not free its memory for job %s (%s)", job.prompt_id, error)


def _correction(job: Job) -> float:
    """What its tenant was charged too much or too little for it."""
    if job.started_at_s is None or not job.cost_s or (job.outcome is Outcome.LOST and not job.gpu_s):
        return -job.span
    return correction_of(job.cost_s, job.span, job.gpu_s) if job.gpu_s > 0 else 0.0


def _documents(value: Any, prompt_id: str, names: Namespace) -> tuple[Document | None, Document | None]:
    shown = keep_entry(value, prompt_id, names)
    return shown, None if shown is None else keep_row(shown, prompt_id)


def _keep(entry: Mapping[str, Any], prompt_id: str) -> tuple[Document | None, Document | None]:
    shown = keep(Kind.ENTRY, entry)
    return shown, keep_row(shown, prompt_id)


def failed_entry(prompt: Any, job: Job, kind: str, message: str, at_s: float) -> dict[str, Any]:
    """A history entry as ComfyUI writes it of a job that failed (execution.py, handle_execution_error)."""
    about = {"prompt_id": job.prompt_id, "timestamp": int(at_s * 1000)}
    error = {
        **about,
        "node_id": None,
        "node_type": None,
        "executed": [],
        "exception_message": message,
        "exception_type": kind,
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
    }
    begun_ms = int((job.started_at_s or at_s) * 1000)
    begin = ["execution_start", about | {"timestamp": begun_ms}]
    return {
        "prompt": prompt,
        "outputs": {},
        "status": {
            "status_str": "error",
            "completed": False,
            "messages": [begin, ["execution_error", error]],
        },
    }
