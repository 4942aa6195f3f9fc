"""Small files replaced as a whole: a reader sees the old content or the new one, after a crash too."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

PRIVATE_MODE: Final = 0o600


def replace_file(file: Path, content: bytes) -> None:
    """Puts content in the place of file, which must not be a symbolic link. Mode and owner are kept; a new file is its owner's alone.

    Raises OSError; the old content is then still there.
    """
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".new", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            _copy_owner_and_mode(file, stream.fileno(), name)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Makes a renaming in the folder survive a loss of power, where the system can open folders (not on Windows)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _copy_owner_and_mode(file: Path, handle: int, name: str) -> None:
    try:
        old = file.stat()
    except FileNotFoundError:
        return  # mkstemp made it 0600
    if hasattr(os, "fchown"):
        # A file of the service's user that root edits stays the service's; who may not give files away keeps its own.
        for owner, group in ((-1, old.st_gid), (old.st_uid, -1)):
            with contextlib.suppress(OSError):
                os.fchown(handle, owner, group)
    os.chmod(name, old.st_mode & 0o7777)
