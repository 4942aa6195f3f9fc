"""Keeps described documents ready to send: made once per catalogue, policy and file list, serialised, compressed and validated by ETag."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from multidict import MultiMapping

from policy.call import ClientReply
from policy.principal import TenantId
from policy.rule_context import RuleInput
from proxy.limits.keyed_semaphore import KeyedSemaphore

MAX_KEPT: Final = 64
_GZIP_LEVEL: Final = 6
_MIN_COMPRESSED_BYTES: Final = 1024
_COMMON: Final = (
    ("Cache-Control", "private, no-cache"),
    ("Vary", "Accept-Encoding, Authorization, Cookie, X-API-Key"),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True, slots=True)
class CachedDocument:
    """places: where each member stands in the body."""

    body: bytes
    gzipped: bytes | None
    etag: str
    places: Mapping[str, tuple[int, int]]

    def member(self, name: str) -> CachedDocument:
        """A document of that member alone, empty when there is none."""
        start, end = self.places.get(name, (0, 0))
        body = b"{" + self.body[start:end] + b"}"
        return CachedDocument(body, None, _tag(body), {})

    def answer(self, headers: MultiMapping[str]) -> ClientReply:
        """304 when the client has it (RFC 9110, 13.1.2), else the document, compressed when the client takes that."""
        validator = ("ETag", self.etag)
        if self.etag in _tags(headers.get("If-None-Match", "")):
            return ClientReply(304, b"", headers=(validator, *_COMMON))
        if self.gzipped is not None and _takes_gzip(headers.get("Accept-Encoding", "")):
            return ClientReply(200, self.gzipped, headers=(("Content-Encoding", "gzip"), validator, *_COMMON))
        return ClientReply(200, self.body, headers=(validator, *_COMMON))


class DocumentCache:
    """One whole document of each tenant; the least recently used tenant's goes. Two that want the same at once make it once.

    SECURITY: nobody has two places, so whoever asks for many classes, or changes its files again and again, takes nobody's
    (tests/proxy/upstream/test_document_cache.py).
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[TenantId, tuple[tuple[Any, ...], asyncio.Future[CachedDocument]]] = OrderedDict()
        self._makers = KeyedSemaphore()

    async def get(
        self, request: RuleInput, describe: Callable[[RuleInput], Mapping[str, Any]], name: str | None = None
    ) -> CachedDocument:
        """The document for this caller; with a name that member of it alone."""
        whole = await self._whole(request, describe)
        return whole if name is None else whole.member(name)

    async def _whole(self, request: RuleInput, describe: Callable[[RuleInput], Mapping[str, Any]]) -> CachedDocument:
        context = request.context
        tenant = context.principal.tenant
        # The values themselves are in the key, so that none of them can be freed and its identity used again.
        key = (_Same(context.catalogue), _Same(context.policy), context.files.input, context.shared_inputs)
        async with self._makers.of(tenant):
            found_key, found = self._kept.get(tenant, (None, None))
            if found is None or found_key != key:
                found = asyncio.ensure_future(asyncio.to_thread(_make, describe, request))  # noqa: TID251 - awaited here
                self._kept[tenant] = (key, found)
                while len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(tenant)
            try:
                return await asyncio.shield(found)
            except Exception:
                if self._kept.get(tenant, (None, None))[1] is found:
                    del self._kept[tenant]  # the next caller makes it anew
                raise


@dataclass(frozen=True, slots=True)
class _Same:
    """Compares by identity, and keeps alive what it compares."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _make(describe: Callable[[RuleInput], Mapping[str, Any]], request: RuleInput) -> CachedDocument:
    places: dict[str, tuple[int, int]] = {}
    members: list[bytes] = []
    place = 1
    for name, value in describe(request).items():
        members.append(orjson.dumps(name) + b":" + orjson.dumps(value, default=_plain))
        places[name] = (place, place + len(members[-1]))
        place += len(members[-1]) + 1
    body = b"{" + b",".join(members) + b"}"
    gzipped = gzip.compress(body, _GZIP_LEVEL, mtime=0) if len(body) >= _MIN_COMPRESSED_BYTES else None
    return CachedDocument(body, gzipped, _tag(body), places)


def _tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


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
