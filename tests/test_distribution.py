"""What runs in one process when the tests run in several."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from tests import distribution
from tests.distribution import HEAVY, rank, scope_of

ROOT = Path(__file__).parents[1]


def test_a_file_stays_together_and_so_does_a_group_of_heavy_ones() -> None:
    assert scope_of("tests/wire/test_slow.py::test_a[x::y]") == "tests/wire/test_slow.py"
    assert (
        scope_of("tests/browser/test_pages.py::test_a") == scope_of("tests/browser/test_form.py::test_b") == "browsers"
    )
    assert scope_of("tests/setup/test_install.py::test_a") == "installations"


def test_what_takes_longest_begins_first() -> None:
    scopes = ["tests/policy/test_call.py", "tests/faults/test_kills.py", *HEAVY, "tests/policy/test_judge.py"]
    assert sorted(scopes, key=rank) == [*HEAVY, scopes[1], scopes[0], scopes[-1]]


@pytest.mark.parametrize("place", [*chain(*HEAVY.values()), *distribution._LONG])
def test_what_is_named_is_there(place: str) -> None:
    assert (ROOT / place).exists()
