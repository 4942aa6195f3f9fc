"""What is counted of each ComfyUI: under names of the configuration alone, and not at all where there is one."""

from __future__ import annotations

import time

import pytest

from policy.principal import TenantId
from proxy.jobs.job import COMFYUI_GONE, Job, JobState, Outcome
from proxy.observability import comfyui_metrics
from proxy.observability.comfyui_metrics import ComfyUIState
from proxy.observability.metrics import Metrics, name_comfyuis

WELL = ComfyUIState(is_connected=True, is_stuck=False, last_sync_age_s=3.0, window=2, weight=1.0)
TWO = ("gpu-1", "gpu-2")


def metrics_of(*names: str) -> Metrics:
    metrics = Metrics()
    metrics.comfyuis.set_names(names)
    return metrics


def value(metrics: Metrics, name: str, comfyui: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"comfygate_comfyui_{name}", {"comfyui": comfyui, **labels})


def job(comfyui: str, state: JobState = JobState.DISPATCHED, **more: float) -> Job:
    made = Job("id", TenantId("alice"), comfyui=comfyui, state=state)
    for name, number in more.items():
        setattr(made, name, number)
    return made


def samples(metrics: Metrics) -> list[str]:
    return [line for line in metrics.render().decode().splitlines() if line.startswith("comfygate_comfyui_")]


def test_with_one_there_is_no_sample() -> None:
    metrics = metrics_of("default")
    metrics.comfyuis.refresh({"default": WELL}, [job("default")])
    metrics.job_ended(job("default", JobState.ENDED, gpu_s=3.0))

    assert not samples(metrics)


def test_each_is_there_before_it_has_run_anything() -> None:
    """A rate needs a beginning."""
    metrics = metrics_of(*TWO)

    assert value(metrics, "gpu_seconds_total", "gpu-2") == 0
    assert value(metrics, "jobs_ended_total", "gpu-1", outcome="failed") == 0


def test_what_ended_counts_where_it_ran() -> None:
    metrics = metrics_of(*TWO)
    ended = job("gpu-2", JobState.ENDED, gpu_s=4.0)
    ended.outcome = Outcome.COMPLETED
    metrics.job_ended(ended)

    assert value(metrics, "jobs_ended_total", "gpu-2", outcome="completed") == 1
    assert value(metrics, "gpu_seconds_total", "gpu-2") == 4.0
    assert value(metrics, "gpu_seconds_total", "gpu-1") == 0
    assert metrics.registry.get_sample_value("comfygate_gpu_seconds_total", {"tenant": "alice"}) == 4.0


def test_what_waits_again_counts_where_it_was() -> None:
    metrics = metrics_of(*TWO)
    again = job("gpu-2", JobState.WAITING)
    again.attempts = ({"reason": COMFYUI_GONE},)
    metrics.job_tried_again(again)

    assert value(metrics, "jobs_tried_again_total", "gpu-2", reason=COMFYUI_GONE) == 1


def test_no_other_name_becomes_a_label() -> None:
    """One that the configuration has no more stands in the database still."""
    metrics = metrics_of(*TWO)
    before = samples(metrics)
    metrics.job_ended(job("gpu-9", JobState.ENDED, gpu_s=4.0))
    metrics.job_tried_again(job("gpu-9", JobState.WAITING))
    metrics.comfyuis.refresh({"gpu-9": WELL}, [job("gpu-9")])

    assert samples(metrics) == before


def test_a_job_without_a_name_is_the_firsts_once_it_was_given() -> None:
    """As jobs of before have it, and those that ComfyUI was asked to take at once."""
    metrics = metrics_of(*TWO)
    metrics.comfyuis.refresh(dict.fromkeys(TWO, WELL), [job("")])
    metrics.job_ended(job("", JobState.ENDED, started_at_s=1.0, gpu_s=4.0))
    metrics.job_ended(job("", JobState.ENDED))

    assert value(metrics, "given", "gpu-1") == 1
    assert value(metrics, "gpu_seconds_total", "gpu-1") == 4.0
    assert value(metrics, "jobs_ended_total", "gpu-1", outcome="lost") == 1


