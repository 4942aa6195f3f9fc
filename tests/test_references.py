"""Comments name the test that holds what they say: each of these is there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from tests.test_layout import ROOT, SHIPPED, name_of

_REFERENCE = re.compile(r"((?:\w+/)*test_\w+\.py)(?:::(\w+))?")


@cache
def files_of_tests() -> list[tuple[str, str]]:
    """Each file of tests: its path, and what it says."""
    return [(file.as_posix(), file.read_text(encoding="utf-8")) for file in (ROOT / "tests").rglob("test_*.py")]


def is_there(path: str, name: str) -> bool:
    """name: of a test, or empty for the file."""
    defined = re.compile(rf"^(?:(?:async )?def )?{name}\b", re.MULTILINE)
    return any(defined.search(text) for file, text in files_of_tests() if file.endswith(f"/{path}"))


def lost_references_of(file: Path) -> list[tuple[str, str]]:
    return [named for named in _REFERENCE.findall(file.read_text(encoding="utf-8")) if not is_there(*named)]


def test_named_tests_exist() -> None:
    lost = {name_of(file): names for file in SHIPPED if (names := lost_references_of(file))}
    assert not lost
