"""What runs in one process when the tests run in several."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import distribution
from tests.distribution import HEAVY, scope_of

ROOT = Path(__file__).parents[1]


def test_a_file_stays_together_and_the_heavy_ones_are_one() -> None:
    assert scope_of("tests/wire/test_slow.py::test_a[x::y]") == "tests/wire/test_slow.py"
    assert scope_of("tests/browser/test_pages.py::test_a") == scope_of("tests/setup/test_install.py::test_b") == HEAVY


@pytest.mark.parametrize("place", distribution._HEAVY)
def test_what_is_heavy_is_there(place: str) -> None:
    assert (ROOT / place).exists()
