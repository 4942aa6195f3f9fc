"""What the gate asks of its database, in words that SQLite and PostgreSQL both know. No driver is imported here.

An operation is a generator function: it yields statements, is sent the rows of each, and returns its result. It may be begun in another thread, so
it touches nothing but its arguments. A statement uses `?` for its parameters and only SQL that both know: `ON CONFLICT … DO …` and `RETURNING`,
no `rowid`, no `INSERT OR …`. Columns are TEXT (without NUL), INTEGER (64 bits), REAL (a double) or BLOB; a parameter is of its column's type, a whole
number where that is INTEGER. Where no column says the type of a parameter, write `CAST(? AS BIGINT)`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final, NamedTuple, ParamSpec, Protocol, TypeAlias, TypeVar

SCHEMA: Final = "comfygate"
"""Of the gate's tables in PostgreSQL."""

P = ParamSpec("P")
T = TypeVar("T")


class StateError(Exception):
    """The database cannot be opened. The text says why, and what to do."""


class DatabaseUnavailable(Exception):
    """The database is closed, full, locked, gone, or lacks a table: nothing is known to be kept. It may work again later."""


class ConstraintViolated(Exception):
    """A row breaks a rule of the schema (a key that is there already, NULL where a value must be). Nothing of the operation is kept."""


class Statement(NamedTuple):
    sql: str
    parameters: tuple[Any, ...] = ()


Rows: TypeAlias = list[tuple[Any, ...]]
"""Empty for a statement without SELECT or RETURNING."""
Operation: TypeAlias = Generator[Statement, Rows, T]


class Database(Protocol):
    @property
    def is_open(self) -> bool: ...

    @property
    def is_shared(self) -> bool:
        """Whether other gates may use it at the same time."""

    @property
    def set_aside(self) -> Path | None:
        """Where a file went that was damaged, None when there was none; what it held is then not known any more."""

    @property
    def is_past_unknown(self) -> bool:
        """Whether it is an empty one in the place of another, as far as it can tell: a damaged file, or tables that were made by this `open`."""

    @property
    def place(self) -> str:
        """What a log line may call it: a file, or a URL without the password."""

    async def open(self) -> None:
        """Checks it and brings it up to date, or makes it. Raises StateError."""

    async def close(self) -> None:
        """Ends it after what was asked of it before; a second time does nothing."""

    async def run(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the operation returns, done as one transaction and on disk. Those that wait at the same time share one commit.

        Raises what the operation raises, ConstraintViolated and DatabaseUnavailable; nothing of it is then kept, nor of it alone when another one
        fails. Operations are done one after the other, also those of other processes. It is not known whether it was done where the caller is
        cancelled, and where a PostgreSQL that was lost did not say what became of the commit: so an operation that is asked again should find what it
        did the first time (a key of its own, `ON CONFLICT DO NOTHING`).
        """

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back, in the event loop, after another process has written: soon with PostgreSQL, within 0.3 s with SQLite; once for many writes.

        It also calls back where it cannot know whether there was one (after a lost connection). What is returned ends it.
        """

    async def say(self, text: str) -> None:
        """Tells the other gates that use it now. Nobody keeps it, so who does not listen misses it. At most 7,999 bytes. Raises DatabaseUnavailable."""

    def on_word(self, callback: Callable[[str], None]) -> None:
        """Calls back, in the event loop, with what another gate says."""

    async def read(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the operation returns, all of it from one moment not before the call. It never waits for a commit, and must not write.

        Raises what the operation raises, and DatabaseUnavailable.
        """
