"""`comfygate keys`: made, listed, replaced and revoked; the key itself is the last line of standard output, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy.auth.api_keys import hash_key
from proxy.commands.command_line import app


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text("[tenants.alice]\n")
    return file


def run(file: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["keys", *words, "--config", str(file)])


def made(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[-1]


def test_a_key_is_shown_once(file: Path) -> None:
    key = made(run(file, "create", "--tenant", "alice", "--note", "laptop", "--scope", "jobs:read", "--expires", "90d"))
    content = file.read_text()
    assert hash_key(key) in content
    assert key not in content
    listed = run(file, "list").stdout
    assert [word in listed for word in (key.split("_")[1], "alice", "user", "EXPIRES", "laptop")] == [True] * 5
    assert key not in listed


def test_rotate_and_revoke(file: Path) -> None:
    old = made(run(file, "create", "--tenant", "alice", "--role", "admin"))
    new = made(run(file, "rotate", old.split("_")[1]))
    assert hash_key(old) not in file.read_text()
    assert hash_key(new) in file.read_text()
    assert "admin" in run(file, "list").stdout
    assert "  never" in run(file, "list").stdout
    result = run(file, "revoke", new.split("_")[1])
    assert (result.exit_code, "is revoked" in result.stdout) == (0, True)
    assert "nobody gets in" in run(file, "list").stderr


def test_an_expired_key_is_listed_as_one(file: Path) -> None:
    key = made(run(file, "create", "--tenant", "alice"))
    file.write_text(file.read_text().rstrip() + "\nexpires = 2020-01-01T00:00:00Z\n")
    head, row = run(file, "list").stdout.splitlines()
    assert head.split() == ["ID", "TENANT", "ROLE", "EXPIRES", "NOTE"]
    assert row == f"{key.split('_')[1]}  alice   user  EXPIRED 2020-01-01 00:00:00 UTC"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("create", "--tenant", "ghost"), "no tenant 'ghost'"),
        (("create", "--tenant", "alice", "--expires", "soon"), "write a duration"),
        (
            ("create", "--tenant", "alice", "--expires", "30"),
            '--expires 30: write a duration such as 30s, 5m, 24h or 90d: "30" may mean 30d or 30s',
        ),
        (("revoke", "0123abcd"), "0123abcd"),
        (("rotate", "0123abcd"), "0123abcd"),
        (("rotate", "0123abcd", "--grace", "soon"), "write a duration"),
    ],
)
def test_what_cannot_be_done_changes_nothing(file: Path, words: tuple[str, ...], expected: str) -> None:
    before = file.read_bytes()
    result = run(file, *words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert expected in result.stderr
    assert file.read_bytes() == before


def test_a_missing_file(tmp_path: Path) -> None:
    assert run(tmp_path / "none.toml", "list").exit_code == 1
