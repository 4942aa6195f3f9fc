"""Comments name the test that holds what they say: each of these is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_layout import ROOT, SHIPPED

_REFERENCE = re.compile(r"((?:\w+/)*test_\w+\.py)(?:::(\w+))?")
TESTS = [*(ROOT / "tests").rglob("test_*.py")]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(ROOT)))
def test_named_tests_exist(file: Path) -> None:
    for path, name in _REFERENCE.findall(file.read_text(encoding="utf-8")):
        meant = [test for test in TESTS if test.as_posix().endswith(f"/{path}")]
        assert meant, path
        defined = rf"^(?:(?:async )?def )?{name}\b"
        assert any(re.search(defined, test.read_text(encoding="utf-8"), re.MULTILINE) for test in meant), (
            f"{path}::{name}"
        )
