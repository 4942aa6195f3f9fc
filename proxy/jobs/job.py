"""One job: whose it is, how far, and what ComfyUI's history says of its end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from policy.principal import TenantId
from proxy.jobs.history import Told
from proxy.jobs.temp_files import Made, end_of


class JobState(StrEnum):
    CLAIMED = "claimed"
    """Owned, and not on disk yet."""
    WAITING = "waiting"
    """On disk, and not with ComfyUI."""
    SENT = "sent"
    """Given to ComfyUI, which has not said yet that it took it."""
    DISPATCHED = "dispatched"
    """In ComfyUI's queue."""
    RUNNING = "running"
    ENDED = "ended"


_WAITING, _CLAIMED = JobState.WAITING, JobState.CLAIMED
"""Of each job twice in a moment; the members of an enumeration are slow to find."""
GIVEN: Final = frozenset({JobState.SENT, JobState.DISPATCHED, JobState.RUNNING})
"""In ComfyUI's window."""


TICK_S: Final = 0.001
"""ComfyUI tells times in whole milliseconds (execution.py, add_message): what began and ended in one, as all of a cached workflow does, has run all the
same, and is measured."""
COMFYUI_GONE: Final = "comfyui-gone"
PERHAPS_GONE: Final = "comfyui-gone-perhaps"
"""ComfyUI went away, and may have come to the job by then; begins as the reason for one that ran, so that both are found as one."""
COMFYUI_RESTARTED: Final = "comfyui-restarted"
"""ComfyUI went away before it came to the job."""
OUT_OF_MEMORY: Final = "out-of-memory"
TOO_LONG: Final = "job-seconds"


