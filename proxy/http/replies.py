"""What a request can be answered with, as values: everything but `ClientReply`, which rules make themselves (policy/call.py)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from multidict import CIMultiDict

from policy.call import ClientReply
from policy.media.editing import Edit
from policy.values import value
from proxy.http.response_head import SharedFields


class Taker(Protocol):
    """Takes the pieces of a body, each as it comes. Both raise what ends the answer."""

    def take(self, piece: bytes | memoryview) -> bool:
        """Says whether all of it has left; else it is kept until it has, and `ready` comes next."""
        ...

    async def ready(self) -> None:
        """Waits until it takes more."""


class Source(Protocol):
    """A body that is still to come."""

    async def pour(self, taker: Taker) -> None:
        """Gives it all of the body. Raises what the body breaks with, and what the taker does."""


@value
class ForwardedReply:
    """ComfyUI's answer. headers: the whole head as the client gets it, but for the length of a body that is whole; what others have too is in `shared`.

    body: whole where it is small, else as ComfyUI sends it.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes | Source
    shared: SharedFields | None = None


FileEdits = Callable[[int, os.stat_result], Sequence[Edit]]
"""Of an opened file: its descriptor, and what it was when it was opened."""


@dataclass(frozen=True, slots=True)
class FileReply:
    """A file of ComfyUI's folders, with ranges and validators (RFC 9110, 13 and 14). headers: what is said of it beside those.

    edits: what takes the place of which bytes of the opened file, each of the same length; called in a thread. None where nothing can.
    is_same: whether the opened file is the one that was meant.
    """

    file: Path
    headers: CIMultiDict[str]
    edits: FileEdits | None = None
    is_same: Callable[[os.stat_result], bool] = lambda found: True


@dataclass(frozen=True, slots=True)
class ObjectReply:
    """A file that another server has, with ranges and validators. changed_s: Unix time of its last change. read: its bytes, from where and how many; raises
    what the answer ends with. headers: what is said of it beside those.
    """

    size: int
    etag: str
    changed_s: float
    read: Callable[[int, int], Awaitable[bytes]]
    headers: CIMultiDict[str]


@dataclass(frozen=True, slots=True)
class UpgradedReply:
    """The connection is a WebSocket or a stream of events now, which needs its request no more. at_end: takes what is to be called when it has ended."""

    at_end: Callable[[Callable[[], None]], None]


Reply = ClientReply | ForwardedReply | FileReply | ObjectReply | UpgradedReply
