"""Who owns which job and how far it is; what a history entry tells, whatever shape it has."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.principal import TenantId
from policy.prompt_ids import is_prompt_id
from policy.rules.results import UNNAMED_CLIENT
from proxy.jobs import registry as ledger_module
from proxy.jobs.history import Told, read_entry, temp_files_of
from proxy.jobs.job import take_told
from proxy.jobs.job_rows import JobRow, StoredState
from proxy.jobs.registry import Job, JobRegistry, JobState, Outcome, owner_of_client
from proxy.jobs.temp_files import Made

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
ID = "6f9619ff-8b86-4d11-b42d-00c04fc964ff"


def stored(state: StoredState, **more: Any) -> JobRow:
    return JobRow(ID, "alice", client_id="tab", state=state, sequence=1)._replace(**more)


def stopped_clock() -> float:
    return 1000.0


def test_a_wished_id_is_kept_when_nobody_has_it() -> None:
    registry = JobRegistry(stopped_clock)
    job = registry.claim(ALICE, ID, subject="key", workflow="hash")
    assert (job.prompt_id, job.subject, job.workflow, job.claimed_at_s) == (ID, "key", "hash", 1000.0)
    assert registry.job(ID) is job
    assert registry.of(ALICE).owns(ID)
    assert not registry.of(MALLORY).owns(ID)


def test_ids_of_the_gates_own_stand_in_the_order_of_time() -> None:
    """So that an index of them grows at its end; what they have of their time is known to who has them, and the rest is random."""
    now_s = 1_700_000_000.0
    registry, found = JobRegistry(lambda: now_s), []
    for _ in range(200):
        now_s += 0.0025  # each is of another millisecond
        found.append(registry.claim(ALICE, None).prompt_id)
    assert found == sorted(found)
    assert all(is_prompt_id(prompt_id) and UUID(prompt_id).version == 7 for prompt_id in found)
    alike = {registry.claim(ALICE, None).prompt_id for _ in range(1000)}
    assert len(alike) == 1000
    assert len({prompt_id[-17:-13] for prompt_id in alike}) > 500


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
    registry.sent(job)
    assert (job.state, job.sent_at_s, jobs.pending()) == (JobState.SENT, 1000.0, [ID])
    registry.dispatched(ID)
    assert (job.state, jobs.pending()) == (JobState.DISPATCHED, [ID])
    assert registry.start(job, 5.0)
    assert not registry.start(job)
    assert (job.started_at_s, jobs.running(), jobs.pending()) == (5.0, [ID], [])
    registry.dispatched(ID)
    assert job.state is JobState.RUNNING
    assert registry.active() == [job]
    assert registry.end(job)
    assert not registry.end(job)
    assert not registry.start(job)
    assert (jobs.running(), jobs.finished(), registry.active()) == ([], [ID], [])
    assert job.ended_at_s == 1000.0


def test_starts_now_when_no_time_is_told() -> None:
    registry = JobRegistry(stopped_clock)
    job = registry.claim(ALICE, None)
    registry.start(job)
    assert job.started_at_s == 1000.0


def test_what_is_over_stands_in_the_order_of_submission_before_its_end_is_read() -> None:
    """Its client asks for the history when it hears of the end, and ComfyUI's own start may not have been heard of by then."""
    registry = JobRegistry(stopped_clock)
    jobs = [registry.claim(ALICE, None) for _ in range(3)]
    for job in jobs:
        registry.dispatched(job.prompt_id)
    registry.end(jobs[0])
    registry.mark_over(jobs[2].prompt_id)
    assert registry.of(ALICE).finished() == [jobs[0].prompt_id, jobs[2].prompt_id]
    registry.start(jobs[1])
    registry.mark_over(jobs[1].prompt_id)
    assert registry.of(ALICE).finished() == [job.prompt_id for job in jobs]
    assert registry.of(ALICE).pending() == []


def test_a_released_job_is_nobodys() -> None:
    registry = JobRegistry()
    registry.claim(ALICE, ID)
    registry.release(ID)
    registry.release(ID)
    registry.dispatched(ID)
    registry.add_temp_files(ID, ["x.png"])
    assert registry.job(ID) is None
    assert not registry.of(ALICE).owns(ID)
    assert registry.claim(MALLORY, ID).prompt_id != ID, "its id goes to no other tenant"
    assert registry.claim(ALICE, ID).prompt_id == ID


def test_retired_ids_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_RETIRED", 2)
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
            job = registry.apply(stored(StoredState.DISPATCHED, number=1.25))
            registry.start(job)
            registry.end(job, {} if told is None else take_told(job, told_by(told)))
            names.add(job.run_id)
            registry.release(ID)
    assert names == {f"{ID}/1.25/10000", f"{ID}/1.25/"}


def test_the_owner_is_told_by_the_client_id_that_comfyui_keeps() -> None:
    assert owner_of_client("alice.tab") == (ALICE, "tab")
    assert owner_of_client(f"alice.{UNNAMED_CLIENT}") == (ALICE, "")


@pytest.mark.parametrize("client_id", [None, "", "nobody", ".x", "Not A Tenant.x", 7, ["alice.tab"], {}, "alice"])
def test_what_the_gate_did_not_send_is_nobodys(client_id: object) -> None:
    assert owner_of_client(client_id) is None


