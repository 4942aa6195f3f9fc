"""How a row of the route table is called for a thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.matrix.things import Things


@dataclass(frozen=True)
class Call:
    """path: without the prefix. A body is JSON, or bytes, or a form that is made anew for each call."""

    path: str
    document: Any = None
    raw: bytes | None = None
    form: Callable[[], aiohttp.FormData] | None = None
    said: str = ""
    """What stands in the form."""

    def options(self) -> dict[str, Any]:
        if self.form is not None:
            return {"data": self.form(), "said": self.said}
        if self.raw is not None:
            return {"data": self.raw}
        return {} if self.document is None else {"json": self.document}


@dataclass(frozen=True)
class Entry:
    """calls: the row's calls for a thing. owner: the statuses that its owner gets for them, in order.

    shows: what the owner's answers hold together. changes: the calls alter something of the owner's, so it makes them last.
    varies: two answers differ in numbers, since they tell of the machine or of times.
    """

    calls: Callable[[Things], list[Call]]
    owner: tuple[int, ...] = (200,)
    shows: Callable[[Things], list[str]] = field(default=lambda things: [])
    changes: bool = False
    varies: bool = False


def plain(*paths: str, document: Any = None, **more: Any) -> Entry:
    return Entry(lambda things: [Call(path, document) for path in paths], (200,) * len(paths), **more)


def ids_of(things: Things) -> list[str]:
    return [things.finished, things.running, things.pending]


def of_each_job(path: str, document: Any = None) -> Callable[[Things], list[Call]]:
    return lambda things: [Call(path.replace("{id}", prompt_id), document) for prompt_id in ids_of(things)]
