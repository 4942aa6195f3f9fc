"""What makes up a gate's queue, wired as proxy/app.py wires it: the registry, the records, the dispatcher, who watches ComfyUI, and who takes submissions."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, cast

import orjson

from policy.call import (
    NO_EXTRAS,
    ClaimedJob,
    ClaimJob,
    ClientReply,
    ReleaseJob,
    RuleGenerator,
    UpstreamCall,
    UpstreamReply,
)
from policy.prepared import Prepared
from policy.principal import Principal, Role, TenantId
from policy.rules import prompt
from proxy.config.jobs import JobsSettings
from proxy.http.errors import Refusal, TurnedAway, UpstreamTimeout, UpstreamUnavailable
from proxy.http.request_record import RequestRecord
from proxy.jobs.admission import JobAdmission
from proxy.jobs.dispatcher import dispatcher_of_one
from proxy.jobs.endings import JobEndings
from proxy.jobs.events import JobEvent
from proxy.jobs.housekeeping import Housekeeping
from proxy.jobs.job import Job
from proxy.jobs.job_documents import JobDocuments
from proxy.jobs.kept_documents import KeptDocuments
from proxy.jobs.queue_watcher import QueueWatcher
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.replica import JobReplica
from proxy.jobs.results import JobResults
from proxy.jobs.rule_runner import RuleRunner
from proxy.jobs.sender import Sender
from proxy.limits.concurrency import ConcurrencyLimits
from proxy.limits.gpu_budget import GpuBudgets
from proxy.persistence.operations import DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.upstream.client import Upstream
from tests.faults.recording import work
from tests.faults.simulation.comfyui import SimulatedComfyUI, Socket
from tests.faults.simulation.database import SimulatedDatabase, Store
from tests.faults.simulation.loop import now_s

NO_ANSWER = (UpstreamUnavailable, UpstreamTimeout, TurnedAway, DatabaseUnavailable)


class Line:
    """A gate's way to ComfyUI, which ends with the gate."""

    url = SimulatedComfyUI.url

    def __init__(self, comfyui: SimulatedComfyUI) -> None:
        self._comfyui = comfyui
        self.is_cut = False

    async def ask(self, call: UpstreamCall, *, time_limit_s: float, max_bytes: int = 0) -> UpstreamReply:
        self._check()
        reply = await self._comfyui.ask(call, time_limit_s=time_limit_s)
        self._check()
        return reply

    async def connect(self, call: UpstreamCall) -> Socket:
        self._check()
        return await self._comfyui.connect(call)

    def _check(self) -> None:
        if self.is_cut:
            raise UpstreamUnavailable("the gate is dead")


class Unlimited:
    """In the place of slots and of budgets."""

    async def claim_job(self, tenant: TenantId, prompt_id: str) -> None:
        return

    def free_job(self, prompt_id: str) -> None:
        return

    def reconcile(self, jobs: Mapping[str, TenantId], among: Collection[str] | None = None) -> list[str]:
        return []

    async def check(self, tenant: TenantId, queued_s: float = 0.0) -> None:
        return

    async def add(self, *args: object) -> None:
        return


