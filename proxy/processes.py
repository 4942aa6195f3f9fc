"""The end of processes that the gate has started."""

from __future__ import annotations

import os
import signal
import sys
from asyncio.subprocess import Process
from contextlib import suppress
from typing import Final

_PIECE_BYTES: Final = 64 * 1024


async def wait_for_end(process: Process) -> None:
    """Until it has ended, for one that is to end and that nobody listens to any more.

    What it still said is read: for asyncio a process lasts as long as its pipes, and what is more than a reader holds it leaves in them,
    so that to wait alone would last for ever.
    """
    if process.stdout is not None:
        with suppress(OSError):
            while await process.stdout.read(_PIECE_BYTES):
                pass
    await process.wait()


def kill(process: Process) -> None:
    """At once, if it has not ended.

    Process.kill looks whether it has, before Python 3.13: of one that is just ending that takes the status from asyncio, which warns of an unknown
    child then (gh-87744).
    """
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.kill(process.pid, signal.SIGKILL)
