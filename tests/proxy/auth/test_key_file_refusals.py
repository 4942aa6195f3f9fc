"""What editing keys refuses, and that the file is then as it was."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from filelock import FileLock

from proxy.auth import key_file
from proxy.auth.key_file import KeyFileError, create_key, expiry_after, list_keys, revoke_key, rotate_key
from tests.proxy.auth.test_key_file import TOML, ids_in

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(TOML, encoding="utf-8", newline="")
    return path


REFUSED = [
    ("an unknown tenant", TOML, "nobody", "no tenant 'nobody'.*acme, beta"),
    ("no TOML", "[tenants.acme\n", "acme", "is not TOML.*line 1"),
    (
        "a file with mistakes",
        TOML + '\n[server2]\n[ops]\nport = "x"\n',
        "acme",
        r"has mistakes(.|\n)*ops.port(.|\n)*server2",
    ),
    ("no UTF-8", "# \udcff\n[tenants.acme]\n", "acme", "is not UTF-8"),
]


@pytest.mark.parametrize(("text", "tenant", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refuses_and_leaves_the_file(tmp_path: Path, text: str, tenant: str, message: str) -> None:
    file = tmp_path / "config.toml"
    before = text.encode("utf-8", "surrogateescape")
    file.write_bytes(before)
    with pytest.raises(KeyFileError, match=message):
        create_key(file, tenant=tenant)
    assert file.read_bytes() == before
    assert not list(tmp_path.glob("*.new"))


def test_refuses_limits_that_are_not_there(file: Path) -> None:
    with pytest.raises(KeyFileError, match=r"no \[limits.fast\]"):
        create_key(file, tenant="acme", limits="fast")


def test_refuses_an_expiry_that_is_past_or_beyond_the_calendar(file: Path) -> None:
    with pytest.raises(KeyFileError, match="is past"):
        create_key(file, tenant="acme", expires=datetime(2001, 1, 1, tzinfo=UTC))
    with pytest.raises(KeyFileError, match="too far"):
        expiry_after(1e15)
    assert file.read_text(encoding="utf-8") == TOML


@pytest.mark.parametrize("act", [revoke_key, rotate_key])
def test_refuses_a_key_that_is_not_there(file: Path, act: object) -> None:
    assert callable(act)
    with pytest.raises(KeyFileError, match=r"no key '99999999'.*keys list"):
        act(file, "99999999")
    assert file.read_text(encoding="utf-8") == TOML


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        list_keys(tmp_path / "absent.toml")
    with pytest.raises(KeyFileError, match="is not a file"):
        create_key(tmp_path, tenant="acme")


@POSIX
def test_refuses_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(KeyFileError, match="cannot be read"):
        list_keys(tmp_path / "a")


def test_refuses_a_file_that_is_read_only(file: Path) -> None:
    file.chmod(0o444)
    with pytest.raises(KeyFileError, match="is not writable"):
        revoke_key(file, "11111111")
    assert "11111111" in ids_in(file)


@pytest.mark.parametrize(
    ("code", "advice"), [(13, "make the folder .* writable"), (16, "mount its folder"), (28, "nothing was changed")]
)
def test_says_why_the_file_could_not_be_replaced(
    file: Path, monkeypatch: pytest.MonkeyPatch, code: int, advice: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(key_file, "replace_file", fail)
    with pytest.raises(KeyFileError, match=f"{os.strerror(code)}; .*{advice}"):
        create_key(file, tenant="acme")


def test_says_who_holds_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file, "LOCK_TIMEOUT_S", 0.0)
    with FileLock(file.with_name(".config.toml.lock")), pytest.raises(KeyFileError, match="Another program"):
        create_key(file, tenant="acme")


@POSIX
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_refuses_a_folder_that_is_read_only(file: Path) -> None:
    file.parent.chmod(0o555)
    try:
        with pytest.raises(KeyFileError, match="make the folder"):
            create_key(file, tenant="acme")
    finally:
        file.parent.chmod(0o755)


def test_refuses_a_lock_that_cannot_be_made(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", fail)
    with pytest.raises(KeyFileError, match="make the folder"):
        create_key(file, tenant="acme")


def test_refuses_an_edit_that_would_change_anything_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file, "append_key", lambda text, table: text.replace("8190", "8191"))
    with pytest.raises(KeyFileError, match="cannot be edited"):
        create_key(file, tenant="acme")
    monkeypatch.setattr(key_file, "append_key", lambda text, table: text + "[")
    with pytest.raises(KeyFileError, match="cannot be edited"):
        create_key(file, tenant="acme")
    assert file.read_text(encoding="utf-8") == TOML
