"""`comfygate init`: a configuration to begin with, where there is none."""

from __future__ import annotations

import stat
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy.commands.command_line import app
from proxy.config import load_config

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = (ROOT / "config.toml").read_bytes()
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes and links")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["init", *words])


def test_writes_the_shipped_file_into_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    result = run()

    assert result.exit_code == 0
    assert (tmp_path / "config.toml").read_bytes() == SHIPPED
    assert load_config(tmp_path / "config.toml", {}).tenants.keys() == {"acme"}
    assert "What to do next:" in result.stdout
    commands = [line.strip().split("  ")[0] for line in result.stdout.splitlines() if line.startswith("  comfygate")]
    for command in commands[:2]:
        assert CliRunner().invoke(app, command.split()[1:]).exit_code == 0
    assert commands == ["comfygate keys create --tenant acme", "comfygate check", "comfygate serve"]


def test_makes_the_folder_that_is_named(tmp_path: Path) -> None:
    result = run(str(tmp_path / "new" / "gate"))

    assert (result.exit_code, f"next, in {tmp_path / 'new' / 'gate'}:" in result.stdout) == (0, True)
    assert (tmp_path / "new" / "gate" / "config.toml").read_bytes() == SHIPPED


def test_never_overwrites(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[tenants.mine]\n")

    result = run(str(tmp_path))

    assert (result.exit_code, file.read_text()) == (1, "[tenants.mine]\n")
    assert "is there already and stays as it is" in result.stderr


@posix
def test_is_the_owners_alone_and_follows_no_link(tmp_path: Path) -> None:
    assert run(str(tmp_path / "gate")).exit_code == 0
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "config.toml").symlink_to(tmp_path / "elsewhere.toml")

    assert run(str(tmp_path / "linked")).exit_code == 1

    assert stat.S_IMODE((tmp_path / "gate").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "gate" / "config.toml").stat().st_mode) == 0o600
    assert not (tmp_path / "elsewhere.toml").exists()


@pytest.mark.parametrize("folder", ["file", "file/gate"])
def test_says_why_it_cannot(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")

    result = run(str(tmp_path / folder))

    assert result.exit_code == 1
    assert "is not a folder" in result.stderr or "cannot be written: Not a directory" in result.stderr


def test_a_wheel_has_the_file_where_it_is_looked_for(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))

    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("proxy/shipped/config.toml") == SHIPPED
        assert not any(name.startswith(("tests/", "bench/")) for name in archive.namelist())
