"""What a converting process is asked, and what it answers: one line of JSON each."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

MAX_LINE_BYTES: Final = 64 * 1024


class NotConverted(Exception):
    """Why, as a sentence for the client."""


class Order(NamedTuple):
    """source, target: paths; the target is not there yet. format: "" for a file that only loses its workflow. stamp: of the source as it must be
    (policy.v2.assets.Asset), "" for any. max_pixels: of all frames together. max_bytes: of the target. cpu_s: of the processor's time.
    """

    source: str
    target: str
    format: str
    quality: int
    max_pixels: int
    max_bytes: int
    stamp: str = ""
    cpu_s: int = 60

    @property
    def kind(self) -> str:
        """For metrics."""
        return self.format or "strip"

    def line(self) -> bytes:
        return orjson.dumps(self._asdict()) + b"\n"


class Answer(NamedTuple):
    """size_bytes, hash: of a target that is whole; hash: see Asset. refused: a sentence for the client: as long as the file is the same it stays so.
    failed: words for the operator, of what may be otherwise the next time. is_gone: the source is not there, or is another one.
    """

    size_bytes: int = 0
    hash: str = ""
    refused: str = ""
    failed: str = ""
    is_gone: bool = False

    @property
    def result(self) -> str:
        """For metrics: made, refused, failed or gone."""
        if self.is_gone:
            return "gone"
        return "failed" if self.failed else "refused" if self.refused else "made"

    def line(self) -> bytes:
        return orjson.dumps(self._asdict()) + b"\n"


def read_order(line: bytes) -> Order:
    document: dict[str, Any] = orjson.loads(line)
    return Order(**document)


def read_answer(line: bytes) -> Answer:
    """Raises ValueError, TypeError."""
    document: dict[str, Any] = orjson.loads(line)
    return Answer(**document)
