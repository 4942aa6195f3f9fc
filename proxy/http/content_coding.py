"""Content codings (RFC 9110, 8.4 and 12.5.3): which one a client takes, and one document in several of them, each with a validator of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from functools import lru_cache
from typing import Final

from multidict import MultiMapping

from policy.values import value
from proxy.http import hdrs
from proxy.http.codecs import CODINGS, gunzip

IDENTITY: Final = "identity"
_USUAL_LENGTH: Final = 256
"""SECURITY: longer fields are read each time, so that nobody fills the memory with them (test_content_coding.py)."""


def choose(accepted: str, available: Container[str]) -> str:
    """Of the available codings the one that the client likes best, IDENTITY when it takes none of them. accepted: its `Accept-Encoding`."""
    liked = _liked(accepted) if len(accepted) <= _USUAL_LENGTH else _liked.__wrapped__(accepted)
    for coding in liked:
        if coding in available:
            return coding
    return IDENTITY


@lru_cache(maxsize=256)
def _liked(accepted: str) -> tuple[str, ...]:
    """The codings that a client takes, the one that it likes best first; of those that it likes alike, as they stand in CODINGS."""
    weights: dict[str, float] = {}
    for part in accepted.split(","):
        coding, _, parameter = part.partition(";")
        name, _, value = parameter.partition("=")
        try:
            weight = float(value) if name.strip().lower() == "q" else 1.0
        except ValueError:
            weight = 0.0
        weights[coding.strip().lower()] = weight
    by_coding = {coding: weights.get(coding, weights.get("*", 0.0)) for coding in CODINGS}
    return tuple(sorted((coding for coding in CODINGS if by_coding[coding] > 0), key=lambda coding: -by_coding[coding]))


@value
class Selected:
    """What answers a request. fields: of its head, besides its type. is_unchanged: the client has it: 304, without the body."""

    body: bytes
    coding: str
    etag: str
    fields: tuple[tuple[str, str], ...]
    is_unchanged: bool = False


class CodedDocument:
    """One content in several codings, each with a strong validator of its own (RFC 9110, 8.8.3). version: changes exactly when the content does."""

    __slots__ = ("_forms", "_tags", "version")

    def __init__(self, version: str, bodies: Mapping[str, bytes]) -> None:
        """bodies: by coding."""
        self.version = version
        self._forms: dict[str, Selected] = {}
        self._tags: set[str] = set()
        for coding, body in bodies.items():
            self.add(coding, body)

    def add(self, coding: str, body: bytes) -> None:
        """One more coding, or a smaller form of one; whoever has the larger one has it still."""
        tag = f'"{version_of(body)}"'
        coded = (("Content-Encoding", coding),) if coding != IDENTITY else ()
        self._forms[coding] = Selected(body, coding, tag, (*_fields(tag), *coded))
        self._tags.add(tag)

    def __contains__(self, coding: str) -> bool:
        return coding in self._forms

    def unpacked(self) -> bytes:
        """The content, out of its form in gzip, which is there."""
        return gunzip(self._forms["gzip"].body)

    @property
    def held_bytes(self) -> int:
        return sum(len(form.body) for form in self._forms.values())

    def select(self, headers: MultiMapping[str]) -> Selected | None:
        """None when the client takes none of the codings that there are."""
        form = self._forms.get(choose(headers.get(hdrs.ACCEPT_ENCODING, ""), self._forms))
        asked = headers.get(hdrs.IF_NONE_MATCH)
        if asked is None:
            return form
        known = {each.strip().removeprefix("W/") for each in asked.split(",")}
        own = () if form is None else (form.etag,)
        seen = next((each for each in (*own, *self._tags) if each in known), "")
        if not seen and form is not None and "*" in known:
            seen = form.etag
        return Selected(b"", IDENTITY, seen, _fields(seen), is_unchanged=True) if seen else form


def _fields(tag: str) -> tuple[tuple[str, str], ...]:
    return ("ETag", tag), ("Vary", "Accept-Encoding")


def version_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]
