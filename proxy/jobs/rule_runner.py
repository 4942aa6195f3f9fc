"""Carries out what a multi-call rule asks for, step by step, and gives it the answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, TypeVar

from policy.call import (
    AmendJob,
    AnswerNode,
    CancelWaiting,
    CheckRoom,
    CheckTempFiles,
    ClaimedJob,
    ClaimJob,
    ClientReply,
    Effect,
    ForgetJobs,
    NameJob,
    ReadDocuments,
    RecordJob,
    ReleaseJob,
    Tried,
    TryJob,
    UpstreamCall,
    UpstreamPath,
    UpstreamReply,
    Work,
)
from policy.functions.conversion import Derived, NotDerived
from policy.principal import Principal, TenantId
from policy.v2.effects import (
    DeriveOutputs,
    FetchFile,
    FinishUpload,
    FormFile,
    FormText,
    ReadOutputs,
    ReadPart,
    Received,
    ReceiveFile,
    ReceiveUpload,
    ReuseBytes,
    SkipFile,
    V2Effect,
)
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, UpstreamUnreachable
from proxy.http.request_record import Decision, RequestRecord
from proxy.jobs.admission import JobAdmission
from proxy.jobs.noted import Note
from proxy.jobs.results import JobResults
from proxy.jobs.trial import try_job
from proxy.limits.heavy_work import HeavyWork
from proxy.persistence.operations import DatabaseUnavailable
from proxy.upstream.client import Upstream

Answer = TypeVar("Answer")

_log = logging.getLogger("comfygate")
_OF_REQUEST: Final = (
    ReceiveUpload,
    ReadPart,
    SkipFile,
    ReceiveFile,
    FetchFile,
    FinishUpload,
    DeriveOutputs,
    ReadOutputs,
    ReuseBytes,
)
"""What concerns the request's own body, answer or key."""
_OF_NO_CONSEQUENCE: Final = frozenset({ClaimJob, NameJob, ReleaseJob, RecordJob})
"""Before these nobody is asked whether the caller may go on: nothing has happened to ComfyUI, or it is taken back."""
_WITH_THE_NOTE: Final = frozenset({RecordJob, ReleaseJob})
"""What is to be on disk beforehand is written with these, or not at all."""


class V2(Protocol):
    """Carries out what rules of Comfy API v2 ask for (proxy/v2/door.py)."""

    async def perform(self, principal: Principal, step: V2Effect) -> Any: ...


class Upload(Protocol):
    """The body of the client's request (proxy/steps/held_upload.py)."""

    async def receive(self, call: UpstreamCall) -> Received | UpstreamReply: ...

    async def finish(self) -> UpstreamReply: ...

    async def close(self) -> None:
        """Breaks off what was not finished."""


class Files(Protocol):
    """The files of a call (proxy/steps/held_files.py)."""

    async def read_part(self, room: int) -> FormText | FormFile | None: ...

    async def skip_file(self) -> bool: ...

    async def receive(self, step: ReceiveFile | FetchFile) -> Received | UpstreamReply: ...

    async def finish(self) -> UpstreamReply: ...

    async def close(self) -> None:
        """Breaks off what was not finished."""


class TempFileOwners(Protocol):
    """proxy/steps/temp_file_owners.py"""

    async def are_own(self, tenant: TenantId, paths: Sequence[UpstreamPath]) -> bool: ...


class Outputs(Protocol):
    """Results of jobs as functions give them (proxy/steps/given_outputs.py)."""

    async def derive(self, step: DeriveOutputs) -> list[Derived | NotDerived]: ...

    async def read(self, step: ReadOutputs) -> list[bytes | None]: ...


class Beforehand(Protocol):
    """What is on disk before ComfyUI is sent anything: with the job, where that comes first (proxy/jobs/idempotency_db.py)."""

    async def write(self, prompt_id: str) -> None:
        """prompt_id: "" for what is no job."""

    def within(self, prompt_id: str) -> Note:
        """Done in the job's own transaction."""

    def failed(self) -> None:
        """Of that transaction nothing is there."""


