"""deploy/windows.md names commands and ports that exist."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from typer.testing import CliRunner

from proxy.cli import app
from tests.deploy.files import DEPLOY, shipped

TEXT = (DEPLOY / "windows.md").read_text(encoding="utf-8")


def test_commands_exist() -> None:
    commands = re.findall(r"comfygate ((?:keys )?[a-z]+) [^\n]*--config", TEXT)

    assert commands == ["keys create", "check", "serve"]
    for command in commands:
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0


def test_ports_are_those_of_the_configuration() -> None:
    upstream = urlsplit(shipped().upstream.url)

    assert f"the host at `{upstream.hostname}` and the port at `{upstream.port}`" in TEXT


def test_settings_exist() -> None:
    config = shipped()

    assert hasattr(config.upstream, "directory")
    assert hasattr(config.log, "audit_file")
