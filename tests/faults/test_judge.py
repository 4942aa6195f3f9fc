"""The judge of faults is right about rounds that are made up: what it passes, and each wrong that it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.faults.judge import Case, Submission, Told, judge
from tests.faults.recording import Line

FIRST, SECOND, THIRD = 11, 12, 13
"""Lives of a ComfyUI."""
DEATHS = {FIRST: 10.0, SECOND: 20.0}


def run(name: str, life: int, begin_s: float, end_s: float | None = None, prompt_id: str = "") -> list[Line]:
    prompt_id = prompt_id or f"id-{name}"
    end = [] if end_s is None else [Line("end", prompt_id, name, life, end_s)]
    return [Line("begin", prompt_id, name, life, begin_s), *end]


def sent(name: str, *, is_answered: bool = True) -> Submission:
    return Submission("alice", name, f"id-{name}" if is_answered else None, [200 if is_answered else 0])


def case(
    submissions: Sequence[Submission],
    lines: Sequence[Line],
    history: Mapping[str, str],
    *queued: str,
    seen: Mapping[int, set[str]] | None = None,
    passes: int = 0,
    unseen: Mapping[int, set[str]] | None = None,
    doubted: set[str] | None = None,
) -> Case:
    told = {"alice": Told(history, queued)}
    return Case(
        submissions, lines, DEATHS, told, passes=passes, seen=seen or {}, unseen=unseen or {}, doubted=doubted or ()
    )


def knowing(lines: Sequence[Line], held: set[str], began: set[str]) -> Case:
    """Of a job that failed, with what is known of ComfyUI's queue when it was killed, both times alike."""
    told = {"alice": Told({"id-a": "error"})}
    return Case([sent("a")], lines, DEATHS, told, held={FIRST: held, SECOND: held}, began={FIRST: began, SECOND: began})


