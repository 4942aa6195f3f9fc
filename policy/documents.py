"""What the gate keeps of a job to show it again: as its tenant sees it, serialised, with a gap for the job's number, which changes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

import orjson

from policy.values import value

PACKED_BYTES: Final = 4096
"""What is larger is compressed: workflows repeat themselves, and memory is bounded."""
_LEVEL: Final = 1


class Kind(StrEnum):
    """ITEM: in `GET /queue`. ENTRY: in `GET /history`. ROW: in `GET /api/jobs`. JOB: `GET /api/jobs/{id}`. The last three never change."""

    ITEM = "item"
    ENTRY = "entry"
    ROW = "row"
    JOB = "job"


_HEADS: Final = {Kind.ITEM: b"[", Kind.ENTRY: b'{"prompt":[', Kind.ROW: b'{"priority":', Kind.JOB: b'{"priority":'}


@value
class Document:
    """size: in bytes, as it is sent. prompt_id: of the job, for items of the queue.

    write: makes the document itself, where that was not done yet: `size` is then about what it will be, and `tail` the bytes that it is made of.
    """

    kind: Kind
    tail: bytes
    size: int
    is_packed: bool = False
    prompt_id: str = ""
    write: Callable[[], Document] | None = None

    def written(self) -> Document:
        return self if self.write is None else self.write()

    def numbered(self, number: int) -> bytes:
        """The JSON, with the job's place among its tenant's own."""
        if self.write is not None:
            return self.write().numbered(number)
        tail = zlib.decompress(self.tail) if self.is_packed else self.tail
        return _HEADS[self.kind] + str(number).encode() + tail

    def to_bytes(self) -> bytes:
        """As it stands on disk."""
        assert self.write is None, "written first"
        return b"%d%s:%s" % (self.size, b"z" if self.is_packed else b"", self.tail)

    def without_workflow(self) -> Document:
        """An item of the queue that says no more than which job it is."""
        return keep(self.kind, [0, self.prompt_id, {}, {}, []], self.prompt_id)

    @property
    def held_bytes(self) -> int:
        return len(self.tail)


def keep(kind: Kind, shown: Any, prompt_id: str = "") -> Document:
    """shown: what the client sees, with the number 0 where `kind` has it, first of all."""
    body = orjson.dumps(shown)
    head = _HEADS[kind]
    assert body.startswith(head + b"0"), "the number comes first"
    tail = body[len(head) + 1 :]
    if len(tail) <= PACKED_BYTES:
        return Document(kind, tail, len(body), False, prompt_id)
    return Document(kind, zlib.compress(tail, _LEVEL), len(body), True, prompt_id)


def from_bytes(kind: Kind, kept: bytes) -> Document:
    """What `Document.to_bytes` wrote."""
    head, _, tail = kept.partition(b":")
    return Document(kind, tail, int(head.removesuffix(b"z")), head.endswith(b"z"))


def joined(documents: Sequence[tuple[int, Document]]) -> bytes:
    """A JSON array of them, each with its number."""
    return b"[" + b",".join(document.numbered(number) for number, document in documents) + b"]"


def named(documents: Sequence[tuple[str, int, Document]]) -> bytes:
    """A JSON object of them, by job id."""
    return (
        b"{"
        + b",".join(orjson.dumps(name) + b":" + document.numbered(number) for name, number, document in documents)
        + b"}"
    )


class OwnDocuments(Protocol):
    """What is kept of the tenant's jobs. Nothing of a job that is not the tenant's."""

    def get(self, kind: Kind, prompt_id: str) -> Document | None: ...

    def has_room(self, size: int) -> bool:
        """Whether so many bytes may be kept as they are, to be packed when they are asked for."""
        ...


class NoDocuments:
    """Nothing is kept."""

    def get(self, kind: Kind, prompt_id: str) -> Document | None:
        return None

    def has_room(self, size: int) -> bool:
        return False
