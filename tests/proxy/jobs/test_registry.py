"""Who owns which job and how far it is; what a history entry tells, whatever shape it has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.principal import TenantId
from policy.prompt_ids import is_prompt_id
from proxy.jobs import registry as ledger_module
from proxy.jobs.history import temp_files_of
from proxy.jobs.registry import Job, JobRegistry, JobState, Outcome, read_history
from proxy.jobs.temp_files import Made

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
ID = "6f9619ff-8b86-4d11-b42d-00c04fc964ff"


def stopped_clock() -> float:
    return 1000.0


def test_a_wished_id_is_kept_when_nobody_has_it() -> None:
    registry = JobRegistry(stopped_clock)
    job = registry.claim(ALICE, ID, subject="key", workflow="hash")
    assert (job.prompt_id, job.subject, job.workflow, job.claimed_at_s) == (ID, "key", "hash", 1000.0)
    assert registry.job(ID) is job
    assert registry.of(ALICE).owns(ID)
    assert not registry.of(MALLORY).owns(ID)


@pytest.mark.parametrize(
    "wish",
    [
        None,
        "",
        "7",
        "../../x",
        ID.upper(),
        ID.replace("-", ""),
        f"{{{ID}}}",
        f"urn:uuid:{ID}",
        f"{ID} ",
        f"{ID}\n",
        ID[:-1] + "é",
    ],
)
def test_an_id_that_comfyui_would_not_keep_is_replaced(wish: str | None) -> None:
    job = JobRegistry().claim(ALICE, wish)
    assert job.prompt_id != wish
    assert is_prompt_id(job.prompt_id)


@pytest.mark.parametrize("owner", [ALICE, MALLORY])
def test_a_taken_id_is_replaced_whoever_has_it(owner: TenantId) -> None:
    registry = JobRegistry()
    registry.claim(ALICE, ID)
    again = registry.claim(owner, ID)
    assert again.prompt_id != ID
    assert registry.of(owner).owns(again.prompt_id)


def test_a_job_goes_through_its_states() -> None:
    registry = JobRegistry(stopped_clock)
    job, jobs = registry.claim(ALICE, ID), registry.of(ALICE)
    assert jobs.pending() == [ID]
    registry.submitted(ID, 7.0)
    assert (job.state, job.number, jobs.pending()) == (JobState.PENDING, 7.0, [ID])
    assert registry.start(job, 5.0)
    assert not registry.start(job)
    assert (job.started_at_s, jobs.running(), jobs.pending()) == (5.0, [ID], [])
    registry.submitted(ID, 8.0)
    assert job.state is JobState.RUNNING
    assert registry.active() == [job]
    assert registry.end(job, {})
    assert not registry.end(job, {})
    assert not registry.start(job)
    assert (jobs.running(), jobs.finished(), registry.active()) == ([], [ID], [])
    assert job.ended_at_s == 1000.0


def test_starts_now_when_no_time_is_told() -> None:
    registry = JobRegistry(stopped_clock)
    job = registry.claim(ALICE, None)
    registry.start(job)
    assert job.started_at_s == 1000.0


def test_a_released_job_is_nobodys() -> None:
    registry = JobRegistry()
    registry.claim(ALICE, ID)
    registry.release(ID)
    registry.release(ID)
    registry.submitted(ID, 1.0)
    registry.add_temp_files(ID, ["x.png"])
    assert registry.job(ID) is None
    assert not registry.of(ALICE).owns(ID)
    assert registry.claim(MALLORY, ID).prompt_id != ID, "its id goes to no other tenant"
    assert registry.claim(ALICE, ID).prompt_id == ID


def test_retired_ids_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_ENDED_JOBS", 2)
    registry = JobRegistry()
    for number in range(4):
        registry.release(registry.claim(ALICE, ID if number == 0 else None).prompt_id)
    assert registry.claim(MALLORY, ID).prompt_id == ID


def test_a_run_is_named_alike_by_every_gate() -> None:
    """By what ComfyUI's queue and history tell of it; where its entry is gone, by its place in the queue alone."""
    entry = {"status": {"messages": [message("execution_start", 10), message("execution_success", 12)]}}
    names = set()
    for clock_s in (10.5, 99.0):
        registry = JobRegistry(lambda now_s=clock_s: now_s)  # type: ignore[misc]
        for told in (entry, None):
            job = registry.adopt(ID, "alice.tab", JobState.PENDING, 1.25)
            assert job is not None
            registry.start(job)
            registry.end(job, told, was_watched=True)
            names.add(job.run_id)
            registry.release(ID)
    assert names == {f"{ID}/1.25/10000", f"{ID}/1.25/"}


def test_adopts_by_the_owner_that_comfyui_keeps() -> None:
    registry = JobRegistry(stopped_clock)
    job = registry.adopt(ID, "alice.tab", JobState.PENDING, 3.0)
    assert job is not None
    assert (job.tenant, job.state, job.number) == (ALICE, JobState.PENDING, 3.0)
    assert registry.adopt(ID, "mallory.tab", JobState.RUNNING) is job
    assert job.tenant == ALICE


@pytest.mark.parametrize("client_id", [None, "", "nobody", ".x", "Not A Tenant.x", 7, ["alice.tab"], {}, "alice"])
def test_does_not_adopt_what_the_gate_did_not_send(client_id: object) -> None:
    registry = JobRegistry()
    assert registry.adopt(ID, client_id, JobState.PENDING) is None
    assert registry.job(ID) is None


