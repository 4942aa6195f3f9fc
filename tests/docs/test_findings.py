"""`findings/` keeps its form: readable, pinned, and listed. The scripts themselves install packages and are run by hand."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.docs.refusals import ROOT

FOLDER = ROOT / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
FIELDS = ("finding", "about", "guess", "concerns", "needs")
README = (FOLDER / "README.md").read_text(encoding="utf-8")
# An installing command with all its continued lines.
_INSTALLS = re.compile(r"(?:-m pip|pip|npm) (?:install|download)((?:[^\n]*\\\n)*[^\n]*)")
_PINNED = re.compile(r"(?:[a-z0-9_.\[\]-]+==|(?:@[a-z0-9-]+/)?[a-z0-9-]+@)[0-9][\w.]*")


def packages_of(arguments: str) -> list[str]:
    """The packages of an installing command: what is no option and no option's value, up to a redirection."""
    words = [word.strip('"') for word in re.split(r"[>;&|]", arguments)[0].replace("\\\n", " ").split()]
    values = {words[at + 1] for at, word in enumerate(words[:-1]) if word in ("-d", "-r", "--prefix")}
    return [
        word for word in words if not word.startswith("-") and word not in values and "$" not in word.split("==")[0]
    ]


def test_there_are_some() -> None:
    assert len(SCRIPTS) >= 8


def test_all_is_listed_and_nothing_else_is_there() -> None:
    listed = re.findall(r"^\| \[([\w.-]+\.sh)\]\(\1\) \| (.+) \|$", README, re.MULTILINE)
    assert listed == [(script.name, head_of(script)["finding"]) for script in SCRIPTS]
    assert {path.name for path in FOLDER.iterdir()} == {"README.md", *(script.name for script in SCRIPTS)}


def head_of(script: Path) -> dict[str, str]:
    lines = script.read_text(encoding="utf-8").splitlines()
    fields = [re.fullmatch(r"# ([a-z]+): (.{4,})", line) for line in lines[1 : 1 + len(FIELDS)]]
    return {field[1]: field[2] for field in fields if field is not None}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_form(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert tuple(head_of(script)) == FIELDS
    assert "\nset -euo pipefail\n" in text
    assert "\nfolder=$(mktemp -d)\ntrap 'rm -rf \"$folder\"' EXIT\n" in text
    assert "guess:" in text.partition("set -euo pipefail")[2]
    assert "seen:" in text
    assert "comfygate" not in text
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text), "loopback, and no address of a registry"
    assert len(text.splitlines()) <= 100


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_package_has_its_version(script: Path) -> None:
    commands = _INSTALLS.findall(script.read_text(encoding="utf-8"))
    assert commands
    pinned = [package for arguments in commands for package in packages_of(arguments)]
    assert all(_PINNED.fullmatch(package) or package == "pip==$1" for package in pinned), pinned
    assert any(_PINNED.fullmatch(package) for package in pinned)


@pytest.mark.parametrize(
    ("arguments", "is_pinned"),
    [
        (" -qqq limits==5.8.0", True),
        (" -qqq limits", False),
        (" limits>=5", False),
        (" ws@8.23.0", True),
        (" ws", False),
    ],
)
def test_a_package_without_a_version_is_seen(arguments: str, is_pinned: bool) -> None:
    packages = packages_of(arguments)
    assert packages
    assert all(_PINNED.fullmatch(package) for package in packages) is is_pinned
