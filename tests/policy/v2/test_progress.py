"""How far a job is, from what ComfyUI says."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from policy.v2.progress import Plan, Progress, Tracker, finished

GRAPH = {
    "1": {"class_type": "Loader", "inputs": {"name": "x"}},
    "2": {"class_type": "Sampler", "inputs": {"model": ["1", 0], "steps": 20}},
    "3": {"class_type": "Save", "inputs": {"images": ["2", 0], "prefix": "x"}},
    "4": {"class_type": "Preview", "inputs": {"images": ["2", 0]}},
    "5": {"class_type": "Unused", "inputs": {"images": ["1", 0]}},
}


def plan(*outputs: str) -> Plan:
    return Plan(GRAPH, outputs or ("3", "4"))


def states(**nodes: tuple[str, Any, Any]) -> str:
    """A progress_state event: by node (n1, n2…) its state, value and max."""
    told = {name[1:]: {"state": state, "value": value, "max": most} for name, (state, value, most) in nodes.items()}
    return orjson.dumps({"type": "progress_state", "data": {"prompt_id": "p", "nodes": told}}).decode()


def told(tracker: Tracker, of: Plan | None = None) -> Progress:
    progress = tracker.progress(of or plan())
    assert progress is not None
    return progress


def test_nodes_that_lead_to_an_output_that_runs_count() -> None:
    assert set(plan().classes) == {"1", "2", "3", "4"}
    assert plan("3").classes == {"1": "Loader", "2": "Sampler", "3": "Save"}
    assert plan("9").classes == {}


@pytest.mark.parametrize("graph", [None, [], {}])
def test_a_workflow_that_is_none_has_no_nodes(graph: Any) -> None:
    assert Plan(graph, ["1"]).classes == {}


def test_nodes_without_inputs_link_to_nothing() -> None:
    assert Plan({"1": {"class_type": "Save", "inputs": []}}, ["1"]).classes == {"1": "Save"}


def test_what_is_not_known_is_not_told() -> None:
    assert Tracker().progress(Plan({}, ())) is None
    assert finished(Plan({}, ())) is None


def test_a_job_that_begins_has_done_nothing() -> None:
    assert told(Tracker()) == Progress(0.0, 0, 4)


def test_steps_of_the_node_that_runs_are_a_share() -> None:
    tracker = Tracker()
    tracker.executing("2", "2")
    tracker.keep("progress_state", states(n1=("finished", 1, 1), n2=("running", 5, 20)))
    assert told(tracker) == Progress(0.3125, 1, 4, "2", "Sampler", 5, 20)
    assert tracker.node == "2"


def test_a_frame_is_read_when_somebody_asks_and_the_newest_alone() -> None:
    tracker = Tracker()
    tracker.keep("progress_state", "not read")
    tracker.keep("progress_state", states(n1=("finished", 1, 1)))
    tracker.keep("progress", "never read")
    assert told(tracker).done == 1
    assert told(tracker).done == 1


def test_what_the_cache_answers_is_done_and_what_only_that_needs() -> None:
    tracker = Tracker()
    tracker.cached(frozenset({"2"}))
    assert told(tracker).done == 2
    tracker.executed("3")
    assert told(tracker) == Progress(0.75, 3, 4)


def test_nodes_that_a_node_makes_count_as_nothing_and_stand_for_it() -> None:
    tracker = Tracker()
    tracker.executing("2.0.1", "2")
    tracker.keep("progress_state", states(**{"n2.0.1": ("running", 3, 9), "n2": ("running", 0, 1)}))
    assert told(tracker) == Progress(0.0, 0, 4, "2", "Sampler", 3, 9)


def test_the_end_names_no_node() -> None:
    tracker = Tracker()
    tracker.executing("3")
    assert told(tracker).node_class == "Save"
    tracker.executing(None)
    assert told(tracker).node is None
    assert finished(plan()) == Progress(1.0, 4, 4)


def test_it_never_falls_also_when_the_job_is_tried_again() -> None:
    tracker = Tracker()
    tracker.keep("progress_state", states(n1=("finished", 1, 1), n2=("running", 10, 20)))
    assert told(tracker).value == 0.375
    tracker.keep("progress_state", states(n1=("finished", 1, 1), n2=("running", 1, 20)))
    assert told(tracker).value == 0.375
    tracker.begin()
    assert told(tracker) == Progress(0.375, 0, 4)
    tracker.keep("progress_state", states(n1=("finished", 1, 1), n2=("finished", 20, 20)))
    assert told(tracker).value == 0.5


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "[]",
        '{"data": 1}',
        '{"data": {"nodes": []}}',
        '{"data": {"nodes": {"1": 7}}}',
        states(n1=("running", "x", None)),
        states(n1=("running", 5, -10)),
        '{"data": {"nodes": {"1": {"state": "running", "value": NaN, "max": Infinity}}}}',
    ],
)
def test_nonsense_is_no_progress(frame: str) -> None:
    tracker = Tracker()
    tracker.executing("1")
    tracker.keep("progress_state", frame)
    assert told(tracker) == Progress(0.0, 0, 4, "1", "Loader")


def test_a_node_that_counts_oddly_is_done_at_most() -> None:
    tracker = Tracker()
    tracker.executing("1")
    tracker.keep("progress_state", states(n1=("running", -5, 10)))
    assert told(tracker) == Progress(0.0, 0, 4, "1", "Loader", 0, 10)
    tracker.keep("progress_state", states(n1=("running", 30, 10)))
    assert told(tracker) == Progress(0.25, 0, 4, "1", "Loader", 10, 10)


def test_in_the_contracts_words() -> None:
    assert Progress(0.5, 1, 2, "2", "Sampler", 3, 6).to_client() == {
        "value": 0.5,
        "nodes_done": 1,
        "nodes_total": 2,
        "current_node": "2",
        "current_node_class": "Sampler",
        "step": 3,
        "steps": 6,
        "message": None,
    }
