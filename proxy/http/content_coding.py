"""Content codings (RFC 9110, 8.4 and 12.5.3): which one a client takes, and one document in several of them, each with a validator of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from typing import Final

from aiohttp import hdrs
from multidict import MultiMapping

from policy.values import value
from proxy.http.codecs import CODINGS, gunzip

IDENTITY: Final = "identity"


def choose(accepted: str, available: Container[str]) -> str:
    """Of the available codings the one that the client likes best, IDENTITY when it takes none of them. accepted: its `Accept-Encoding`."""
    weights = _weights(accepted)
    liked = [(weights.get(coding, weights.get("*", 0.0)), coding) for coding in CODINGS if coding in available]
    weight, coding = max(liked, key=lambda item: item[0], default=(0.0, IDENTITY))  # the first of equals
    return coding if weight > 0 else IDENTITY


def _weights(accepted: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in accepted.split(","):
        coding, _, parameter = part.partition(";")
        name, _, value = parameter.partition("=")
        try:
            weight = float(value) if name.strip().lower() == "q" else 1.0
        except ValueError:
            weight = 0.0
        weights[coding.strip().lower()] = weight
    return weights


@value
class Selected:
    """What answers a request. is_unchanged: the client has it: 304, without the body."""

    body: bytes
    coding: str
    etag: str
    is_unchanged: bool

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """Of its head, besides its type."""
        fields: tuple[tuple[str, str], ...] = (("ETag", self.etag), ("Vary", "Accept-Encoding"))
        is_coded = self.coding != IDENTITY and not self.is_unchanged
        return (*fields, ("Content-Encoding", self.coding)) if is_coded else fields


class CodedDocument:
    """One content in several codings, each with a strong validator of its own (RFC 9110, 8.8.3). version: changes exactly when the content does."""

    __slots__ = ("_bodies", "_tags", "version")

    def __init__(self, version: str, bodies: Mapping[str, bytes]) -> None:
        """bodies: by coding."""
        self.version = version
        self._bodies: dict[str, tuple[bytes, str]] = {}
        self._tags: set[str] = set()
        for coding, body in bodies.items():
            self.add(coding, body)

    def add(self, coding: str, body: bytes) -> None:
        """One more coding, or a smaller form of one; whoever has the larger one has it still."""
        tag = f'"{version_of(body)}"'
        self._bodies[coding] = (body, tag)
        self._tags.add(tag)

    def __contains__(self, coding: str) -> bool:
        return coding in self._bodies

    def unpacked(self) -> bytes:
        """The content, out of its form in gzip, which is there."""
        return gunzip(self._bodies["gzip"][0])

    @property
    def held_bytes(self) -> int:
        return sum(len(body) for body, _ in self._bodies.values())

    def select(self, headers: MultiMapping[str]) -> Selected | None:
        """None when the client takes none of the codings that there are."""
        coding = choose(headers.get(hdrs.ACCEPT_ENCODING, ""), self._bodies)
        body, tag = self._bodies.get(coding, (b"", ""))
        known = {each.strip().removeprefix("W/") for each in headers.get(hdrs.IF_NONE_MATCH, "").split(",")}
        if (seen := next((each for each in (tag, *self._tags) if each in known), "")) or (tag and "*" in known):
            return Selected(b"", coding, seen or tag, is_unchanged=True)
        return Selected(body, coding, tag, is_unchanged=False) if tag else None


def version_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]