class RuleRunner:
    """One run of a multi-call rule. A claimed job that did not come to be is released, whatever went wrong."""

    def __init__(
        self,
        upstream: Upstream,
        admission: JobAdmission,
        results: JobResults,
        principal: Principal,
        record: RequestRecord,
        time_limit_s: float,
        check: Callable[[Principal], None] = lambda principal: None,
        heavy: HeavyWork | None = None,
        v2: V2 | None = None,
        temp_files: TempFileOwners | None = None,
    ) -> None:
        """check: raises when the caller may not go on; asked before ComfyUI is asked first. heavy: where large work takes its turn."""
        self._heavy = heavy or HeavyWork()
        self._check: Callable[[Principal], None] | None = check
        self._v2 = v2
        self._temp_files = temp_files
        self._upstream = upstream
        self._admission = admission
        self._results = results
        self._principal = principal
        self._record = record
        self._time_limit_s = time_limit_s
        self._claimed: ClaimedJob | None = None
        self._is_named = False
        self.beforehand: Beforehand | None = None
        self._unwritten: Beforehand | None = None
        self.upload: Upload | None = None
        self.files: Files | None = None
        self.outputs: Outputs | None = None

    async def run(self, steps: Generator[Effect, Any, Answer]) -> Answer:
        """Runs the rule to its reply. What goes wrong on the way is raised inside the rule, and from there to the caller."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._perform(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            result: Answer = end.value
            if self._claimed is not None:
                self._admission.accepted(self._claimed.prompt_id)
            for update in result.updates if isinstance(result, ClientReply) else ():
                self._admission.apply_update(update)
            return result
        except BaseException as error:
            is_doubtful = self._record.is_submitted and isinstance(
                error, UpstreamTimeout | UpstreamUnavailable | asyncio.CancelledError
            )
            if is_doubtful:
                self._record.decision = Decision.UNKNOWN
            # Where ComfyUI took the job all the same, the queue watcher finds it in the queue, with its owner.
            if self._claimed is not None:
                is_doubtful = is_doubtful and not isinstance(error, UpstreamUnreachable)
                await self._let_go(self._claimed.prompt_id, is_doubtful=is_doubtful)
            raise
        finally:
            steps.close()
            for body in (self.upload, self.files):
                if body is not None:
                    await body.close()

    async def run_exclusively(
        self, turn: AbstractAsyncContextManager[None], steps: Generator[Effect, Any, Answer]
    ) -> Answer:
        """As `run`, when it is its turn; raises what that raises."""
        async with turn:
            return await self.run(steps)

    async def _perform(self, step: Effect) -> Any:
        if self._check is not None and type(step) not in _OF_NO_CONSEQUENCE:
            check, self._check = self._check, None
            check(self._principal)
        if isinstance(step, Work):
            return await self._heavy.run(self._principal.tenant, step.function, step.size)
        if self._unwritten is not None and type(step) not in _WITH_THE_NOTE:
            await self._write_down()
        if isinstance(step, V2Effect):
            return await self._perform_v2(step)
        match step:
            case RecordJob():
                return await self._record_job(step)
            case UpstreamCall():
                self._record.is_submitted |= self._claimed is not None or self._is_named
                return await self._ask(step)
            case ClaimJob():
                self._record.notes |= {"workflow": step.workflow, "classes": step.classes}
                self._claimed = await self._admission.claim(self._principal, step)
                self._name(self._claimed.prompt_id)
                return self._claimed
            case CheckRoom():
                return await self._admission.check_room(self._principal)
            case AmendJob() | TryJob() | ReadDocuments() | CancelWaiting() | ForgetJobs():
                return await self._perform_on_disk(step)
            case NameJob():
                self._name(step.prompt_id)
                self._is_named = True
                return None
            case ReleaseJob():
                return await self._release_job(step.prompt_id)
            case AnswerNode():
                self._admission.answered(self._principal.tenant, step)
                return None
            case CheckTempFiles():
                assert self._temp_files is not None, "of a gate"
                return await self._temp_files.are_own(self._principal.tenant, step.paths)
            case _:
                return await self._ask_at_once(step)

    async def _ask_at_once(self, calls: Sequence[UpstreamCall]) -> list[UpstreamReply]:
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._ask(call)) for call in calls]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the first failure cancelled the others
        return [task.result() for task in asked]

    async def _perform_v2(self, step: V2Effect) -> Any:
        if not isinstance(step, _OF_REQUEST):
            assert self._v2 is not None, "of a gate"
            return await self._v2.perform(self._principal, step)
        match step:
            case ReceiveUpload():
                assert self.upload is not None, "of a row whose body streams"
                return await self.upload.receive(step.call)
            case ReadPart() | SkipFile() | ReceiveFile() | FetchFile() | FinishUpload() if self.files is not None:
                return await self._perform_on_files(self.files, step)
            case DeriveOutputs() | ReadOutputs():
                assert self.outputs is not None, "of a row of functions"
                return await (self.outputs.read(step) if isinstance(step, ReadOutputs) else self.outputs.derive(step))
            case FinishUpload():
                assert self.upload is not None, "of a row whose body streams"
                self._record.is_submitted = True  # whether it is stored is not known, until ComfyUI says so
                return await self.upload.finish()
            case ReuseBytes() if self.beforehand is not None:
                await self.beforehand.write("")
        assert self._v2 is not None, "of a gate"
        return await self._v2.perform(self._principal, step)

    async def _perform_on_files(
        self, files: Files, step: ReadPart | SkipFile | ReceiveFile | FetchFile | FinishUpload
    ) -> Any:
        match step:
            case ReadPart():
                return await files.read_part(step.room)
            case SkipFile():
                return await files.skip_file()
            case ReceiveFile() | FetchFile():
                return await files.receive(step)
        return await files.finish()

    async def _perform_on_disk(self, step: AmendJob | TryJob | ReadDocuments | CancelWaiting | ForgetJobs) -> Any:
        """What concerns jobs that are, or are going to be, in the database."""
        tenant = self._principal.tenant
        match step:
            case AmendJob():
                return await self._results.amend(step.prompt_id, step.outputs)
            case TryJob():
                if await self._results.is_draining():
                    # ComfyUI would run it at once. What is wrong with it is told when its turn comes.
                    return Tried(UpstreamReply(200, {"node_errors": {}}))
                self._record.is_submitted = True
                tried = await try_job(self._ask, step, self._admission.window)
                if tried is None and self._results.is_kept_waiting(tenant):
                    return Tried(UpstreamReply(200, {"node_errors": {}}))  # the same
                return tried
            case ReadDocuments():
                return await self._results.read(tenant, step.kind, step.prompt_ids)
            case CancelWaiting():
                return await self._results.cancel_waiting(tenant, step.prompt_ids)
            case ForgetJobs():
                return await self._results.forget(tenant, step.prompt_ids)

    async def _release_job(self, prompt_id: str) -> None:
        await self._admission.release(prompt_id)
        self._claimed = self._unwritten = None
        self._record.is_submitted = False

    async def _let_go(self, prompt_id: str, *, is_doubtful: bool) -> None:
        try:
            await self._admission.release(prompt_id, is_doubtful=is_doubtful)
        except DatabaseUnavailable as error:
            _log.error("job %s was not taken, and cannot be taken out of the database: %s", prompt_id, error)

    def _name(self, prompt_id: str) -> None:
        self._record.notes["prompt_id"] = prompt_id
        self._unwritten = self.beforehand

    async def _write_down(self) -> None:
        note, self._unwritten = self._unwritten, None
        if note is not None:
            await note.write(self._record.notes["prompt_id"])

    async def _record_job(self, step: RecordJob) -> float | None:
        note, self._unwritten = self._unwritten, None
        try:
            return await self._admission.record(step, None if note is None else note.within(step.prompt_id))
        except Exception as error:
            if note is not None and not isinstance(error, DatabaseUnavailable):
                note.failed()
            raise

    async def _ask(self, call: UpstreamCall) -> UpstreamReply:
        started_s = time.perf_counter()
        try:
            return await self._upstream.ask(call, time_limit_s=self._time_limit_s)
        finally:
            self._record.upstream_s += time.perf_counter() - started_s
