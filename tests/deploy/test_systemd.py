"""The units: what they start exists, with the paths, ports and times of the configuration; systemd itself reads them where it is installed."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from proxy.app import DIALOGUES_END_S
from proxy.commands.check_comfyuis import about_comfyui
from proxy.commands.command_line import app
from proxy.config.units import parse_duration
from proxy.http.server import DRAIN_IDLE_S
from tests.deploy.files import DEPLOY, shipped
from tests.deploy.plainyaml import read_yaml
from tests.programs import needs

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
USER_UNIT = DEPLOY / "systemd" / "user" / "comfygate.service"
SOCKETS = [DEPLOY / "systemd" / "comfygate.socket", USER_UNIT.with_suffix(".socket")]
README = (DEPLOY / "systemd" / "README.md").read_text(encoding="utf-8")


def read(name: str) -> configparser.ConfigParser:
    return parsed(DEPLOY / "systemd" / f"{name}.service")


def parsed(file: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(file, encoding="utf-8")
    return unit


def test_there_are_three() -> None:
    assert [unit.stem for unit in UNITS] == ["cloudflared", "comfygate", "comfyui"]


@pytest.mark.parametrize("unit", [unit.stem for unit in UNITS])
def test_runs_hardened_as_a_user_of_its_own(unit: str) -> None:
    service = read(unit)["Service"]

    assert service["User"] == unit
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"
    assert service["ProtectHome"] == "yes"
    assert service["PrivateTmp"] == "yes"
    assert read(unit)["Install"]["WantedBy"] == "multi-user.target"
    assert f"useradd --system --home-dir {'/var/empty' if unit == 'cloudflared' else f'/var/lib/{unit}'}" in README


def test_the_gate_is_started_with_a_command_that_exists() -> None:
    program, command, option, file = read("comfygate")["Service"]["ExecStart"].split()

    assert program.endswith("/.venv/bin/comfygate")
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    assert option == "--config"
    assert f"comfygate init {Path(file).parent}\n" in README
    assert README.index(f"comfygate check --config {file}") < README.index("systemctl enable --now comfygate")
    assert f"keys create --tenant acme --config {file}" in README


def test_systemd_waits_for_the_gate_as_long_as_it_drains() -> None:
    service = read("comfygate")["Service"]

    assert service["Type"] == "notify"
    assert float(service["WatchdogSec"]) >= 10
    assert float(service["TimeoutStopSec"]) > shipped().server.shutdown_grace + DRAIN_IDLE_S + DIALOGUES_END_S
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert f'state_dir = "/var/lib/{service["StateDirectory"]}"' in README


def test_comfyui_listens_where_the_gate_looks_and_nowhere_else() -> None:
    command = read("comfyui")["Service"]["ExecStart"].split()
    upstream = urlsplit(shipped().upstream.url)

    assert command[command.index("--listen") + 1] == upstream.hostname
    assert command[command.index("--port") + 1] == str(upstream.port)
    # What `comfygate check` would warn of.
    assert about_comfyui({"system": {"argv": command, "comfyui_version": "0.33.0"}}) == []
    assert read("comfyui")["Service"]["IPAddressDeny"] == "any"
    assert f'upstream.directory = "{command[command.index("--base-directory") + 1]}"' in README


def test_the_tunnel_reads_the_configuration_beside_it() -> None:
    service = read("cloudflared")["Service"]
    tunnel = read_yaml(DEPLOY / "cloudflared" / "config.yml")
    words = (DEPLOY / "cloudflared" / "README.md").read_text(encoding="utf-8")
    file = service["ExecStart"].split()[service["ExecStart"].split().index("--config") + 1]

    assert f"cp -n deploy/cloudflared/config.yml {file}" in words
    assert float(service["TimeoutStopSec"]) > parse_duration(tunnel["grace-period"])


def test_a_users_unit_runs_what_the_readme_makes() -> None:
    unit = parsed(USER_UNIT)
    service = unit["Service"]

    assert (
        service["ExecStart"]
        == (
            "%h/comfygate/.venv/bin/comfygate serve --config %h/comfygate/gate/config.toml"  # `comfygate init gate` in the clone
        )
    )
    assert "User" not in service
    assert service["Type"] == "notify"
    assert float(service["TimeoutStopSec"]) > shipped().server.shutdown_grace + DRAIN_IDLE_S + DIALOGUES_END_S
    assert unit["Install"]["WantedBy"] == "default.target"
    both = (USER_UNIT.relative_to(DEPLOY.parent), SOCKETS[1].relative_to(DEPLOY.parent))
    assert f"cp {both[0]} {both[1]} ~/.config/systemd/user/\n" in README


@pytest.mark.parametrize("file", SOCKETS, ids=lambda file: file.parent.name)
def test_the_socket_is_where_the_gate_listens(file: Path) -> None:
    unit = parsed(file)
    listens = urlsplit(f"//{unit['Socket']['ListenStream']}")
    server = shipped().server

    assert (listens.hostname, listens.port) == (server.host, server.port)
    assert unit["Socket"]["FileDescriptorName"] == "public"
    assert "Accept" not in unit["Socket"], "each connection would get a gate of its own"
    assert int(unit["Socket"]["Backlog"]) >= server.max_connections
    assert unit["Install"]["WantedBy"] == "sockets.target"
    of_the_gate = parsed(file.with_suffix(".service"))["Unit"]
    assert file.name in of_the_gate["Wants"].split()
    assert file.name in of_the_gate["After"].split()


def test_the_socket_is_installed_beside_the_service() -> None:
    assert (
        f"cp /opt/comfygate/deploy/systemd/comfygate.service /opt/comfygate/deploy/systemd/{SOCKETS[0].name} " in README
    )


@needs("systemd-analyze")
@pytest.mark.parametrize(
    "unit", [*UNITS, USER_UNIT, *SOCKETS], ids=lambda unit: f"{unit.parent.name}-{unit.stem}{unit.suffix}"
)
def test_systemd_understands_every_line(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    for file in {unit, unit.with_suffix(".service")}:
        # The programs are not installed here; everything else of the unit is.
        text = re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        (tmp_path / file.name).write_text(text, encoding="utf-8")

    said = subprocess.run(
        [
            "systemd-analyze",
            *(["--user"] if unit.parent == USER_UNIT.parent else []),
            "verify",
            "--man=no",
            "--recursive-errors=no",
            str(copy),
        ],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},  # where a user's manager would live
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert (said.returncode, said.stdout + said.stderr) == (0, "")
