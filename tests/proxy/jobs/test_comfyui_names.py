"""Which ComfyUIs there are, and what becomes of jobs at those that are not."""

from __future__ import annotations

import pytest

from policy.principal import TenantId
from proxy.jobs.job import Job
from proxy.jobs.job_rows import StoredState
from proxy.jobs.registry import JobRegistry, change_comfyuis, row_of

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
BOTH = ("gpu-1", "gpu-2")


@pytest.fixture
def registry() -> JobRegistry:
    return JobRegistry(comfyuis=BOTH)


def stored(registry: JobRegistry, comfyui: str, state: StoredState = StoredState.DISPATCHED) -> Job:
    """A job as the database has it."""
    job = registry.claim(ALICE, None)
    registry.release(job.prompt_id)
    row = row_of(job, comfyui=comfyui, gate="gate", lease_until_s=0.0, attempts="[]")
    return registry.apply(row._replace(state=state))


def test_the_first_one_is_the_first(registry: JobRegistry) -> None:
    assert (registry.comfyuis[0], list(registry.comfyuis[1:]), len(registry.comfyuis)) == ("gpu-1", ["gpu-2"], 2)
    assert registry.comfyuis.has_others
    assert not JobRegistry().comfyuis.has_others


@pytest.mark.parametrize("state", [StoredState.WAITING, StoredState.RUNNING, StoredState.SUCCEEDED])
def test_a_job_at_one_that_is_not_there_yet_is_there_when_it_has_come(
    registry: JobRegistry, state: StoredState
) -> None:
    """Another gate has read the configuration before this one."""
    job, gone = stored(registry, "gpu-3", state), stored(registry, "gpu-3")
    assert job.comfyui == "gpu-1"
    assert registry.comfyuis.absent == {"gpu-3"}
    registry.release(gone.prompt_id)
    change_comfyuis(registry, [*BOTH, "gpu-3"])
    assert (job.comfyui, job.seen_in) == ("gpu-3", -1)
    assert registry.comfyuis.absent == set()


def test_what_the_database_says_last_counts(registry: JobRegistry) -> None:
    job = stored(registry, "gpu-3")
    row = row_of(job, comfyui="gpu-2", gate="gate", lease_until_s=0.0, attempts="[]")
    registry.apply(row)
    change_comfyuis(registry, [*BOTH, "gpu-3"])
    assert job.comfyui == "gpu-2"


def test_jobs_of_one_that_has_gone_are_there_again_when_it_is_back(registry: JobRegistry) -> None:
    jobs = [stored(registry, name, StoredState.SUCCEEDED) for name in ("gpu-1", "gpu-2", "gpu-1")]
    change_comfyuis(registry, ["gpu-1"])
    assert [job.comfyui for job in jobs] == ["gpu-1"] * 3
    assert (registry.comfyuis.absent, registry.comfyuis.has_others) == ({"gpu-2"}, False)
    change_comfyuis(registry, ["gpu-1", "gpu-3", "gpu-2"])
    assert [job.comfyui for job in jobs] == ["gpu-1", "gpu-2", "gpu-1"]


def test_names_in_the_temp_folder_of_one_that_has_gone_are_nobodys(registry: JobRegistry) -> None:
    """The first may have a file of that name which is somebody else's."""
    jobs = [stored(registry, name) for name in BOTH]
    for job, name in zip(jobs, ("one.png", "two.png"), strict=True):
        registry.add_temp_files(job.prompt_id, (name,))
    change_comfyuis(registry, ["gpu-1"])
    assert [registry.temp_files.has(ALICE, name) for name in ("one.png", "two.png")] == [True, False]
    assert dict(registry.old_temp_files(ALICE, -1.0)).keys() <= {"one.png"}
    neighbours = registry.claim(MALLORY, None)
    registry.add_temp_files(neighbours.prompt_id, ("two.png",))
    change_comfyuis(registry, BOTH)
    assert not registry.temp_files.has(ALICE, "two.png")
    assert registry.temp_files.has(MALLORY, "two.png")
