"""Keeps described documents ready to send: made once per catalogue, policy and file list, serialised, compressed and validated by ETag."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson
from multidict import MultiMapping

from policy.call import ClientReply
from policy.principal import TenantId
from policy.rule_context import RuleInput
from proxy.http.codecs import CODINGS, quick_gzip
from proxy.http.content_coding import IDENTITY, CodedDocument, version_of
from proxy.limits.keyed_semaphore import KeyedSemaphore
from proxy.tasks import Tasks
from proxy.upstream.compressor import CompressionFailed, Compressor

Describe = Callable[[RuleInput], Iterable[tuple[str, Mapping[str, Any]]]]
"""Tells the members of a document one after the other, so that the whole of it is there in its written form alone."""

MAX_KEPT: Final = 64
SETTLED_S: Final = 5.0
"""A document that stays for so long is worth its smallest form, which takes a second to make."""
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
    coded: CodedDocument
    places: Mapping[str, tuple[int, int]]

    def member(self, name: str) -> CachedDocument:
        """A document of that member alone, empty when there is none."""
        start, end = self.places.get(name, (0, 0))
        body = b"{" + self.body[start:end] + b"}"
        return CachedDocument(body, CodedDocument("", {IDENTITY: body}), {})

    def answer(self, headers: MultiMapping[str]) -> ClientReply:
        """304 when the client has it (RFC 9110, 13.1.2), else the document in the coding that the client likes best."""
        selected = self.coded.select(headers)
        assert selected is not None, "a document is there without a coding too"
        fields = tuple(field for field in selected.fields if field[0] != "Vary")
        return ClientReply(304 if selected.is_unchanged else 200, selected.body, headers=(*fields, *_COMMON))


class DocumentCache:
    """One whole document of each tenant; the least recently used tenant's goes. Two that want the same at once make it once.

    SECURITY: nobody has two places, so whoever asks for many classes, or changes its files again and again, takes nobody's
    (tests/proxy/upstream/test_document_cache.py).
    """

    def __init__(self, compressor: Compressor) -> None:
        self._kept: OrderedDict[TenantId, tuple[tuple[Any, ...], asyncio.Future[CachedDocument]]] = OrderedDict()
        self._makers = KeyedSemaphore()
        self._compressor = compressor
        self._tasks = Tasks()

    async def stop(self) -> None:
        await self._tasks.stop()

    async def get(self, request: RuleInput, describe: Describe, name: str | None = None) -> CachedDocument:
        """The document for this caller; with a name that member of it alone."""
        whole = await self._whole(request, describe)
        return whole if name is None else whole.member(name)

    async def _whole(self, request: RuleInput, describe: Describe) -> CachedDocument:
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
                self._tasks.start(self._pack(tenant, found), "pack a document")
            self._kept.move_to_end(tenant)
            try:
                return await asyncio.shield(found)
            except Exception:
                if self._kept.get(tenant, (None, None))[1] is found:
                    del self._kept[tenant]  # the next caller makes it anew
                raise

    async def _pack(self, tenant: TenantId, found: asyncio.Future[CachedDocument]) -> None:
        """Its smallest forms, when it has stayed for a while; where there are none it is sent as it is."""
        await asyncio.wait((found,))
        await asyncio.sleep(SETTLED_S)
        if found.cancelled() or found.exception() is not None:
            return
        document = found.result()
        if len(document.body) < _MIN_COMPRESSED_BYTES:
            return
        for coding in CODINGS:
            if self._kept.get(tenant, (None, None))[1] is not found:
                return
            with suppress(CompressionFailed):
                document.coded.add(coding, await self._compressor.best(coding, document.body))


@dataclass(frozen=True, slots=True)
class _Same:
    """Compares by identity, and keeps alive what it compares."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _make(describe: Describe, request: RuleInput) -> CachedDocument:
    places: dict[str, tuple[int, int]] = {}
    members: list[bytes] = []
    place = 1
    for name, value in describe(request):
        members.append(orjson.dumps(name) + b":" + orjson.dumps(value, default=_plain))
        places[name] = (place, place + len(members[-1]))
        place += len(members[-1]) + 1
    body = b"{" + b",".join(members) + b"}"
    coded = CodedDocument(version_of(body), {IDENTITY: body})
    if len(body) >= _MIN_COMPRESSED_BYTES:
        coded.add("gzip", quick_gzip(body))
    return CachedDocument(body, coded, places)


def _plain(value: Any) -> Any:
    """Read-only views that the catalogue is made of."""
    return dict(value)
