"""Calls of operations that somebody awaits, and their answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

_IS_TEXT: Final[Callable[[Any], bool]] = str.__instancecheck__


class Call(NamedTuple):
    operation: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    answer: asyncio.Future[Any]


class Failure(NamedTuple):
    """In the place of a result."""

    error: Exception


class Waiting:
    """What was asked and is not begun yet, oldest first."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()

    def __len__(self) -> int:
        return len(self._calls)

    def forget_left(self) -> int:
        """Drops the first ones whose caller was cancelled. Returns how many remain, of which the first is waited for."""
        while self._calls and self._calls[0].answer.done():
            self._calls.popleft()
        return len(self._calls)

    def add(self, operation: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> asyncio.Future[Any]:
        answer = asyncio.get_running_loop().create_future()
        self._calls.append(Call(operation, args, kwargs, answer))
        return answer

    def take(self, most: int) -> list[Call]:
        """Without those whose caller was cancelled."""
        batch: list[Call] = []
        while self._calls and len(batch) < most:
            call = self._calls.popleft()
            if not call.answer.done():
                batch.append(call)
        return batch


def answer(batch: Sequence[Call], outcomes: Sequence[Any]) -> None:
    """outcomes: a result or a Failure for each call."""
    for call, outcome in zip(batch, outcomes, strict=True):
        if call.answer.done():
            continue
        if type(outcome) is Failure:
            call.answer.set_exception(outcome.error)
        else:
            call.answer.set_result(outcome)


def check_text(parameters: tuple[Any, ...]) -> None:
    """Raises ValueError for what PostgreSQL's TEXT cannot hold, with SQLite too: what works with one must not fail with the other."""
    # For each of thirty columns of each job: a loop costs as much as the statement.
    if "\0" in "".join(filter(_IS_TEXT, parameters)):
        raise ValueError("a text of the database holds no NUL")