class Outcome(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """Gone without a trace: ComfyUI was restarted, or the job was taken out of its queue."""


@dataclass(slots=True, eq=False)
class Job:
    """Times are Unix seconds; gpu_s is what ComfyUI took to run it."""

    prompt_id: str
    tenant: TenantId
    subject: str = ""
    workflow: str = ""
    client_id: str = ""
    priority: float = 0.0
    cost_s: float = 0.0
    """GPU seconds that it will probably take."""
    span: float = 0.0
    """What its tenant's place in the fair order was charged for it."""
    number: float = 0.0
    """In ComfyUI's queue; a new one each time that it is given."""
    comfyui: str = ""
    """Which ComfyUI has it, or had it last; "" for none yet."""
    gate: str = ""
    """Which gate follows it."""
    attempts: tuple[Mapping[str, Any], ...] = ()
    """proxy.jobs.job_rows.JobRow"""
    error: str = ""
    """Why it failed, by class: `validation`, `node`, `out-of-memory`, `comfyui-gone`, `job-seconds`."""
    state: JobState = JobState.CLAIMED
    claimed_at_s: float = 0.0
    started_at_s: float | None = None
    ended_at_s: float | None = None
    outcome: Outcome | None = None
    failing_class: str = ""
    gpu_s: float = 0.0
    temp_files: set[str] = field(default_factory=set)
    lost_files: set[str] = field(default_factory=set)
    """Temp files of its own that were deleted or written anew by others: its outputs list them for ever, and they are not its any more."""
    was_heard: bool = False
    """A socket of its client was told that it ended, and closed in order after that: the next one has nothing to catch up with."""
    over_at_s: float | None = None
    """When its client was told that it ended. How it ended is read from the history after that: `state` says whether it was."""
    stopped_at_s: float | None = None
    """When the gate last asked ComfyUI to stop it, because it had run for `stopped_after_s`."""
    stopped_after_s: int | None = None
    is_withheld: bool = False
    """Its client is not told what ComfyUI says of this run: it is going to be tried once more."""
    is_unwanted: bool = False
    """Somebody has asked for its end, and ComfyUI still has it."""
    is_deleted: bool = False
    """Its client deleted it before that."""
    sequence: int = 0
    """Its place among all jobs in the order of their submission; while it is not on disk, behind them."""
    seen_in: int = -1
    """The connection to ComfyUI (proxy.jobs.queue_watcher) in which ComfyUI was known to have it; -1 for none."""
    is_in_flight: bool = False
    """ComfyUI is being sent it: it comes to its queue, or somebody hears that it does not."""
    sent_in: int = 0
    sent_at_s: float = 0.0
    """When, and in which connection, it was given to ComfyUI."""
    version: int = 0
    """Of the row in the database that it was last taken from."""
    closed: asyncio.Event | None = None
    """Set when its end is known and on disk, or it is gone; made by who waits for that."""

    @property
    def run_id(self) -> str:
        """Names this run of this job, whoever asks: another gate and a later start of this one name it alike.

        SECURITY: a prompt_id alone may be its tenant's own choice, and come again when the job was deleted: what is counted once by it
        would be counted once for all (tests/proxy/jobs/test_admission.py).
        """
        started_ms = (
            "" if self.started_at_s is None or self.outcome is Outcome.LOST else round(self.started_at_s * 1000)
        )
        return f"{self.prompt_id}/{self.number!r}/{started_ms}"

    @property
    def order(self) -> tuple[float, float]:
        """Its place among its tenant's: what ComfyUI has by its number, then what waits by its own priority, then what is being submitted.

        What is over is in the order of submission, also where nobody has read in the history yet that it ended.
        """
        state = self.state
        if self.over_at_s is not None:
            return (0.0, self.sequence)
        if state is _WAITING:
            return (-self.priority, self.sequence)
        if state is _CLAIMED:
            return (math.inf, self.sequence)
        if state is JobState.DISPATCHED or state is JobState.SENT:
            return (-math.inf, self.number)
        return (0.0, self.sequence)

    @property
    def is_being_sent(self) -> bool:
        """Whether ComfyUI may get it yet: its files are brought there, or it has not said whether it took it."""
        return self.state is JobState.SENT and self.is_in_flight

    @property
    def given_at_s(self) -> float:
        """When a ComfyUI was given it last, by the clock of the gate that gave it; 0 for never."""
        return float(self.attempts[-1].get("at", 0.0)) if self.attempts else 0.0

    def was_lost_since(self, at_s: float, comfyui: str) -> bool:
        """Whether this ComfyUI had it at that time, and has lost it since."""
        return any(
            attempt.get("comfyui") == comfyui
            and attempt.get("at", 0.0) <= at_s < attempt.get("ended", 0.0)
            and str(attempt.get("reason")).startswith((COMFYUI_GONE, COMFYUI_RESTARTED))
            for attempt in self.attempts
        )

    @property
    def lost_runs(self) -> int:
        """How often ComfyUI went away while it ran."""
        return sum(attempt.get("reason") == COMFYUI_GONE for attempt in self.attempts)

    @property
    def was_tried(self) -> bool:
        """ComfyUI has had it before, and it was, or is, to be tried again."""
        return any("reason" in attempt for attempt in self.attempts)

    @property
    def was_out_of_memory(self) -> bool:
        return any(attempt.get("reason") == OUT_OF_MEMORY for attempt in self.attempts)

    @property
    def is_over(self) -> bool:
        return self.over_at_s is not None

    @property
    def wrote_until_s(self) -> float:
        """Files that are newer (Unix seconds) are not its own; infinity while it runs."""
        return end_of(self.ended_at_s if self.state is JobState.ENDED else None, self.over_at_s)


def take_told(job: Job, told: Told) -> Mapping[str, Made]:
    """Takes outcome and times out of what a history entry tells; returns the temp files that it lists."""
    started = told.started_at_s if told.started_at_s is not None else job.started_at_s
    ended = told.ended_at_s
    job.started_at_s = started
    job.ended_at_s = ended or job.ended_at_s
    job.failing_class = told.failing_class
    if started is not None and ended is not None:
        job.gpu_s = max(0.0, ended - started) if ended != started else TICK_S
    if "execution_interrupted" in told.times:
        job.outcome = Outcome.CANCELLED if job.stopped_after_s is None else Outcome.FAILED
        job.error = "" if job.stopped_after_s is None else TOO_LONG
    else:
        job.outcome = Outcome.FAILED if told.is_error else Outcome.COMPLETED
        job.error = "" if not told.is_error else job.error or (OUT_OF_MEMORY if told.is_out_of_memory else "node")
    return told.files
