"""Memory that is freed goes back to the system, and what stays is not looked through again and again."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from proxy.memory import spare_collections

MUCH = """
import os, psutil
from proxy.memory import set_up_allocator
set_up_allocator()
mib, process = 1024**2, psutil.Process()
bytes(20 * mib)  # freed at once: from then on glibc would cut blocks of up to its size out of the heap
before = process.memory_info().rss
small, large = [], []
for _ in range(20):
    large.append(b"x" * (2 * mib))
    small.append(b"x" * 65536)  # stays, behind a large one
del large
print((process.memory_info().rss - before) // mib)
"""


def test_full_collections_pass_over_what_the_start_made() -> None:
    try:
        spare_collections()
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects(generation=2)) < 1000
    finally:
        gc.unfreeze()


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_large_blocks_leave_nothing_behind() -> None:
    done = subprocess.run([sys.executable, "-c", MUCH], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8, "MiB"
