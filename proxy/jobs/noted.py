"""A job's transaction with a note of somebody else's in it: both are on disk or neither is, by one commit (proxy/persistence/operations.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from proxy.persistence.operations import Operation, P, T

Note: TypeAlias = Callable[[], Operation[bool]]
"""False where nothing was noted, since it stands there already. It may be begun more than once, as every operation."""


class AlreadyNoted(Exception):
    """What was to be noted stands there already: nothing else was done."""


def noted(
    note: Note | None, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
) -> Operation[T | AlreadyNoted]:
    """What the operation returns. That it was not done is a result and no error: nothing has to be rolled back, which is dear for all in a batch."""
    if note is not None and not (yield from note()):
        return AlreadyNoted()
    return (yield from operation(*args, **kwargs))
