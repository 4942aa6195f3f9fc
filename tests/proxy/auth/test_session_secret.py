"""The secret of the sessions: made once, or read where the operator says."""

from __future__ import annotations

import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.auth.session_secret import SessionStateError, load_secret


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    state = tmp_path / "a" / "state"
    first = load_secret(None, state)
    assert len(first) >= 32
    assert load_secret(None, state) == first
    if sys.platform != "win32":
        assert stat.S_IMODE((state / "session.secret").stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_two_gates_that_start_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    start = threading.Barrier(6)

    def load(_: int) -> bytes:
        start.wait(240)
        return load_secret(None, tmp_path / "state")

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(load, range(6)))) == 1


def test_the_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"x" * 40 + b"\n")
    assert load_secret(file, tmp_path / "state") == b"x" * 40
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), (b"short\n", "openssl rand"), (b" " * 64, "openssl")]
)
def test_a_bad_secret_file_stops_the_start(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SessionStateError, match=message):
        load_secret(file, tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_state_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SessionStateError, match=r"secret_file"):
        load_secret(None, tmp_path / "state")
