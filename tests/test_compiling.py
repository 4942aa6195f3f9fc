"""Which modules of the tests a process compiles first."""

from __future__ import annotations

from itertools import chain

import pytest

from tests.compiling import modules, share


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_each_module_is_in_the_share_of_one_process(count: int) -> None:
    found = modules(["tests"])
    shares = [share(found, number, count) for number in range(count)]
    assert __name__ in found
    assert sorted(chain(*shares)) == found
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_nothing_is_loaded_that_was_not_asked_for() -> None:
    asked = ["tests/test_compiling.py::test_a[x]", "tests/wire", "tests/wire/test_slow.py", "/elsewhere"]
    of_wire = [module for module in modules(["tests"]) if module.startswith("tests.wire.")]
    assert len(of_wire) > 1
    assert modules(asked) == [__name__, *of_wire]
