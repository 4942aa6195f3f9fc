"""What is counted of each ComfyUI where there are several. Label values are names of the configuration; with one ComfyUI there is no sample of these."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from policy.placement import left_s
from proxy.config import Config
from proxy.config.comfyui import ComfyUISettings
from proxy.jobs.job import GIVEN, Job, Outcome
from proxy.jobs.queue_watchers import QueueWatchers
from proxy.jobs.store_state import Dispatching

OTHER: Final = "other"
MAX_MODELS: Final = 1000
"""As label values: a ComfyUI may list many, and which of them it has changes with each job, so the rest are counted together."""
_LABEL: Final = "comfyui"


class ComfyUIState(NamedTuple):
    """is_stuck: it has jobs waiting and runs none. last_sync_age_s: since the gate read its queue. window: how many jobs it has at once.
    weight: how fast it is, 1 is usual. is_drained: it is given no jobs. models: those that it was given last."""

    is_connected: bool
    is_stuck: bool
    last_sync_age_s: float
    window: int
    weight: float
    is_drained: bool = False
    models: tuple[str, ...] = ()


class ComfyUIMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._names: tuple[str, ...] = ()
        self._models: set[str] = set()
        self._failures: set[tuple[str, str]] = set()
        self._reasons: set[str] = set()
        self.up = self._gauge("up", "1 while the gate is connected to it.")
        self.stuck = self._gauge(
            "stuck", "1 while it has jobs waiting and runs none, or runs on with one that it was told to stop."
        )
        self.last_sync_age_seconds = self._gauge(
            "last_sync_age_seconds", "Time since the gate last compared its jobs with this ComfyUI's queue."
        )
        self.window = self._gauge("window", "How many jobs it has at once.")
        self.given = self._gauge("given", "Jobs that it has.")
        self.wait_seconds = self._gauge("wait_seconds", "Until it will probably have run the jobs that it has.")
        self.drained = self._gauge("drained", "1 while it is given no jobs, since it is drained.")
        self.models = self._gauge(
            "models", "1 for each model that it was given last, which it probably has loaded.", "model"
        )
        self.jobs_ended = self._counter("jobs_ended", "Jobs that ended there, by outcome.", "outcome")
        self.jobs_failed = self._counter(
            "jobs_failed",
            "Jobs that failed there, by what went wrong and the class that failed.",
            "error",
            "node_class",
        )
        self.jobs_tried_again = self._counter(
            "jobs_tried_again", "Jobs that wait again after it had them, by the reason.", "reason"
        )
        self.gpu_seconds = self._counter("gpu_seconds", "Time that it ran jobs.")

    def set_names(self, names: Iterable[str]) -> None:
        """Of those that there are, the first one first. Where there is one, nothing is counted."""
        known, before = tuple(names), self._names
        self._names = known if len(known) > 1 else ()
        for name in set(before) - set(self._names):
            self._forget(name)
        for name in self._names:
            self.gpu_seconds.labels(name)
            for outcome in Outcome:
                self.jobs_ended.labels(name, outcome.value)

    def _forget(self, name: str) -> None:
        """Nothing is told of it any more."""
        self.models.clear()  # they are told anew
        gauges = (self.up, self.stuck, self.last_sync_age_seconds, self.window, self.given)
        of_one = [(metric, (name,)) for metric in (*gauges, self.wait_seconds, self.drained, self.gpu_seconds)]
        of_outcomes = [(self.jobs_ended, (name, outcome.value)) for outcome in Outcome]
        of_reasons = [(self.jobs_tried_again, (name, reason)) for reason in self._reasons]
        of_failures = [(self.jobs_failed, (name, *failure)) for failure in self._failures]
        for metric, labels in (*of_one, *of_outcomes, *of_reasons, *of_failures):
            metric.labels(*labels)  # else what was never told cannot be taken away
            metric.remove(*labels)

    def job_ended(self, job: Job, outcome: Outcome, node_class: str = OTHER) -> None:
        """One that was never given to any counts nowhere. node_class: that failed."""
        name = self._name_of(job) if job.comfyui or job.started_at_s is not None else None
        if name is not None:
            self.jobs_ended.labels(name, outcome.value).inc()
            self.gpu_seconds.labels(name).inc(job.gpu_s)
            if outcome is Outcome.FAILED:
                self._failures.add((job.error or OTHER, node_class))
                self.jobs_failed.labels(name, job.error or OTHER, node_class).inc()

    def job_tried_again(self, job: Job, reason: str) -> None:
        name = self._name_of(job)
        if name is not None:
            self._reasons.add(reason)
            self.jobs_tried_again.labels(name, reason).inc()

    def refresh(self, states: Mapping[str, ComfyUIState], jobs: Iterable[Job]) -> None:
        """Gauges, just before a scrape. states: by name. jobs: those that have not ended."""
        if not self._names:
            return
        given, waits_s = dict.fromkeys(self._names, 0), dict.fromkeys(self._names, 0.0)
        now_s = time.time()
        for job in jobs:
            if job.state in GIVEN and (name := self._name_of(job)) is not None:
                given[name] += 1
                weight = states[name].weight if name in states else 1.0
                ran_s = 0.0 if job.started_at_s is None else now_s - job.started_at_s
                waits_s[name] += left_s(job.cost_s / weight, ran_s)
        self.models.clear()
        for name, state in states.items():
            if name not in self._names:
                continue
            self.drained.labels(name).set(state.is_drained)
            for model in state.models:
                self.models.labels(name, self._model(model)).inc()
            self.up.labels(name).set(state.is_connected)
            self.stuck.labels(name).set(state.is_stuck)
            self.last_sync_age_seconds.labels(name).set(state.last_sync_age_s)
            self.window.labels(name).set(state.window)
            self.given.labels(name).set(given[name])
            self.wait_seconds.labels(name).set(waits_s[name])

    def _name_of(self, job: Job) -> str | None:
        """Which ComfyUI has or had the job; a name that the configuration has no more is none."""
        if not self._names:
            return None
        name = job.comfyui or self._names[0]
        return name if name in self._names else None

    def _model(self, name: str) -> str:
        if name not in self._models and len(self._models) >= MAX_MODELS:
            return OTHER
        self._models.add(name)
        return name

    def _gauge(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(f"comfygate_comfyui_{name}", words, (_LABEL, *labels), registry=self._registry)

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"comfygate_comfyui_{name}", words, (_LABEL, *labels), registry=self._registry)


def states_of(
    config: Config, watchers: QueueWatchers, comfyuis: Iterable[ComfyUISettings], dispatching: Dispatching
) -> dict[str, ComfyUIState]:
    """By name. comfyuis: those that there are. dispatching: as the database has it."""
    found, settings = {}, {each.name: each for each in comfyuis}
    for watcher in watchers:
        comfyui = settings.get(watcher.name)
        if comfyui is not None:
            found[watcher.name] = ComfyUIState(
                watcher.is_connected,
                watcher.is_worker_stuck,
                watcher.last_sync_age_s,
                config.window_of(comfyui),
                comfyui.weight,
                dispatching.is_drained(watcher.name),
                dispatching.models.get(watcher.name, ()),
            )
    return found
