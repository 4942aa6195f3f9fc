"""Random interleavings of faults, without real time: jobs end once by the rules, whatever dies when."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.simulation.loop import simulate
from tests.faults.simulation.story import Story


@pytest.mark.parametrize("gates", [1, 2])
@pytest.mark.parametrize("is_odd", [False, True], ids=["kills", "kills and odd answers"])
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_every_job_ends_once_in_every_story(seed: int, gates: int, is_odd: bool) -> None:
    story = Story(seed, gates, is_odd)
    try:
        verdict = simulate(story.play, seed)
        assert not verdict.wrong, "\n".join(verdict.wrong)
    except AssertionError as error:
        raise AssertionError("\n".join([*story.told, str(error)])) from error