def test_gauges_are_of_the_moment() -> None:
    metrics = metrics_of(*TWO)
    now_s = time.time()
    jobs = [
        job("gpu-1", JobState.RUNNING, cost_s=1000.0, started_at_s=now_s - 400.0),
        job("gpu-1", cost_s=50.0),
        job("gpu-1", JobState.WAITING, cost_s=7000.0),
        job("gpu-2", JobState.RUNNING, cost_s=10.0, started_at_s=now_s - 400.0),
        job("gpu-2", JobState.SENT, cost_s=80.0),
    ]
    away = WELL._replace(is_connected=False, is_stuck=True, last_sync_age_s=60.0, window=3, weight=2.0)
    metrics.comfyuis.refresh({"gpu-1": WELL, "gpu-2": away}, jobs)

    assert [value(metrics, name, "gpu-1") for name in ("up", "stuck", "window", "given")] == [1, 0, 2, 2]
    assert [value(metrics, name, "gpu-2") for name in ("up", "stuck", "window", "given")] == [0, 1, 3, 2]
    assert value(metrics, "last_sync_age_seconds", "gpu-2") == 60.0
    # One that is over its time, by 395 s, is expected to go on for as long; a fast one takes half the time.
    assert value(metrics, "wait_seconds", "gpu-2") == pytest.approx(435.0, abs=5.0)
    waited = value(metrics, "wait_seconds", "gpu-1")
    assert waited is not None
    assert 50.0 <= waited <= 650.0


def test_what_failed_counts_where_it_ran_by_what_went_wrong() -> None:
    metrics = metrics_of(*TWO)
    for error, failing_class in (("node", "KSampler"), ("node", "KSampler"), (COMFYUI_GONE, "")):
        failed = job("gpu-2", JobState.ENDED)
        failed.outcome, failed.error, failed.failing_class = Outcome.FAILED, error, failing_class
        metrics.job_ended(failed)

    assert value(metrics, "jobs_failed_total", "gpu-2", error="node", node_class="KSampler") == 2
    assert value(metrics, "jobs_failed_total", "gpu-2", error=COMFYUI_GONE, node_class="other") == 1
    assert value(metrics, "jobs_failed_total", "gpu-1", error="node", node_class="KSampler") is None


def test_models_are_those_of_the_moment() -> None:
    metrics = metrics_of(*TWO)
    drained = WELL._replace(is_drained=True)
    metrics.comfyuis.refresh({"gpu-1": WELL._replace(models=("a", "b")), "gpu-2": drained}, [])
    assert [value(metrics, "models", "gpu-1", model=model) for model in "ab"] == [1, 1]
    assert [value(metrics, "drained", name) for name in TWO] == [0, 1]

    metrics.comfyuis.refresh({"gpu-1": WELL._replace(models=("b",)), "gpu-2": WELL}, [])
    assert [value(metrics, "models", "gpu-1", model=model) for model in "ab"] == [None, 1]
    assert [value(metrics, "drained", name) for name in TWO] == [0, 0]


def test_very_many_models_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name is a series that Prometheus keeps."""
    monkeypatch.setattr(comfyui_metrics, "MAX_MODELS", 2)
    metrics = metrics_of(*TWO)
    for models in (("a",), ("b",), ("c", "a", "d")):
        metrics.comfyuis.refresh({"gpu-1": WELL._replace(models=models)}, [])

    assert [value(metrics, "models", "gpu-1", model=model) for model in "abcd"] == [1, None, None, None]
    assert value(metrics, "models", "gpu-1", model="other") == 2


def test_of_one_that_has_gone_nothing_is_told_any_more() -> None:
    metrics = metrics_of(*TWO, "gpu-3")
    metrics.comfyuis.refresh(dict.fromkeys((*TWO, "gpu-3"), WELL), [])
    again = job("gpu-2")
    again.attempts = ({"reason": COMFYUI_GONE},)
    metrics.job_tried_again(again)
    for name in TWO:
        metrics.warmups.labels(name, "done").inc()
        metrics.warmed.add((name, "done"))
    name_comfyuis(metrics, ("gpu-1", "gpu-3"))
    assert not [line for line in metrics.render().decode().splitlines() if "gpu-2" in line]
    assert value(metrics, "up", "gpu-1") == 1
    assert 'comfygate_warmups_total{comfyui="gpu-1",result="done"} 1.0' in metrics.render().decode()
    metrics.job_ended(job("gpu-2", JobState.ENDED, gpu_s=4.0))
    name_comfyuis(metrics, ("gpu-1",))
    assert not samples(metrics)
