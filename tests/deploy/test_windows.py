"""deploy/windows.md names commands and ports that exist."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from urllib.parse import urlsplit

from typer.testing import CliRunner

from proxy.commands.command_line import app
from proxy.config.units import parse_duration
from tests.deploy.files import DEPLOY, shipped

TEXT = (DEPLOY / "windows.md").read_text(encoding="utf-8")
SERVICE = ElementTree.parse(DEPLOY / "windows" / "comfygate.xml").getroot()


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


def test_the_service_starts_what_the_page_installs() -> None:
    command, option, file = str(SERVICE.findtext("arguments")).split()

    assert SERVICE.findtext("executable") == r"C:\comfygate\.venv\Scripts\comfygate.exe"
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    assert (option, file) == ("--config", r"C:\ProgramData\comfygate\config.toml")
    assert rf"comfygate init {SERVICE.findtext('workingdirectory')}" in TEXT
    assert rf"mkdir {SERVICE.findtext('logpath')}" in TEXT


def test_the_service_restarts_drains_and_keeps_a_bounded_log() -> None:
    actions = [each.attrib["action"] for each in SERVICE.iter("onfailure")]

    assert actions == ["restart"]
    assert parse_duration(str(SERVICE.findtext("stoptimeout")).replace(" sec", "s")) > shipped().server.shutdown_grace
    log = SERVICE.find("log")
    assert log is not None
    assert log.attrib["mode"] == "roll-by-size"
    assert int(str(log.findtext("keepFiles"))) > 0


def test_accounts_are_named_in_every_language() -> None:
    for line in TEXT.splitlines():
        if line.startswith("icacls"):
            assert re.findall(r'/grant "([^:"]+):', line) == re.findall(r'/grant "(\*S-1-[0-9-]+):', line)
    assert SERVICE.findtext("serviceaccount/username") == r"NT AUTHORITY\LocalService"
