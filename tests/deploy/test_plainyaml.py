"""The reader of YAML in these tests reads every file of deploy/, and raises on what it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, ROOT
from tests.deploy.plainyaml import read_yaml

WITH_ANCHORS = {DEPLOY / "docker" / "several" / "compose.yml"}
"""Read whole in tests/deploy/test_several_docker.py."""
FILES = sorted(set(DEPLOY.rglob("*.yml")) - WITH_ANCHORS)


def test_there_are_files() -> None:
    assert {file.name for file in FILES} >= {"config.yml", "compose.yml", "prometheus.yml", "rules.yml"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_is_read(file: Path) -> None:
    assert read_yaml(file)


@pytest.mark.parametrize(
    "text",
    [
        "a: *other",
        "a: &name b",
        "a: !tag b",
        "a: >\n  folded",
        "a: {b: c}",
        "a: [b, [c]]",
        "a: yes",
        "a: b: c",
        "a: 1\na: 2",
        "a:\n\t- b",
        "- a\nb: c",
        "a: %b",
    ],
)
def test_what_is_not_plain_raises(tmp_path: Path, text: str) -> None:
    file = tmp_path / "file.yml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ValueError, match=r"."):
        read_yaml(file)
