"""Random interleavings of faults, without real time: jobs end once by the rules, whatever dies when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.jobs import endings
from proxy.jobs.unsettled import UnsettledJobs
from tests.faults.simulation.loop import simulate
from tests.faults.simulation.story import Story

FAILED = {
    "a gate dies between the commit of a job and its answer": partial(Story, 507, gates=1),
    "ComfyUI and the gate die while a job is sent": partial(Story, 687, gates=1),
    "ComfyUI is restarted, and a job comes in before that is known": partial(Story, 40, gates=1, window=4),
    "a job goes past one that a gate had given which died": partial(Story, 228, gates=1, window=4),
    "a job begins at a ComfyUI that the gate does not watch": partial(Story, 651, gates=1, window=4),
    "a job is adopted, and nobody says so": partial(Story, 393, gates=1, is_odd=True, window=4),
    "the end of a job cannot be read, each time for another reason": partial(Story, 762, is_odd=True, window=4),
    "another gate takes up a job that is only to be tried": partial(Story, 773, gates=2, is_odd=True, window=4),
    "ComfyUI is restarted, and one of two gates hears of it first": partial(Story, 11, gates=2, window=4),
    "a job that was adopted is lost twice": partial(Story, 128, gates=2),
    "a job is taken over after those that stood before it": partial(Story, 497, gates=2, window=4),
    "a job in doubt is dropped, and ComfyUI has it": partial(Story, 439, gates=2, is_odd=True),
    "a job in doubt is lost as if it had been followed": partial(Story, 62, gates=2, is_odd=True),
    "a job that ComfyUI never had is taken for one that it lost": partial(Story, 565, gates=2, is_odd=True),
    "a job in doubt is adopted, and lost twice": partial(Story, 604, gates=2, is_odd=True),
    "a job that nobody was told of is given and deleted": partial(Story, 98, gates=2, is_odd=True, window=4),
    "another gate gives a job anew while ComfyUI is asked for it": partial(Story, 941, gates=2, is_odd=True, window=4),
    "a job begins and nobody sees it": partial(Story, 856, gates=2, is_odd=True),
    "the same, of another gate's": partial(Story, 278, gates=2, is_odd=True),
}
"""Stories in which something was wrong once."""


@pytest.mark.parametrize("window", [2, 4])
@pytest.mark.parametrize("gates", [1, 2])
@pytest.mark.parametrize("is_odd", [False, True], ids=["kills", "kills and odd answers"])
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_every_job_ends_once_in_every_story(seed: int, gates: int, is_odd: bool, window: int) -> None:
    _play(Story(seed, gates, is_odd, window))


@pytest.mark.parametrize("name", FAILED)
def test_every_job_ends_once_where_one_did_not(name: str) -> None:
    _play(FAILED[name]())


PLANTED: dict[str, tuple[Any, str, Any, Sequence[Callable[[], Story]], str]] = {
    "in disorder": (
        UnsettledJobs,
        "_is_unsettled",
        lambda self, job: False,
        [partial(Story, seed, gates=2, window=4) for seed in (11, 22, 37)],
        "was begun before",
    ),
    "for ever": (
        endings,
        "MAX_LOST_RUNS",
        99,
        [partial(Story, seed) for seed in (17, 22, 29, 39)],
        "was begun more than twice",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_that_is_planted_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one of these stories, whatever else changes."""
    where, what, fault, stories, sentence = PLANTED[name]
    monkeypatch.setattr(where, what, fault)
    with pytest.raises(AssertionError, match=sentence):
        _play_all([story() for story in stories])


def _play_all(stories: Sequence[Story]) -> None:
    for story in stories:
        _play(story)


def _play(story: Story) -> None:
    try:
        verdict = simulate(story.play, story.seed)
        assert not verdict.wrong, "\n".join(verdict.wrong)
    except AssertionError as error:
        raise AssertionError("\n".join([*story.told, str(error)])) from error
