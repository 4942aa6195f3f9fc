"""What an upstream socket hears of its tenant's jobs: events come before the queue watcher has asked, and what the client does next must find the
registry up to date."""

from __future__ import annotations

from typing import Final

from policy.rules.events import ENDS, Event
from policy.rules.results import temp_files
from proxy.jobs.events import RunningJobs, SocketReports
from proxy.jobs.history import cached_nodes
from proxy.jobs.temp_files import Made

MAX_HEARD: Final = 64
"""Ids of jobs that are remembered."""


class HeardJobs:
    """Of one socket. comfyui: whose it is, "" for the first."""

    __slots__ = ("_cached", "_comfyui", "_ends", "_heard", "_jobs", "_over", "_reports")

    def __init__(self, jobs: RunningJobs, reports: SocketReports, comfyui: str = "") -> None:
        self._jobs = jobs
        self._comfyui = comfyui
        self._reports = reports
        self._cached: tuple[str, frozenset[str]] | None = None
        self._heard: dict[str, None] = {}
        self._over: dict[str, None] = {}
        self._ends: dict[str, None] = {}

    def followed(self) -> HeardJobs:
        """Of the next socket: with the jobs that this one has heard of, and nothing of how the one that runs began."""
        following = HeardJobs(self._jobs, self._reports, self._comfyui)
        following._heard, following._over, following._ends = self._heard, self._over, self._ends
        return following

    def knows(self, prompt_id: str) -> bool:
        return prompt_id in self._heard

    def has_ended(self, prompt_id: str) -> bool:
        """Whether its end was heard, by a client or for one that may come back."""
        return prompt_id in self._over

    def ends(self) -> tuple[str, ...]:
        """The jobs whose end a client was told."""
        return tuple(self._ends)

    def tell(self, event: Event, *, is_attached: bool) -> None:
        """is_attached: a client hears the event."""
        prompt_id = event.prompt_id
        if event.kind == "executing":
            self._tell_place(event)
        if prompt_id is None:
            return
        if prompt_id not in self._heard:
            _remember(self._heard, prompt_id)
        if event.kind == "execution_start":
            self._reports.started(prompt_id)
        elif event.kind == "execution_cached":
            self._cached = (prompt_id, cached_nodes(event.data))
        elif event.kind in ENDS:
            self._reports.ended(prompt_id)
            _remember(self._over, prompt_id)
            if is_attached:
                _remember(self._ends, prompt_id)
        elif event.kind == "executed" and (names := temp_files(event.data.get("output"))):
            self._reports.made_temp_files(prompt_id, names, self._made(event), self._comfyui)

    def _tell_place(self, event: Event) -> None:
        """Where a job is. To a socket that is opened meanwhile ComfyUI does not say of which job it speaks: of the one that runs."""
        running = self._jobs.running() if event.prompt_id is None else [event.prompt_id]
        nodes = (event.data.get("node"), event.data.get("display_node"))
        if len(running) == 1:
            self._reports.is_at(running[0], frozenset(node for node in nodes if isinstance(node, str)))

    def _made(self, event: Event) -> Made:
        if self._cached is None or self._cached[0] != event.prompt_id:
            return Made.UNKNOWN  # this socket was opened while the job ran
        return Made.EARLIER if event.data.get("node") in self._cached[1] else Made.NOW


def _remember(ids: dict[str, None], prompt_id: str) -> None:
    ids[prompt_id] = None
    if len(ids) > MAX_HEARD:
        del ids[next(iter(ids))]
