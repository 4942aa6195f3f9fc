"""A job that was stopped for its time: told as a failure, by every way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rules.events import EventRules
from policy.rules.overtime import KIND, mark_entry, mark_row
from tests.policy.tenants import Jobs, uuid_of

STOPPED, OTHER = uuid_of(1), uuid_of(2)
JOBS = Jobs(ended=[STOPPED, OTHER], stopped={STOPPED: 60})


def interrupted(prompt_id: str) -> dict[str, Any]:
    return {"prompt_id": prompt_id, "node_id": "2", "node_type": "Chooser", "executed": [], "timestamp": 5}


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
def test_its_event_is_a_failure(separators: tuple[str, str]) -> None:
    rules = EventRules(Namespace(TenantId("alice")), "tab")
    frames = [
        json.dumps({"type": "execution_interrupted", "data": interrupted(prompt_id)}, separators=separators)
        for prompt_id in (STOPPED, OTHER)
    ]
    events = [rules.text(frame, JOBS) for frame in frames]
    assert [event and (event.kind, event.prompt_id) for event in events] == [
        ("execution_error", STOPPED),
        ("execution_interrupted", OTHER),
    ]
    assert events[0] is not None
    told = json.loads(events[0].text)
    assert told["type"] == "execution_error"
    assert interrupted(STOPPED).items() <= told["data"].items()
    assert told["data"]["exception_type"] == KIND
    assert "60 s" in told["data"]["exception_message"]
    assert (told["data"]["traceback"], told["data"]["current_inputs"]) == ([], {})


def test_its_history_is_a_failure() -> None:
    start = ["execution_start", {"prompt_id": STOPPED}]
    status: dict[str, Any] = {
        "status_str": "error",
        "completed": False,
        "messages": [start, ["execution_interrupted", interrupted(STOPPED)], "odd"],
    }
    value = {STOPPED: {"outputs": {}, "status": status}}
    marked = mark_entry(value, STOPPED, JOBS)[STOPPED]["status"]
    assert [message[0] for message in marked["messages"]] == ["execution_start", "execution_error", "o"]
    assert marked["messages"][1][1]["exception_type"] == KIND
    assert status["messages"][1][0] == "execution_interrupted", "what ComfyUI said is left as it is"
    untouched = {OTHER: {"status": status}}
    assert mark_entry(untouched, OTHER, JOBS) is untouched


@pytest.mark.parametrize("value", [None, [], {}, {STOPPED: None}, {STOPPED: {}}, {STOPPED: {"status": "x"}}])
def test_what_is_no_entry_is_left(value: Any) -> None:
    assert mark_entry(value, STOPPED, JOBS) is value


def test_messages_of_no_known_shape_are_none() -> None:
    marked = mark_entry({STOPPED: {"status": {"messages": 5}}}, STOPPED, JOBS)
    assert marked[STOPPED]["status"] == {"status_str": "error", "messages": []}


def test_its_row_is_a_failure() -> None:
    row = {"id": STOPPED, "status": "cancelled"}
    marked = mark_row(row, STOPPED, JOBS)
    assert marked["status"] == "failed"
    assert marked["execution_error"]["exception_type"] == KIND
    whole = row | {"execution_status": {"messages": [["execution_interrupted", interrupted(STOPPED)]]}}
    assert mark_row(whole, STOPPED, JOBS)["execution_status"]["messages"][0][0] == "execution_error"
    for value in (None, row | {"status": "completed"}):
        assert mark_row(value, STOPPED, JOBS) is value
    assert mark_row(row, OTHER, JOBS) is row
