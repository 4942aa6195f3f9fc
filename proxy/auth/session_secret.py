"""The secret that signs session cookies: read where the operator says, or made once in the gate's own folder."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from filelock import FileLock

from proxy.auth.atomic_file import replace_file

MIN_SECRET_BYTES: Final = 32
_SECRET_FILE = "session.secret"  # noqa: S105 - a file's name


class SessionStateError(Exception):
    """The signing secret cannot be used. The text says what to do."""


def load_secret(secret_file: Path | None, state_dir: Path) -> bytes:
    """The signing secret: from the file that the configuration names, or one made once in the gate's own folder.

    Raises SessionStateError. The gate makes no secret where it was told to read one.
    """
    if secret_file is not None:
        return _read_secret(secret_file)
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = state_dir / _SECRET_FILE
        with FileLock(state_dir / f".{_SECRET_FILE}.lock", timeout=10):
            if not file.exists():
                replace_file(file, secrets.token_hex(MIN_SECRET_BYTES).encode("ascii") + b"\n")
    except OSError as error:  # filelock.Timeout is one
        raise SessionStateError(
            f"The session secret cannot be made in {state_dir}: {error}. Make the folder writable, or set sessions.secret_file."
        ) from None
    return _read_secret(file)


def _read_secret(file: Path) -> bytes:
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise SessionStateError(f"The session secret {file} cannot be read: {error.strerror or error}.") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise SessionStateError(
            f"The session secret {file} is shorter than {MIN_SECRET_BYTES} bytes: fill it with `openssl rand -hex 32`."
        )
    return secret
