"""How each transaction that writes jobs begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from proxy.persistence.operations import Operation, Statement


class State(NamedTuple):
    """version: of this transaction. virtual_time: see policy.fairness."""

    version: int
    virtual_time: float
    is_draining: bool


def begin() -> Operation[State]:
    """Each writer begins with it: from here to its commit nobody else writes."""
    # Not by `RETURNING`, which takes SQLite longer than a second statement.
    yield Statement("UPDATE store_state SET version = version + 1 WHERE id = 1")
    [(version, virtual_time, is_draining)] = yield Statement(
        "SELECT version, virtual_time, is_draining FROM store_state WHERE id = 1"
    )
    return State(version, virtual_time, bool(is_draining))


def drained() -> Operation[frozenset[str]]:
    """Names of those of several ComfyUIs that are given no jobs. With one ComfyUI nobody asks."""
    return frozenset(name for (name,) in (yield Statement("SELECT comfyui FROM drained_comfyuis")))


class Dispatching(NamedTuple):
    """To which of several ComfyUIs jobs are given. drained: names of single ones that are. models: those that each was given last, by name."""

    is_draining: bool = False
    drained: frozenset[str] = frozenset()
    models: Mapping[str, tuple[str, ...]] = {}

    def is_drained(self, comfyui: str) -> bool:
        return self.is_draining or comfyui in self.drained


def dispatching() -> Operation[Dispatching]:
    [(is_draining,)] = yield Statement("SELECT is_draining FROM store_state WHERE id = 1")
    out = yield from drained()
    return Dispatching(bool(is_draining), out, (yield from held_models()))


def held_models() -> Operation[dict[str, tuple[str, ...]]]:
    """Those that each ComfyUI was given last, by its name."""
    rows = yield Statement("SELECT comfyui, models FROM comfyui_models")
    return {comfyui: tuple(models.split("\n")) for comfyui, models in rows}