def test_a_job_is_as_it_stands_in_the_database() -> None:
    registry = JobRegistry()
    jobs = registry.of(ALICE)
    job = registry.apply(stored(StoredState.WAITING, rank=-2.0, attempts='[{"at":1.0}]', subject="key"))
    assert (job.state, job.priority, job.subject, job.client_id) == (JobState.WAITING, 2.0, "key", "tab")
    assert (job.attempts, jobs.pending(), registry.active()) == (({"at": 1.0},), [ID], [job])
    assert registry.apply(stored(StoredState.RUNNING, started_at_s=5.0)) is job
    assert (job.state, job.started_at_s, jobs.running(), jobs.pending()) == (JobState.RUNNING, 5.0, [ID], [])
    assert registry.apply(stored(StoredState.FAILED, ended_at_s=9.0, gpu_s=4.0, error="node", failing_class="K")) is job
    assert (job.state, job.outcome, job.gpu_s, job.error, job.failing_class) == (
        JobState.ENDED,
        Outcome.FAILED,
        4.0,
        "node",
        "K",
    )
    assert (jobs.finished(), registry.active(), registry.ended()) == ([ID], [], [ID])


def test_a_job_that_is_tried_again_is_another_one_in_the_same_place() -> None:
    registry = JobRegistry()
    failed = registry.apply(stored(StoredState.FAILED, ended_at_s=9.0))
    again = registry.apply(stored(StoredState.WAITING))
    assert again is not failed
    assert (registry.of(ALICE).finished(), registry.of(ALICE).pending()) == ([], [ID])
    assert (registry.job(ID), registry.active(), registry.ended()) == (again, [again], [])


def test_it_tells_which_jobs_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = JobRegistry()
    monkeypatch.setattr("proxy.jobs.tally.MAX_CHANGED", 2)
    assert registry.tally.take_changed() is None, "all of them, to begin with"
    job = registry.apply(stored(StoredState.WAITING))
    assert (registry.tally.take_changed(), registry.tally.take_changed()) == ({ID}, set())
    registry.sent(job)
    registry.release(ID)
    assert registry.tally.take_changed() == {ID}
    for _ in range(3):
        registry.claim(ALICE, None)
    assert registry.tally.take_changed() is None, "too many to be told one by one"
    assert registry.tally.take_changed() == set()


def test_jobs_are_counted_as_they_change() -> None:
    registry = JobRegistry()
    job = registry.claim(ALICE, ID, cost_s=4.0)
    assert (len(registry.tally.given), registry.tally.waiting, registry.tally.cost_s(ALICE)) == (0, 0, 4.0)
    registry.apply(stored(StoredState.WAITING, cost_s=6.0))
    assert (len(registry.tally.given), registry.tally.waiting, registry.tally.cost_s(ALICE)) == (0, 1, 6.0)
    registry.sent(job)
    registry.dispatched(ID)
    registry.start(job)
    assert ([*registry.tally.given], registry.tally.waiting, registry.tally.cost_s(MALLORY)) == ([ID], 0, 0.0)
    registry.end(job)
    registry.end(job)
    assert (len(registry.tally.given), registry.tally.waiting, registry.tally.cost_s(ALICE)) == (0, 0, 0.0)


def test_forgets_history_but_no_job_that_lives() -> None:
    registry = JobRegistry()
    ended, living = registry.claim(ALICE, None), registry.claim(ALICE, None)
    registry.end(ended)
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
    assert registry.old_temp_files(ALICE, -1.0) == []
    registry.end(job)
    assert registry.old_temp_files(ALICE, 0.0) == []
    assert dict(registry.old_temp_files(ALICE, -1.0)).keys() == job.temp_files


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
    ("all in one millisecond", {"status": {"messages": [message("execution_start", 10), message("execution_success", 10)]}}, Outcome.COMPLETED, 0.001),
    ("a clock that ran back", {"status": {"messages": [message("execution_start", 10), message("x", 9)]}}, Outcome.COMPLETED, 0.0),
    ("no status", {}, Outcome.COMPLETED, 0.0),
    ("odd status", {"status": [1]}, Outcome.COMPLETED, 0.0),
    (
        "odd messages",
        {"status": {"messages": [1, [], ["execution_error"], ["a", 1], ["b", {"timestamp": "x"}], [None, {}]]}},
        Outcome.COMPLETED,
        0.0,
    ),
]  # fmt: skip


def told_by(entry: Any) -> Told:
    told = read_entry(entry)
    assert told is not None
    return told


@pytest.mark.parametrize(("entry", "outcome", "gpu_s"), [case[1:] for case in OUTCOMES], ids=[c[0] for c in OUTCOMES])
def test_history_tells_the_outcome(entry: Any, outcome: Outcome, gpu_s: float) -> None:
    job = Job(ID, ALICE)
    take_told(job, told_by(entry))
    assert (job.outcome, job.gpu_s) == (outcome, gpu_s)
    assert job.failing_class == ("KSampler" if "KSampler" in str(entry) else "")


def test_history_keeps_what_was_known_of_times() -> None:
    job = Job(ID, ALICE, started_at_s=10.0, ended_at_s=99.0)
    take_told(job, told_by({"status": {"messages": [message("execution_success", 12)]}}))
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
    told, job = read_entry(entry), Job(ID, ALICE)
    assert (told is None) is not isinstance(entry, dict)
    if told is not None:
        take_told(job, told)
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
