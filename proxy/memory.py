"""What the process holds: how the C library gives memory back, and what the collector of garbage looks through."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from typing import Final

# mallopt(3). Without them glibc raises its threshold to the largest block that was ever freed, and what is that large is then cut out of a
# heap that never shrinks: a few files of some megabytes leave tens of megabytes behind them.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
OWN_MAPPING_BYTES: Final = 1024**2
"""Blocks from this size on go back to the system when they are freed. Larger than a piece of a body: mapping each anew costs more than to copy it."""
KEPT_FREE_BYTES: Final = 2 * 1024**2
"""So much at the end of the heap is kept for the next bodies."""
HEAPS: Final = 1
"""For all threads: malloc_trim gives nothing back of the end of a heap that is not the first one, and who holds the interpreter allocates alone anyway."""


YOUNG_OBJECTS: Final = 20_000
"""So many are made before those that are new are looked through. A workflow of 500 nodes is some 3,000 lists and objects, which are gone with their
request and form no rings: at Python's 700 a quarter of its time was spent in looking through them."""


def set_up_allocator() -> None:
    """Before anything large is made. Does nothing where the C library is not glibc."""
    with suppress(OSError, AttributeError, TypeError):  # TypeError: Windows has no library without a name
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, OWN_MAPPING_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES)
        library.mallopt(_M_ARENA_MAX, HEAPS)


def give_back_memory() -> None:
    """To the system, where the C library is glibc: malloc_trim(3)."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def spare_collections() -> None:
    """Code, models and tables of the start stay as long as the gate: each full collection would look through them all, and hold the event loop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    give_back_memory()
