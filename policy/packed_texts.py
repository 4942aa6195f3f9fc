"""Many small texts, compressed: a few that follow each other in one block, since alone each of them has little to be compressed by."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

BLOCK_BYTES: Final = 32 * 1024
"""Of text, from which on a block is closed: one takes less than a tenth of a millisecond to unpack. A larger text has a block of its own."""
_READ_AT_ONCE: Final = 8


class Block:
    """Of texts, one behind the other. Equal to itself alone."""

    __slots__ = ("_packed",)

    def __init__(self, text: bytes) -> None:
        self._packed = zlib.compress(text)

    def unpacked(self) -> bytes:
        return zlib.decompress(self._packed)


class TextPlace(NamedTuple):
    """Where a text stands: start and end are bytes of the block's unpacked text."""

    block: Block
    start: int
    end: int

    def text(self) -> bytes:
        return self.block.unpacked()[self.start : self.end]


class TextReader:
    """For whoever reads many, in about the order in which they were packed: the blocks that were unpacked last are kept as long as the reader."""

    def __init__(self) -> None:
        self._unpacked = lru_cache(_READ_AT_ONCE)(Block.unpacked)

    def read(self, place: TextPlace) -> bytes:
        return self._unpacked(place.block)[place.start : place.end]


def pack(texts: Iterable[tuple[str, bytes]]) -> dict[str, TextPlace]:
    """Texts by name; the last one of a name that comes twice."""
    places: dict[str, TextPlace] = {}
    open_texts: list[tuple[str, bytes]] = []
    size = 0
    for name, text in texts:
        open_texts.append((name, text))
        size += len(text)
        if size >= BLOCK_BYTES:
            places.update(_close(open_texts))
            open_texts, size = [], 0
    places.update(_close(open_texts))
    return places


def _close(texts: Iterable[tuple[str, bytes]]) -> dict[str, TextPlace]:
    texts = tuple(texts)
    if not texts:
        return {}
    block = Block(b"".join(text for _, text in texts))
    places: dict[str, TextPlace] = {}
    end = 0
    for name, text in texts:
        places[name] = TextPlace(block, end, end + len(text))
        end += len(text)
    return places
