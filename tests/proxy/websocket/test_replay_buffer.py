"""What a client that lost its connection is told when it comes back."""

from __future__ import annotations

import pytest

from proxy.websocket.replay_buffer import MAX_STATE_BYTES, ReplayBuffer

BEGIN = [("execution_start", "start"), ("executing", "node 1")]


def kept(*events: tuple[str, str]) -> list[str]:
    buffer = ReplayBuffer()
    for kind, text in (*BEGIN, *events):
        buffer.keep(kind, text)
    return buffer.texts()[len(BEGIN) :]


@pytest.mark.parametrize("count", [1, 2, 500])
def test_of_states_that_come_by_turns_the_newest_of_each_kind_is_kept(count: int) -> None:
    steps = [event for step in range(count) for event in (("progress_state", f"s{step}"), ("progress", f"p{step}"))]
    assert kept(*steps) == [f"s{count - 1}", f"p{count - 1}"]


def test_of_one_kind_alone_the_newest_is_kept() -> None:
    assert kept(("progress", "a"), ("progress", "b"), ("progress", "c")) == ["c"]
    assert kept(("progress_state", "a"), ("progress", "b"), ("progress", "c")) == ["a", "c"]


def test_what_happened_between_stays_in_its_order() -> None:
    events = [("progress", "a"), ("executed", "done"), ("progress", "b"), ("executing", "node 2"), ("progress", "c")]
    assert kept(*events) == ["a", "done", "b", "node 2", "c"]


def test_a_state_that_is_too_large_is_not_kept() -> None:
    assert kept(("progress", "a"), ("progress", "x" * (MAX_STATE_BYTES + 1))) == ["a"]
    assert len(kept(("progress", "x" * MAX_STATE_BYTES))) == 1
