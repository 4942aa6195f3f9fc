"""What a request holds until its answer has left, as `contextlib.ExitStack` does it at a tenth of the price."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

T = TypeVar("T")


class Held:
    """Given back in reverse order by `release`, all of it, whatever one of them raises."""

    __slots__ = ("_releases",)

    def __init__(self) -> None:
        self._releases: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def callback(self, release: Callable[..., object], *arguments: Any) -> None:
        self._releases.append((release, arguments))

    def enter_context(self, manager: AbstractContextManager[T]) -> T:
        entered = manager.__enter__()
        self._releases.append((manager.__exit__, (None, None, None)))
        return entered

    def pop_all(self) -> Held:
        """Hands all of it over to another owner."""
        other = Held()
        other._releases, self._releases = self._releases, []
        return other

    def release(self) -> None:
        """Raises what the last of those raised that failed."""
        failed: BaseException | None = None
        while self._releases:
            release, arguments = self._releases.pop()
            try:
                release(*arguments)
            except BaseException as error:
                failed = error
        if failed is not None:
            raise failed
