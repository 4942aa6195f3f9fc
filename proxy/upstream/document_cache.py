"""Keeps described documents ready to send: made once per catalogue, policy and file list, serialised, compressed and validated by ETag."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
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
MAX_BYTES: Final = 96 * 1024**2
"""Of all forms of all documents; the one that is asked for is held however large it is."""
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
        kept_key, kept = self._kept.get(tenant, (None, None))
        if kept is not None and kept.done() and kept_key == key:
            self._kept.move_to_end(tenant)
            return kept.result()
        async with self._makers.of(tenant):
            found_key, found = self._kept.get(tenant, (None, None))
            if found is None or found_key != key:
                found = asyncio.ensure_future(self._make(describe, request))  # noqa: TID251 - awaited here
                self._kept[tenant] = (key, found)
            self._kept.move_to_end(tenant)
            try:
                document = await asyncio.shield(found)
            except Exception:
                if self._kept.get(tenant, (None, None))[1] is found:
                    del self._kept[tenant]  # the next caller makes it anew
                raise
            self._make_room()
            return document

    async def _make(self, describe: Describe, request: RuleInput) -> CachedDocument:
        document = await asyncio.to_thread(_write, describe, request)
        # Tenants of one policy without files see the same: it is held, and compressed, once.
        # SECURITY: not where files are listed: who has a neighbour's would see by the coding that the neighbour has them too (test_document_cache.py).
        if not request.context.files.input and (like := self._like(document)) is not None:
            return like
        if len(document.body) >= _MIN_COMPRESSED_BYTES:
            document.coded.add("gzip", await asyncio.to_thread(quick_gzip, document.body))
            self._tasks.start(self._pack(document), "pack a document")
        return document

    async def _pack(self, document: CachedDocument) -> None:
        """Its smallest forms, when it has stayed for a while; where there are none it is sent as it is."""
        await asyncio.sleep(SETTLED_S)
        for coding in CODINGS:
            if not any(each is document for each in self._documents()):
                return
            with suppress(CompressionFailed):
                document.coded.add(coding, await self._compressor.best(coding, document.body))

    def _like(self, document: CachedDocument) -> CachedDocument | None:
        return next((each for each in self._documents() if each.coded.version == document.coded.version), None)

    def _documents(self) -> Iterator[CachedDocument]:
        """Those that are made. One that several tenants have comes several times."""
        for _, found in self._kept.values():
            if found.done() and not found.cancelled() and found.exception() is None:
                yield found.result()

    def _make_room(self) -> None:
        held = {id(each): each.coded.held_bytes for each in self._documents()}
        while len(self._kept) > 1 and (len(self._kept) > MAX_KEPT or sum(held.values()) > MAX_BYTES):
            self._kept.popitem(last=False)
            held = {id(each): each.coded.held_bytes for each in self._documents()}


@dataclass(frozen=True, slots=True)
class _Same:
    """Compares by identity, and keeps alive what it compares."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _write(describe: Describe, request: RuleInput) -> CachedDocument:
    places: dict[str, tuple[int, int]] = {}
    body = bytearray(b"{")
    for name, value in describe(request):
        start = len(body)
        body += orjson.dumps(name) + b":" + orjson.dumps(value, default=_plain) + b","
        places[name] = (start, len(body) - 1)
    body[max(1, len(body) - 1) :] = b"}"
    whole = bytes(body)
    return CachedDocument(whole, CodedDocument(version_of(whole), {IDENTITY: whole}), places)


def _plain(value: Any) -> Any:
    """Read-only views that the catalogue is made of."""
    return dict(value)
