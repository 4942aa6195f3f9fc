"""Replacing a file as a whole."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from proxy.auth.atomic_file import replace_file, sync_folder

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


@POSIX
def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "new"
    replace_file(file, b"x")
    assert (file.read_bytes(), mode_of(file)) == (b"x", 0o600)


@POSIX
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_the_mode_of_an_old_file_is_kept(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "old"
    file.write_bytes(b"before")
    file.chmod(mode)
    replace_file(file, b"after")
    assert (file.read_bytes(), mode_of(file)) == (b"after", mode)


@POSIX
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "old"
    file.write_bytes(b"before")
    os.chown(file, 12345, 23456)
    replace_file(file, b"after")
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 23456)


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "old"
    file.write_bytes(b"before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space"):
        replace_file(file, b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert file.read_bytes() == b"before"


def test_a_folder_that_cannot_be_opened_is_no_failure(tmp_path: Path) -> None:
    sync_folder(tmp_path / "absent")