def test_forgets_the_oldest_ended_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_ENDED_JOBS", 2)
    registry = JobRegistry()
    jobs = [registry.claim(ALICE, None) for _ in range(4)]
    for job in jobs[:3]:
        registry.end(job, None)
    assert registry.of(ALICE).finished() == [job.prompt_id for job in jobs[1:3]]
    assert registry.job(jobs[0].prompt_id) is None
    assert registry.active() == [jobs[3]]


def test_forgets_history_but_no_job_that_lives() -> None:
    registry = JobRegistry()
    ended, living = registry.claim(ALICE, None), registry.claim(ALICE, None)
    registry.end(ended, None)
    registry.forget_history([ended.prompt_id, living.prompt_id, "unknown"])
    assert registry.job(ended.prompt_id) is None
    assert registry.job(living.prompt_id) is living


def test_knows_temp_files_by_tenant() -> None:
    registry = JobRegistry(stopped_clock)
    job = registry.claim(ALICE, ID)
    registry.add_temp_files(ID, ["a.png"])
    registry.add_temp_files(ID, ["sub/b.png"])
    assert registry.of(ALICE).has_temp_file("a.png")
    assert registry.of(ALICE).has_temp_file("sub/b.png")
    assert not registry.of(ALICE).has_temp_file("b.png")
    assert not registry.of(MALLORY).has_temp_file("a.png")
    assert registry.old_temp_files(ALICE, -1.0) == {}
    registry.end(job, None)
    assert registry.old_temp_files(ALICE, 0.0) == {}
    assert registry.old_temp_files(ALICE, -1.0).keys() == job.temp_files


def message(kind: str, at_s: float, **more: Any) -> list[Any]:
    return [kind, {"timestamp": at_s * 1000, "prompt_id": ID, **more}]


OUTCOMES: list[tuple[str, Any, Outcome, float]] = [
    (
        "success",
        {
            "status": {
                "status_str": "success",
                "messages": [message("execution_start", 10), message("execution_success", 12.5)],
            }
        },
        Outcome.COMPLETED,
        2.5,
    ),
    (
        "error",
        {
            "status": {
                "status_str": "error",
                "messages": [message("execution_start", 10), message("execution_error", 11, node_type="KSampler")],
            }
        },
        Outcome.FAILED,
        1.0,
    ),
    (
        "interrupted",
        {
            "status": {
                "status_str": "error",
                "messages": [message("execution_start", 10), message("execution_interrupted", 14)],
            }
        },
        Outcome.CANCELLED,
        4.0,
    ),
    ("error without messages", {"status": {"status_str": "error"}}, Outcome.FAILED, 0.0),
    ("a clock that ran back", {"status": {"messages": [message("execution_start", 10), message("x", 9)]}}, Outcome.COMPLETED, 0.0),
    ("nothing", None, Outcome.LOST, 0.0),
    ("a list", [], Outcome.LOST, 0.0),
    ("no status", {}, Outcome.COMPLETED, 0.0),
    ("odd status", {"status": [1]}, Outcome.COMPLETED, 0.0),
    (
        "odd messages",
        {"status": {"messages": [1, [], ["execution_error"], ["a", 1], ["b", {"timestamp": "x"}], [None, {}]]}},
        Outcome.COMPLETED,
        0.0,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "outcome", "gpu_s"), [case[1:] for case in OUTCOMES], ids=[c[0] for c in OUTCOMES])
def test_history_tells_the_outcome(entry: Any, outcome: Outcome, gpu_s: float) -> None:
    job = Job(ID, ALICE)
    read_history(job, entry)
    assert (job.outcome, job.gpu_s) == (outcome, gpu_s)
    assert job.failing_class == ("KSampler" if "KSampler" in str(entry) else "")


def test_history_keeps_what_was_known_of_times() -> None:
    job = Job(ID, ALICE, started_at_s=10.0, ended_at_s=99.0)
    read_history(job, {"status": {"messages": [message("execution_success", 12)]}})
    assert (job.started_at_s, job.ended_at_s, job.gpu_s) == (10.0, 12.0, 2.0)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=5)
    | st.sampled_from(["temp", "output"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["status", "messages", "timestamp", "outputs", "type", "filename", "subfolder", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_history_of_any_shape_is_read(entry: Any) -> None:
    job = Job(ID, ALICE)
    read_history(job, entry)
    assert job.outcome is not None
    assert all(isinstance(name, str) for name in temp_files_of(entry))


def test_temp_files_are_found_in_every_output() -> None:
    outputs = {
        "2": {
            "images": [{"filename": "a.png", "subfolder": "", "type": "temp"}, {"filename": "o.png", "type": "output"}]
        },
        "3": {"gifs": [{"filename": "b.png", "subfolder": "s", "type": "temp"}]},
        "4": {"images": [{"filename": 7, "type": "temp"}]},
    }
    assert temp_files_of(outputs) == {"a.png": Made.NOW, "s/b.png": Made.NOW}
    assert temp_files_of(outputs, frozenset({"3", "4"})) == {"a.png": Made.NOW, "s/b.png": Made.EARLIER}
    assert temp_files_of(None) == {}
