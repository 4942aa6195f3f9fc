"""How each transaction that writes jobs begins."""

from __future__ import annotations

from typing import NamedTuple

from proxy.persistence.operations import Operation, Statement


class State(NamedTuple):
    """version: of this transaction. virtual_time: see policy.fairness."""

    version: int
    virtual_time: float
    is_draining: bool


def begin() -> Operation[State]:
    """Each writer begins with it: from here to its commit nobody else writes."""
    rows = yield Statement(
        "UPDATE store_state SET version = version + 1 WHERE id = 1 RETURNING version, virtual_time, is_draining"
    )
    version, virtual_time, is_draining = rows[0]
    return State(version, virtual_time, bool(is_draining))


def drained() -> Operation[frozenset[str]]:
    """Names of those of several ComfyUIs that are given no jobs. With one ComfyUI nobody asks."""
    return frozenset(name for (name,) in (yield Statement("SELECT comfyui FROM drained_comfyuis")))
