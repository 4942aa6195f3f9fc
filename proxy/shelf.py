"""Keeps described documents ready to send: made once per catalogue, policy and file list, serialised, compressed and validated by ETag."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from multidict import MultiMapping

from policy.call import ClientReply
from policy.caller import Request
from policy.routes import Match

MAX_KEPT: Final = 64
_GZIP_LEVEL: Final = 6
_MIN_COMPRESSED_BYTES: Final = 1024
_COMMON: Final = (
    ("Cache-Control", "private, no-cache"),
    ("Vary", "Accept-Encoding, Authorization, Cookie, X-API-Key"),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True, slots=True)
class Kept:
    body: bytes
    gzipped: bytes | None
    etag: str

    def answer(self, headers: MultiMapping[str]) -> ClientReply:
        """304 when the client has it (RFC 9110, 13.1.2), else the document, compressed when the client takes that."""
        validator = ("ETag", self.etag)
        if self.etag in _tags(headers.get("If-None-Match", "")):
            return ClientReply(304, b"", headers=(validator, *_COMMON))
        if self.gzipped is not None and _takes_gzip(headers.get("Accept-Encoding", "")):
            return ClientReply(200, self.gzipped, headers=(("Content-Encoding", "gzip"), validator, *_COMMON))
        return ClientReply(200, self.body, headers=(validator, *_COMMON))


class Shelf:
    """Bounded: the least recently used goes. Two that want the same document at once make it once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], asyncio.Future[Kept]] = OrderedDict()

    async def get(self, match: Match, request: Request, describe: Callable[[Request], Any]) -> Kept:
        """The document for this caller."""
        caller = request.caller
        # The values themselves are in the key, so that none of them can be freed and its identity used again.
        key = (
            match.route.name,
            match.segments,
            caller.principal.tenant,
            _Same(caller.catalogue),
            _Same(caller.policy),
            caller.files,
            caller.shared_inputs,
        )
        found = self._kept.get(key)
        if found is None:
            found = asyncio.ensure_future(asyncio.to_thread(_make, describe, request))  # noqa: TID251 - awaited here
            self._kept[key] = found
            found.add_done_callback(lambda made: self._drop_failed(key, made))
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return await asyncio.shield(found)

    def _drop_failed(self, key: tuple[Any, ...], made: asyncio.Future[Kept]) -> None:
        """Also when nobody waits any more: the next caller makes it anew."""
        if (made.cancelled() or made.exception() is not None) and self._kept.get(key) is made:
            del self._kept[key]


@dataclass(frozen=True, slots=True)
class _Same:
    """Compares by identity, and keeps alive what it compares."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _make(describe: Callable[[Request], Any], request: Request) -> Kept:
    body = orjson.dumps(describe(request), default=_plain)
    gzipped = gzip.compress(body, _GZIP_LEVEL, mtime=0) if len(body) >= _MIN_COMPRESSED_BYTES else None
    return Kept(body, gzipped, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _plain(value: Any) -> Any:
    """Read-only views that the catalogue is made of."""
    return dict(value)


def _tags(text: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in text.split(",")}


def _takes_gzip(text: str) -> bool:
    for part in text.split(","):
        coding, _, weight = part.strip().partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
