"""THREAT_MODEL.md: every threat names what stops it and tests that are there, or says openly that there is none yet."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.docs.refusals import ROOT

TEXT = (ROOT / "THREAT_MODEL.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| threat |")
]
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


@cache
def functions_of(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_there_are_rows() -> None:
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_row_names_tests_that_are_there(row: list[str]) -> None:
    threat, stopped_by, shown_by = row
    named = _TEST.findall(shown_by)

    assert len(threat) > 20
    assert len(stopped_by) > 10
    assert named or "no test yet" in shown_by
    assert [f"{file}::{test}" for file, test in named] == re.findall(r"`([^`]+)`", shown_by)
    for file, test in named:
        assert (ROOT / "tests" / file).is_file(), file
        assert test in functions_of(file), f"{file}::{test}"


def test_files_that_are_named_exist() -> None:
    for file in re.findall(r"`((?:policy|proxy)/[\w/]+\.py)`", TEXT):
        assert (ROOT / file).is_file(), file
