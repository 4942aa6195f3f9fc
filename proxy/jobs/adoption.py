"""Jobs that ComfyUI has and the gate's database had not: of an earlier version of the gate, of a database that was lost, or not answered in time."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rules.joblist import keep_row
from policy.rules.jobs import json_call, keep_entry
from policy.rules.prompt import LAST_PLACE
from policy.rules.results import graph_to_client
from policy.salt import SALT
from proxy.config.comfyui import FIRST
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.history import read_entry
from proxy.jobs.job import Job
from proxy.jobs.job_rows import JobRow, StoredState, Submitted
from proxy.jobs.queue_reader import Queue, number_of
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry, claim_listed_files, owner_of_client
from proxy.upstream.client import Upstream

TRIAL_LIMIT_S: Final = 60.0
"""A job that is only tried (proxy/jobs/trial.py) stands in the queue for a moment; one that stays was left there by a gate that died."""
_DELETE_LIMIT_S: Final = 10.0

_log = logging.getLogger("comfygate")


class Adoption:
    """Trusts the client id that each of the gate's jobs carries upstream, and nobody else can set. Raises DatabaseUnavailable."""

    def __init__(self, upstream: Upstream, registry: JobRegistry, records: JobRecords, comfyui: str = FIRST) -> None:
        self._comfyui = comfyui
        self._upstream = upstream
        self._registry = registry
        self._records = records
        self._trials: dict[str, float] = {}
        """Since when they are in the queue."""

    async def take(self, queue: Queue) -> None:
        """What the queue has and the registry has not."""
        for item in queue.unknown:
            prompt_id = str(item[1])
            if number_of(item) >= LAST_PLACE and prompt_id in queue.pending:
                self._trials.setdefault(prompt_id, time.monotonic())
                continue
            owner = owner_of_client(item[3].get("client_id"))
            job = None if owner is None else await self._adopt_given(item, owner)
            if job is None:
                self._registry.mark_unowned(prompt_id)
        self._trials = {each: since_s for each, since_s in self._trials.items() if each in queue.pending}
        for prompt_id in [each for each, since_s in self._trials.items() if time.monotonic() - since_s > TRIAL_LIMIT_S]:
            await self._take_out(prompt_id)

    async def _take_out(self, prompt_id: str) -> None:
        _log.warning("job %s was only to be tried, and was left in ComfyUI's queue: it is taken out", prompt_id)
        try:
            await self._upstream.ask(
                json_call("POST", ("queue",), {"delete": [prompt_id]}), time_limit_s=_DELETE_LIMIT_S
            )
        except (UpstreamUnavailable, UpstreamTimeout):
            return  # the next time

    async def _adopt_given(self, item: list[Any], owner: tuple[TenantId, str]) -> Job | None:
        """ComfyUI has it for the first time, as far as is known: where it goes away, that counts (JobEndings.lost)."""
        row = self._row(item, owner)
        attempts = orjson.dumps([{"at": row.created_at_s, "comfyui": self._comfyui}]).decode()
        return await self._records.adopt(row._replace(attempts=attempts), _submitted(item, owner[0]))

    async def take_entry(self, prompt_id: str, entry: Any) -> None:
        """An entry of the history whose job the registry has not; nothing for what is none."""
        prompt = entry.get("prompt") if isinstance(entry, dict) else None
        if not isinstance(prompt, list) or len(prompt) < 4 or not isinstance(prompt[3], dict):
            return
        owner = owner_of_client(prompt[3].get("client_id"))
        job = None if owner is None else await self._adopt_ended(prompt_id, entry, prompt, owner)
        if job is None:
            self._registry.mark_unowned(prompt_id)
        else:
            claim_listed_files(self._registry, job, entry)

    async def _adopt_ended(
        self, prompt_id: str, entry: Mapping[str, Any], prompt: list[Any], owner: tuple[TenantId, str]
    ) -> Job | None:
        told = read_entry(entry)
        shown = keep_entry({prompt_id: entry}, prompt_id, Namespace(owner[0]))
        if told is None or shown is None:
            return None
        row = keep_row(shown, prompt_id)
        state = StoredState.FAILED if told.is_error else StoredState.SUCCEEDED
        state = StoredState.CANCELED if "execution_interrupted" in told.times else state
        ended_at_s = told.ended_at_s or time.time()
        started_at_s = told.started_at_s
        job = self._row(prompt, owner)._replace(
            prompt_id=prompt_id,
            state=state,
            created_at_s=_created_s(prompt) or started_at_s or ended_at_s,
            started_at_s=started_at_s,
            ended_at_s=ended_at_s,
            gpu_s=0.0 if started_at_s is None else max(0.0, ended_at_s - started_at_s),
            failing_class=told.failing_class,
            size=shown.held_bytes + row.held_bytes,
        )
        return await self._records.adopt(job, None, shown, row)

    def _row(self, item: list[Any], owner: tuple[TenantId, str]) -> JobRow:
        tenant, client_id = owner
        return JobRow(
            prompt_id=str(item[1]),
            tenant=tenant,
            client_id=client_id,
            state=StoredState.DISPATCHED,
            number=number_of(item),
            created_at_s=_created_s(item) or time.time(),
            comfyui=self._comfyui,
        )


def is_of_run(entry: Any, job: Job) -> bool:
    """Whether a history entry is of the job as it was given last: it may have an older one, of an earlier try."""
    prompt = entry.get("prompt") if isinstance(entry, dict) else None
    return isinstance(prompt, list) and bool(prompt) and number_of(prompt) == job.number


def _created_s(item: list[Any]) -> float | None:
    created_ms = item[3].get("create_time")
    return created_ms / 1000 if isinstance(created_ms, int) else None


def _submitted(item: list[Any], tenant: TenantId) -> Submitted:
    """As it was sent, read back from ComfyUI's queue."""
    graph, extra = item[2], item[3]
    shown = graph_to_client(graph, Namespace(tenant))
    originals = [
        [node_id, name, value]
        for node_id, node in shown.items()
        for name, value in node["inputs"].items()
        if name != SALT and graph[node_id]["inputs"].get(name) != value
    ]
    outputs = item[4] if len(item) > 4 and isinstance(item[4], list) else []
    body = {"prompt": graph, "extra_data": extra, "client_id": extra.get("client_id")}
    return Submitted(orjson.dumps(body), orjson.dumps(originals), orjson.dumps(outputs))
