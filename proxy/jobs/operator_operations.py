"""What the operator's commands ask of the gate's database besides what the gate itself does with it (proxy/jobs/store_operations.py)."""

from __future__ import annotations

from typing import Final, NamedTuple

from proxy.jobs.job_rows import JobRow, StoredState
from proxy.jobs.store_reading import listing
from proxy.persistence.operations import Operation, Statement

_ALL: Final = 10_000


class Load(NamedTuple):
    """given: those that ComfyUI has, or may have, the newest first. waiting: how many wait in the gate."""

    is_draining: bool
    given: list[JobRow]
    waiting: int


def is_draining() -> Operation[bool]:
    [(is_on,)] = yield Statement("SELECT is_draining FROM store_state WHERE id = 1")
    return bool(is_on)


def load() -> Operation[Load]:
    is_on = yield from is_draining()
    running = yield from listing(None, StoredState.RUNNING, _ALL)
    dispatched = yield from listing(None, StoredState.DISPATCHED, _ALL)
    [(waiting,)] = yield Statement("SELECT COUNT(*) FROM jobs WHERE state = ?", (StoredState.WAITING,))
    return Load(is_on, [*running, *dispatched], int(waiting))
