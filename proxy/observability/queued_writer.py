"""Lines that are written by a thread of their own: a log that nobody reads, or a slow disk, stops no request."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

MAX_LINES: Final = 10_000
"""What waits beyond that is dropped, and the number told when there is room again."""
CLOSE_S: Final = 2.0
GATHER_S: Final = 0.01
"""How long lines may gather before the thread is woken again."""

_log = logging.getLogger("comfygate")


class QueuedWriter:
    """`put` never waits.

    write: called in the thread, for one line, or for whole lines of together_bytes and one more: each call takes the interpreter from the requests.
    What it raises of OSError and ValueError loses them.
    """

    def __init__(
        self, write: Callable[[bytes], object], max_lines: int = MAX_LINES, *, together_bytes: int = 0
    ) -> None:
        self._write = write
        self._max_lines = max_lines
        self._together_bytes = together_bytes
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
        found: list[bytes] = []
        size = 0
        while not found or (size < self._together_bytes and not self._lines.empty()):
            line = self._lines.get()
            if line is None:
                return b"".join(found), False
            found.append(line)
            size += len(line)
        return b"".join(found), True

    def _tell_dropped(self) -> None:
        if self.dropped > self._told:
            self._told, lost = self.dropped, self.dropped - self._told
            _log.warning("%d lines were not written: what takes them was too slow", lost)
