"""BLAKE3, which the content of files is known by (Comfy API v2). The package is half a megabyte: it is loaded when something is hashed first."""

from __future__ import annotations

from typing import Protocol


class Blake3(Protocol):
    """What is used of the package's."""

    def update(self, data: bytes | memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


def blake3(data: bytes = b"") -> Blake3:
    """A hash of these bytes, and of what it is updated with."""
    from blake3 import blake3 as make

    return make(data)
