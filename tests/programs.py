"""Programs of the system that some tests use for real: without one they are skipped, loudly, and in CI they fail."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(*programs: str) -> pytest.MarkDecorator:
    """Marks a test, or a module as its `pytestmark`."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing) and not os.environ.get("CI"), reason=_not_tested(*missing))


def path_of(program: str) -> str:
    """Where a program is; for a fixture, or a test that finds out late what it needs."""
    found = shutil.which(program)
    if found is None and not os.environ.get("CI"):
        pytest.skip(_not_tested(program))
    assert found is not None, _not_tested(program)
    return found


def _not_tested(*programs: str) -> str:
    return f"NOT TESTED, not installed: {', '.join(programs)}"
