"""Events that are made again from a history entry."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policy.rules.recall import events_of
from tests.policy.tenants import uuid_of

ID = uuid_of(1)


def test_a_job_is_told_in_the_order_in_which_it_ran() -> None:
    messages = [
        ["execution_start", {"prompt_id": ID, "timestamp": 1}],
        ["execution_cached", {"nodes": ["1"], "prompt_id": ID}],
        ["execution_success", {"prompt_id": ID}],
        "odd",
        [5, {}],
        ["x", None],
        ["too", {}, "long"],
    ]
    entry = {"status": {"messages": messages}, "outputs": {"2": {"images": []}}}
    told = events_of(entry, ID)
    events = [json.loads(event.text) for event in told]
    kinds = ["execution_start", "execution_cached", "executed", "execution_success", "executing"]
    assert [event["type"] for event in events] == kinds
    assert [(event.kind, event.prompt_id, event.data) for event in told] == [
        (event["type"], ID, event["data"]) for event in events
    ]
    assert {event["data"]["prompt_id"] for event in events} == {ID}
    assert events[2]["data"] == {"node": "2", "display_node": "2", "output": {"images": []}, "prompt_id": ID}
    assert events[-1]["data"] == {"node": None, "prompt_id": ID}


@pytest.mark.parametrize("entry", [None, [], "x"])
def test_no_entry_tells_nothing(entry: Any) -> None:
    assert events_of(entry, ID) == []


@pytest.mark.parametrize("entry", [{}, {"status": "x", "outputs": []}, {"status": {"messages": 5}}])
def test_an_entry_without_a_story_ends(entry: Any) -> None:
    (event,) = events_of(entry, ID)
    assert json.loads(event.text) == {"type": "executing", "data": {"node": None, "prompt_id": ID}}
