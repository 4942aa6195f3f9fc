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
    """`put` never waits. write: called in the thread, once for each line; what it raises of OSError and ValueError loses the line."""

    def __init__(self, write: Callable[[bytes], object], max_lines: int = MAX_LINES) -> None:
        self._write = write
        self._lines: queue.Queue[bytes | None] = queue.Queue(max_lines)
        self.dropped = 0
        self._told = 0
        self._thread = threading.Thread(target=self._run, name="line writer", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Writes what waits, for so long; a reader that takes nothing does not hold up the end."""
        try:
            self._lines.put(None, timeout=wait_s)
        except queue.Full:
            return
        self._thread.join(wait_s)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._write(line)
            except (OSError, ValueError):
                continue  # a closed log must not take the gate down
            if self._lines.empty():
                self._tell_dropped()
                # A thread that is woken for each line takes the interpreter from the requests each time.
                time.sleep(GATHER_S)
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        if self.dropped > self._told:
            self._told, lost = self.dropped, self.dropped - self._told
            _log.warning("%d lines were not written: what takes them was too slow", lost)
