"""Lines that are written by a thread of their own: a log that nobody reads, or a slow disk, stops no request."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, Final

MAX_LINES: Final = 10_000
"""What waits beyond that is dropped, and the number told when there is room again."""
CLOSE_S: Final = 2.0
LINES_TOGETHER: Final = 200
"""In one write, where nobody needs each line in one of its own: some fifty kilobytes."""
GATHER_S: Final = 0.01
"""How long lines may gather before the thread is woken again."""

_log = logging.getLogger("comfygate")


class QueuedWriter:
    """`put` never waits.

    write: called in the thread, for so many lines `together`, since each call takes the interpreter from the requests; what it raises of OSError and
    ValueError loses them.
    """

    def __init__(self, write: Callable[[bytes], object], max_lines: int = MAX_LINES, *, together: int = 1) -> None:
        self._write = write
        self._max_lines = max_lines
        self._together = together
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.dropped = 0
        self._told = 0
        self._thread = threading.Thread(target=self._run, name="line writer", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        if self._lines.qsize() < self._max_lines:
            self._lines.put(line)
        else:
            self.dropped += 1

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Writes what waits, for so long; a reader that takes nothing does not hold up the end."""
        self._lines.put(None)
        self._thread.join(wait_s)

    def _run(self) -> None:
        is_open = True
        while is_open:
            lines, is_open = self._gathered()
            if lines:
                try:
                    self._write(lines)
                except (OSError, ValueError):
                    continue  # a closed log must not take the gate down
            if is_open and self._lines.empty():
                self._tell_dropped()
                # A thread that is woken for each line takes the interpreter from the requests each time.
                time.sleep(GATHER_S)
        self._tell_dropped()

    def _gathered(self) -> tuple[bytes, bool]:
        """The lines for the next write, and whether more may come. Waits for the first of them."""
        found = [self._lines.get()]
        found += [self._lines.get() for _ in range(min(self._lines.qsize(), self._together - 1))]
        is_open = None not in found
        if not is_open:
            del found[found.index(None) :]
        return b"".join(filter(None, found)), is_open

    def _tell_dropped(self) -> None:
        if self.dropped > self._told:
            self._told, lost = self.dropped, self.dropped - self._told
            _log.warning("%d lines were not written: what takes them was too slow", lost)


def write_all(stream: BinaryIO, lines: bytes) -> None:
    """Waits for a reader, also where the stream would not: another program that has the same terminal may have set it so. Raises OSError, ValueError."""
    while lines:
        try:
            stream.write(lines)
            lines = b""
        except BlockingIOError as error:
            lines = lines[error.characters_written :]
            time.sleep(GATHER_S)
    while True:
        try:
            stream.flush()
            return
        except BlockingIOError:
            time.sleep(GATHER_S)
