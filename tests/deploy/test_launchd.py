"""The property list of launchd: it starts what the README makes, with the times of the configuration."""

from __future__ import annotations

import plistlib

from typer.testing import CliRunner

from proxy.commands.command_line import app
from tests.deploy.files import DEPLOY, shipped

FILE = DEPLOY / "launchd" / "local.comfygate.plist"
WORDS = (DEPLOY / "launchd" / "README.md").read_text(encoding="utf-8")
AGENT = plistlib.loads(FILE.read_bytes())


def test_starts_a_command_that_exists() -> None:
    program, command, option, file = AGENT["ProgramArguments"]

    assert program == "HOME-FOLDER/comfygate/.venv/bin/comfygate"
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    assert (option, file) == ("--config", "HOME-FOLDER/comfygate/gate/config.toml")


def test_no_path_is_left_to_launchd_to_complete() -> None:
    texts = [*AGENT["ProgramArguments"], AGENT["WorkingDirectory"], AGENT["StandardErrorPath"]]

    assert not any("~" in text or "$" in text for text in texts)
    assert 'sed "s|HOME-FOLDER|$HOME|" deploy/launchd/local.comfygate.plist >' in WORDS


def test_is_started_again_when_it_fails_only() -> None:
    assert AGENT["KeepAlive"] == {"SuccessfulExit": False}
    assert AGENT["RunAtLoad"] is True


def test_has_the_time_that_it_drains() -> None:
    assert AGENT["ExitTimeOut"] > shipped().server.shutdown_grace
    assert AGENT["Umask"] == 0o077


def test_the_words_name_the_agent_and_check_before_they_load_it() -> None:
    assert FILE.stem == AGENT["Label"]
    assert f"launchctl bootout gui/$(id -u)/{AGENT['Label']}" in WORDS
    assert WORDS.index("comfygate check") < WORDS.index("launchctl bootstrap")
