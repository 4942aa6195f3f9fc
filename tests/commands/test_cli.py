"""The command line as a whole: what there is, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.commands.command_line import app
from proxy.commands.exits import Exit
from tests.commands.cli import comfygate

COMMANDS = ("serve", "check", "demo", "keys", "policy", "audit", "connect")


def test_help_names_every_command() -> None:
    said = comfygate("--help")
    assert said.code == 0
    for name in COMMANDS:
        assert f" {name} " in said.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    said = comfygate(name, "--help")
    assert said.code == 0
    assert "Usage" in said.out


def test_no_command_is_help() -> None:
    said = comfygate()
    assert "Usage" in said.out + said.err


@pytest.mark.parametrize("arguments", [("--version",), ("-V",)])
def test_the_version(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert (result.exit_code, result.stdout) == (0, f"comfygate {version('comfygate')}\n")


def test_help_is_asked_for_as_people_do() -> None:
    for arguments in (["-h"], ["keys", "-h"], ["why", "-h"]):
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, "Usage" in result.stdout) == (0, True)


def test_serve_without_a_file_says_how_to_get_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--config", str(tmp_path / "none.toml")])
    assert result.exit_code == 1
    assert "comfygate init" in result.stderr


@pytest.mark.parametrize("arguments", [("nonsense",), ("serve", "--nonsense"), ("serve", "extra"), ("policy", "learn")])
def test_a_wrong_command_line_is_exit_2(arguments: tuple[str, ...]) -> None:
    said = comfygate(*arguments)
    assert said.code == 2
    assert said.out == ""


def test_exit_codes_are_fixed() -> None:
    assert {code.name: code.value for code in Exit} == {"OK": 0, "MISTAKE": 1, "PORT_IN_USE": 3, "UNENDED": 4}


def test_a_mistake_ends_the_process_with_words_and_no_stack(tmp_path: Path) -> None:
    command = (
        sys.executable,
        "-c",
        "from proxy.commands.main import main; main()",
        "check",
        "-c",
        str(tmp_path / "missing.toml"),
    )
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "missing.toml" in ended.stderr
    assert "Traceback" not in ended.stderr