class SimulatedGate:
    def __init__(
        self, name: str, comfyui: SimulatedComfyUI, store: Store, weights: Mapping[str, float], window: int
    ) -> None:
        self.name = name
        self.line, self.database = Line(comfyui), SimulatedDatabase(store)
        upstream = cast(Upstream, self.line)
        self.registry = JobRegistry(clock=now_s)
        self.records = JobRecords(self.database, self.registry, name, lambda: window, lambda: weights, clock=now_s)
        self.replica = JobReplica(self.database, self.registry, self.records)
        documents, kept = JobDocuments(self.database, self.registry), KeptDocuments()
        ended = JobEvent()
        ended.subscribe(self._ended)
        self._endings = JobEndings(
            upstream, self.registry, self.records, documents, kept, lambda: True, ended, clock=now_s
        )
        self.watcher = QueueWatcher(upstream, self.registry, self.records, self._endings, on_started=self._started)
        unlimited = Unlimited()
        slots, budgets = cast(ConcurrencyLimits, unlimited), cast(GpuBudgets, unlimited)
        self.admission = JobAdmission(
            self.registry, self.records, slots, budgets, on_queued=self._wake, is_taken=self.watcher.has_job, kept=kept
        )
        sender = Sender(
            "default",
            upstream,
            self.registry,
            self.records,
            lambda: self.watcher.is_settled.is_set() and not self.watcher.closing.is_giving_back,
            self._endings.refused,
        )
        self._dispatcher = dispatcher_of_one(sender, self.registry, self.records, self.replica)
        self.results = JobResults(
            upstream, self.registry, self.records, documents, self.admission, self.watcher.close_soon, self._wake
        )
        self._housekeeping = Housekeeping(
            self.database, self.registry, self.records, self.watcher.request_sync, JobsSettings, lambda: weights
        )
        self._tasks = Tasks()
        self.watcher.on_synced = self._synced
        self._endings.on_waiting = self._wake
        self.replica.on_foreign_change = self._wake

    async def start(self) -> None:
        """Raises DatabaseUnavailable."""
        await self.replica.load()
        self.replica.follow()
        self.watcher.start()
        self._tasks.supervise(self._dispatcher.run, "dispatcher")
        self._tasks.supervise(self._housekeeping.follow, "leases")
        self._tasks.supervise(self._housekeeping.clean, "retention")

    async def kill(self) -> None:
        """Nothing that it does from now on reaches anybody."""
        self.line.is_cut, self.database.is_open = True, False
        parts = (self._tasks, self.watcher, self.results, self.admission, self.replica)
        await asyncio.gather(*(part.stop() for part in parts))

    def _wake(self, job: Job) -> None:
        self._dispatcher.wake()

    def _started(self, job: Job) -> None:
        if job.gate == self.records.gate and job.started_at_s is not None:
            self._tasks.start(self._write_start(job.prompt_id, job.started_at_s), "record a start")

    async def _write_start(self, prompt_id: str, started_at_s: float) -> None:
        try:
            await self.records.start(prompt_id, started_at_s)
        except DatabaseUnavailable:
            return

    def _ended(self, job: Job) -> None:
        self.admission.ended(job)
        self._dispatcher.wake()

    def _synced(self) -> None:
        self.admission.synced()
        self._dispatcher.wake()

    async def submit(self, tenant: str, name: str, seconds: float, *, is_sure: bool) -> str:
        """The id of the job, when it is taken. Raises what stands in NO_ANSWER."""
        principal = Principal(tenant=TenantId(tenant), subject=tenant, role=Role.USER)
        runner = RuleRunner(
            cast(Upstream, self.line),
            self.admission,
            self.results,
            principal,
            RequestRecord("POST", "id", "client"),
            time_limit_s=10.0,
        )
        reply = await runner.run(_submission(tenant, work(name, seconds), is_sure=is_sure))
        if reply.status != 200:
            raise TurnedAway(Refusal(reply.status, "refused", str(reply.body)))
        if self.line.is_cut:
            raise UpstreamUnavailable("the gate is dead")
        prompt_id: str = reply.body["prompt_id"]
        return prompt_id


def _submission(tenant: str, graph: Any, *, is_sure: bool) -> RuleGenerator:
    """As policy.rules.prompt.submit, of a workflow that was judged."""
    client_id = f"{tenant}.client"
    body = {"prompt": graph, "extra_data": {"client_id": client_id}, "client_id": client_id}
    wish = ClaimJob(None, "workflow", 0.0, ("RecordedWork",), "client")
    prepared = Prepared(orjson.dumps(body), b"[]", wish, ["1"], {}, (), (), is_sure=is_sure)
    claimed: ClaimedJob = yield wish
    reply: UpstreamReply = yield from prompt._hand_in(prepared, claimed, NO_EXTRAS)
    if reply.status != 200:
        yield ReleaseJob(claimed.prompt_id)
        return ClientReply(reply.status, {})
    return ClientReply(body={"prompt_id": claimed.prompt_id})
