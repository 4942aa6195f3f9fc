"""`comfygate audit`: which lines are printed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from proxy.cli import app


def run(file: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["audit", "--config", str(file), *options])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file, now = tmp_path / "config.toml", datetime.now(UTC)
    file.write_text('[log]\naudit_file = "audit.jsonl"\naudit_keep = 2\n')
    old, new = ((now - timedelta(days=days)).isoformat() for days in (3, 0.5))
    lines = [
        ("1", old, "job", "alice"),
        ("2", old, "job", "bob"),
        ("3", new, "login", "alice"),
        ("4", new, "job", "bob"),
    ]
    lines.append(("5", new, "config", ""))
    written = [
        orjson.dumps({"n": n, "time": time, "event": event, "tenant": tenant}) for n, time, event, tenant in lines
    ]
    (tmp_path / "audit.jsonl.1").write_bytes(b"\n".join(written[:2]) + b"\n")
    (tmp_path / "audit.jsonl").write_bytes(b"\n".join(written[2:]) + b'\n{"torn')
    return file


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "12345"),
        (("--tenant", "alice"), "13"),
        (("--tenant", "alice", "--since", "1d"), "3"),
        (("--since", "1d"), "345"),
        (("--event", "job"), "124"),
        (("--tenant", "nobody"), ""),
    ],
)
def test_lines_oldest_first(file: Path, options: tuple[str, ...], expected: str) -> None:
    result = run(file, *options)
    assert result.exit_code == 0, result.output
    assert "".join(orjson.loads(line)["n"] for line in result.stdout.splitlines()) == expected


def test_what_is_no_duration_is_told(file: Path) -> None:
    result = run(file, "--since", "yesterday")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "write a duration" in result.stderr


def test_without_a_trail_it_says_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    result = run(tmp_path / "config.toml")
    assert result.exit_code == 1
    assert "log.audit_file" in result.stderr
    assert "cannot be read" in run(tmp_path / "none.toml").stderr
