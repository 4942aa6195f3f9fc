"""What a service starts with is read without the command line's parser, and as that reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.commands import serve
from proxy.commands.command_line import app
from proxy.commands.main import named_config


@pytest.mark.parametrize("option", ["--config", "-c"])
@pytest.mark.parametrize("file", ["gate/config.toml", "/etc/comfygate/config.toml", "a file.toml", "serve", "=.toml"])
def test_a_named_configuration_is_what_the_command_line_reads(
    option: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[Path] = []
    monkeypatch.setattr(serve, "run_gate", run.append)
    arguments = ["serve", option, file]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert run == [named_config(arguments)] == [Path(file)]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["serve"],
        ["serve", "--help"],
        ["serve", "--config"],
        ["serve", "--config", ""],
        ["serve", "--config", "--help"],
        ["serve", "--config=config.toml"],
        ["serve", "-cconfig.toml"],
        ["serve", "--config", "a.toml", "-c", "b.toml"],
        ["check", "--config", "config.toml"],
        ["--version", "serve", "--config"],
        ["serve", "config.toml", "--config"],
    ],
)
def test_everything_else_is_the_command_lines(arguments: list[str]) -> None:
    assert named_config(arguments) is None
