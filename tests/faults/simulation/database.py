"""The gate's database in the event loop: one for all gates, in memory, and it outlives them. It may be gone, or not say that it has committed."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

from proxy.persistence.migrations import MIGRATIONS
from proxy.persistence.operations import DatabaseUnavailable, Operation, P, T

LATENCY_S = 0.001


class Store:
    """unsaid: how likely it is that a commit is done and nobody is told so. doors: of the gates that were started."""

    def __init__(self, chance: random.Random) -> None:
        self.is_up = True
        self.unsaid = 0.0
        self.doors: list[SimulatedDatabase] = []
        self._chance = chance
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        for statement in (statement for statements in MIGRATIONS for statement in statements):
            self._connection.execute(statement)

    def close(self) -> None:
        self._connection.close()

    def work(self, operation: Operation[T]) -> T:
        self._connection.execute("BEGIN")
        try:
            result = self._drive(operation)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        return result

    def _drive(self, operation: Operation[T]) -> T:
        try:
            statement = next(operation)
            while True:
                rows = self._connection.execute(statement.sql, tuple(statement.parameters)).fetchall()
                statement = operation.send(rows)
        except StopIteration as end:
            result: T = end.value
            return result

    def jobs(self) -> dict[str, str]:
        """States by id."""
        return dict(self._connection.execute("SELECT prompt_id, state FROM jobs ORDER BY sequence"))

    def given(self) -> list[str]:
        """Ids of the jobs that ComfyUI has, as far as is written down, in its order."""
        rows = self._connection.execute(
            "SELECT prompt_id FROM jobs WHERE state IN ('dispatched', 'running') ORDER BY number"
        )
        return [prompt_id for (prompt_id,) in rows]

    def jobs_of(self, tenant: str) -> dict[str, str]:
        return dict(self._connection.execute("SELECT prompt_id, state FROM jobs WHERE tenant = ?", (tenant,)))

    def is_silent(self) -> bool:
        return self._chance.random() < self.unsaid


class SimulatedDatabase:
    """One gate's door to it. is_open: not any more when the gate was killed."""

    is_shared = True
    is_past_unknown = False
    set_aside: Path | None = None
    place = "memory"

    def __init__(self, store: Store) -> None:
        self.is_open = True
        self._store = store
        self._listeners: list[Callable[[], None]] = []
        store.doors.append(self)

    async def open(self) -> None:
        return

    async def close(self) -> None:
        self.is_open = False

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    async def say(self, text: str) -> None:
        """Nobody follows jobs here."""

    def on_word(self, callback: Callable[[str], None]) -> None:
        """Likewise."""

    def tell(self) -> None:
        """Another one has written."""
        for callback in self._listeners if self.is_open else ():
            callback()

    async def run(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(LATENCY_S)
        self._check()
        result = self._store.work(operation(*args, **kwargs))
        for door in self._store.doors:
            if door is not self:
                door.tell()
        await asyncio.sleep(LATENCY_S)
        if self._store.is_silent():
            raise DatabaseUnavailable("no word of the commit")
        self._check()
        return result

    async def read(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(LATENCY_S)
        self._check()
        return self._store.work(operation(*args, **kwargs))

    def _check(self) -> None:
        if not (self.is_open and self._store.is_up):
            raise DatabaseUnavailable("gone")
