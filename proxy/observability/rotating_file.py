"""A file of lines that is rotated by size. What comes together is one write, so that a killed process leaves whole lines; one that was torn is ended first.

Not logging.handlers.RotatingFileHandler, which loses the line when it cannot rotate, and counts characters where a disk has bytes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path


class RotatingFile:
    """path, and keep files of before beside it: `path.1` is the newest of them. Its owner's alone."""

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        """max_bytes: of one file; a single line that is longer is kept whole."""
        self.path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._handle: int | None = None
        self._size = 0
        self._is_torn = False

    def open(self) -> int:
        """Makes the file and its folder where they are not there. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = self._handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(handle).st_size
        # The machine may have stopped in the middle of a line.
        self._is_torn = bool(self._size) and not _ends_whole(handle)
        return handle

    def close(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes are appended to this file, and not to one that is begun for them."""
        return self._size + size <= self._max_bytes

    def append(self, lines: bytes) -> None:
        """lines: one or several, each with its end. Raises OSError when not all was written, or when the file could not be rotated before and has grown."""
        failure: OSError | None = None
        if self._size and self._size + len(lines) > self._max_bytes:
            try:
                self._rotate()
            except OSError as error:
                failure = error  # a file that cannot be rotated grows: that is better than a line that is not there
        handle = self.open() if self._handle is None else self._handle
        if self._is_torn:
            lines = b"\n" + lines
        written = os.write(handle, lines)
        self._size += written
        self._is_torn = written < len(lines)  # the disk is full: write(2)
        if self._is_torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if failure is not None:
            raise failure

    def _rotate(self) -> None:
        self.close()
        for number in range(self._keep - 1, 0, -1):
            older = _numbered(self.path, number)
            if older.exists():
                older.replace(_numbered(self.path, number + 1))
        self.path.replace(_numbered(self.path, 1))


def read_lines(path: Path, keep: int) -> Iterator[bytes]:
    """The lines of the file and of those of before, oldest first. Raises OSError."""
    for file in [*(_numbered(path, number) for number in range(keep, 0, -1)), path]:
        if file.exists():
            with file.open("rb") as lines:
                yield from lines


def _ends_whole(handle: int) -> bool:
    os.lseek(handle, -1, os.SEEK_END)
    return os.read(handle, 1) == b"\n"


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