DONE = {"id-a": "success"}
PASSED = (
    [sent("a"), sent("b"), sent("c")],
    [*run("b", FIRST, 1, 2), *run("c", SECOND, 1.5, 2), *run("a", FIRST, 2, 3)],
    DONE | {"id-b": "success", "id-c": "success"},
)
"""Two are begun before one that was submitted first."""
RIGHT = {
    "ran once": case([sent("a")], run("a", FIRST, 1, 2), DONE),
    "cut off, and again": case([sent("a")], [*run("a", FIRST, 9), *run("a", SECOND, 12, 13)], DONE),
    "ended unseen, and again": case([sent("a")], [*run("a", FIRST, 9, 9.9), *run("a", SECOND, 12, 13)], DONE),
    "stood first twice": knowing([], {"id-a"}, {"id-a"}),
    "another was seen to end, and this one not": case(
        [sent("a")], [*run("a", FIRST, 9, 9.9), *run("a", SECOND, 12, 13)], DONE, seen={FIRST: {"id-b"}}
    ),
    "twice cut off": case([sent("a")], [*run("a", FIRST, 9), *run("a", SECOND, 19)], {"id-a": "error"}),
    "begun unseen behind one that ended unseen": case(
        [sent("b"), sent("a")],
        [
            *(*run("b", FIRST, 9, 9.9), *run("a", FIRST, 9.95)),
            *(*run("b", SECOND, 12, 13), *run("a", SECOND, 19)),
            *run("a", THIRD, 22, 23),
        ],
        DONE | {"id-b": "success"},
    ),
    "not answered, and not run": case([sent("a", is_answered=False)], [], {}),
    "not answered, and run": case([sent("a", is_answered=False)], run("a", FIRST, 1, 2), DONE),
    "not answered, and begun late": case(
        [sent("a", is_answered=False), sent("b")],
        [*run("b", FIRST, 1, 2), *run("a", FIRST, 2, 3)],
        DONE | {"id-b": "success"},
    ),
    "a third time, of which one was in doubt": case(
        [sent("a")], [*run("a", FIRST, 9.95), *run("a", SECOND, 19), *run("a", THIRD, 22, 23)], DONE, doubted={"id-a"}
    ),
    "begun unseen": case(
        [sent("a")],
        [*run("a", FIRST, 9), *run("a", SECOND, 19), *run("a", THIRD, 22, 23)],
        DONE,
        unseen={FIRST: {"id-a"}},
    ),
    "passed by as many as may": case(*PASSED, passes=2),
    "in order": case(
        [sent("a"), sent("b")], [*run("a", FIRST, 1, 2), *run("b", FIRST, 2, 3)], DONE | {"id-b": "success"}
    ),
}
WRONG = {
    "lost": case([sent("a")], run("a", FIRST, 1, 2), {}),
    "never ended": case([sent("a")], run("a", FIRST, 9), DONE),
    "failed at once": case([sent("a")], run("a", FIRST, 9), {"id-a": "error"}),
    "never run": case([sent("a")], [], DONE),
    "ended and seen, and again": case(
        [sent("a")], [*run("a", FIRST, 9, 9.9), *run("a", SECOND, 12, 13)], DONE, seen={FIRST: {"id-a"}}
    ),
    "a third time, behind one that was seen to end": case(
        [sent("b"), sent("a")],
        [
            *(*run("b", FIRST, 9, 9.9), *run("a", FIRST, 9.95)),
            *(*run("b", SECOND, 12, 13), *run("a", SECOND, 19)),
            *run("a", THIRD, 22, 23),
        ],
        DONE | {"id-b": "success"},
        seen={FIRST: {"id-b"}},
    ),
    "failed though it stood behind others": knowing([], {"id-a", "id-b"}, {"id-b"}),
    "failed though it began once": knowing(run("a", FIRST, 9), {"id-a"}, set()),
    "doubled": case([sent("a")], [*run("a", FIRST, 1, 2), *run("a", FIRST, 3, 4)], DONE),
    "doubled in another life": case([sent("a")], [*run("a", FIRST, 1, 2), *run("a", SECOND, 12, 13)], DONE),
    "doubled, never answered": case(
        [sent("a", is_answered=False)], [*run("a", FIRST, 1, 2), *run("a", FIRST, 3, 4, "other")], DONE
    ),
    "under two ids": case([sent("a")], [*run("a", FIRST, 9), *run("a", SECOND, 12, 13, "other")], DONE),
    "a third time": case(
        [sent("a")], [*run("a", FIRST, 9), *run("a", SECOND, 19), *run("a", THIRD, 22, 23)], {"id-a": "success"}
    ),
    "a third time, though the end before it had been seen": case(
        [sent("b"), sent("a")],
        [*run("b", FIRST, 8, 8.9), *run("a", FIRST, 9.95), *run("a", SECOND, 19), *run("a", THIRD, 22, 23)],
        DONE | {"id-b": "success"},
    ),
    "a third time, though it was known to have begun": case(
        [sent("b"), sent("a")],
        [*run("b", FIRST, 9, 9.9), *run("a", FIRST, 9.95), *run("a", SECOND, 19), *run("a", THIRD, 22, 23)],
        DONE | {"id-b": "success"},
    ),
    "out of order": case(
        [sent("a"), sent("b")], [*run("b", FIRST, 1, 2), *run("a", FIRST, 2, 3)], DONE | {"id-b": "success"}
    ),
    "out of order around one that was not answered": case(
        [sent("a"), sent("c", is_answered=False), sent("b")],
        [*run("b", FIRST, 1, 2), *run("a", FIRST, 2, 3), *run("c", FIRST, 3, 4)],
        DONE | {"id-b": "success", "id-c": "success"},
    ),
    "not answered, and begun early": case(
        [sent("b"), sent("a", is_answered=False)],
        [*run("a", FIRST, 1, 2), *run("b", FIRST, 2, 3)],
        DONE | {"id-b": "success"},
    ),
    "passed by more than may": case(*PASSED, passes=1),
    "a stranger": case([sent("a")], run("a", FIRST, 1, 2), DONE | {"id-x": "success"}),
    "left": case([sent("a")], run("a", FIRST, 1, 2), DONE, "id-a"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_the_rules_permit_is_right(name: str) -> None:
    assert judge(RIGHT[name]).wrong == []


@pytest.mark.parametrize("name", WRONG)
def test_what_they_do_not_permit_is_found(name: str) -> None:
    assert judge(WRONG[name]).wrong


def test_what_happened_is_counted() -> None:
    twice = judge(RIGHT["twice cut off"]).counts
    assert (twice["jobs"], twice["retried"], twice["failed by rule"]) == (1, 1, 1)
    assert judge(WRONG["lost"]).counts["lost"] == 1
    assert judge(WRONG["doubled"]).counts["doubled"] == 1
