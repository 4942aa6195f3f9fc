"""Keeps what each tenant may call, written for programs and for people: made once for a tenant's functions and address, compressed, with a strong ETag."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson
from multidict import MultiMapping

from policy.call import ClientReply
from policy.openapi.choice import version_of
from policy.principal import TenantId
from policy.rule_context import RuleContext
from proxy.http.codecs import quick_gzip
from proxy.http.content_coding import IDENTITY, CodedDocument
from proxy.http.content_coding import version_of as version_of_bytes
from proxy.limits.heavy_work import HeavyWork
from proxy.pages.document import HTML

MAX_KEPT: Final = 64
MAX_BYTES: Final = 32 * 1024**2
"""Of all that are kept; the newest is, however large it is."""
_BYTES_OF_EACH: Final = 8 * 1024
"""Of one function, about, as much work as that."""
_VARY: Final = ("Vary", "Accept, Accept-Encoding, Authorization, Cookie, X-API-Key")
_CACHING: Final = ("Cache-Control", "private, no-cache")


@dataclass(frozen=True, slots=True)
class Written:
    """headers: of the answers, besides those of the form that is sent."""

    coded: CodedDocument
    content_type: str
    headers: tuple[tuple[str, str], ...]

    def answer(self, headers: MultiMapping[str]) -> ClientReply:
        """304 when the client has it (RFC 9110, 13.1.2)."""
        selected = self.coded.select(headers)
        assert selected is not None, "it is there without a coding too"
        fields = tuple(field for field in selected.fields if field[0] != "Vary")
        status = 304 if selected.is_unchanged else 200
        return ClientReply(status, selected.body, self.content_type, (*fields, *self.headers, _CACHING, _VARY))


@dataclass(frozen=True, slots=True)
class Docs:
    """document: of functions. v2: of Comfy API v2."""

    document: Written
    v2: Written
    page: Written

    @property
    def held_bytes(self) -> int:
        return sum(each.coded.held_bytes for each in (self.document, self.v2, self.page))


class TenantDocs:
    """One place for each tenant; the least recently used tenant's goes.

    SECURITY: the address is what the client says it is where the configuration does not, so a tenant that says many has one place all the same, and
    what is made for it is heavy work, which comes in its turn (tests/openapi/test_docs.py).
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[TenantId, tuple[tuple[Any, ...], Docs]] = OrderedDict()

    async def of(self, context: RuleContext, heavy: HeavyWork) -> Docs:
        """heavy: does what is much work. Raises LimitExceeded(too-many-documents)."""
        tenant, functions = context.principal.tenant, context.functions
        key = (version_of(functions), tuple(functions), context.links, context.takes_workflows)
        known_key, known = self._kept.get(tenant, (None, None))
        if known is None or known_key != key:
            making = partial(_write, context)
            known = await heavy.run(tenant, making, _BYTES_OF_EACH * (1 + len(functions)))
            self._kept[tenant] = (key, known)
        self._kept.move_to_end(tenant)
        self._make_room()
        return known

    def _make_room(self) -> None:
        held_bytes = sum(docs.held_bytes for _, docs in self._kept.values())
        while len(self._kept) > 1 and (len(self._kept) > MAX_KEPT or held_bytes > MAX_BYTES):
            _, (_, docs) = self._kept.popitem(last=False)
            held_bytes -= docs.held_bytes


def _write(context: RuleContext) -> Docs:
    # A gate that nobody asks for them does without (tests/commands/test_footprint.py); here a thread waits for that, and not the event loop.
    from policy.openapi.document import openapi_document, v2_document
    from proxy.pages.docs import docs_page

    functions, links = context.functions, context.links
    page = docs_page(context.principal.tenant, functions, links)
    kept = tuple(field for field in page.headers if field[0] not in ("Cache-Control", "Vary"))
    return Docs(
        _json(openapi_document(functions, links)),
        _json(v2_document(links, takes_workflows=context.takes_workflows)),
        Written(_coded(page.body), HTML, kept),
    )


def _json(document: Any) -> Written:
    return Written(_coded(orjson.dumps(document)), "application/json", (("X-Content-Type-Options", "nosniff"),))


def _coded(body: bytes) -> CodedDocument:
    return CodedDocument(version_of_bytes(body), {IDENTITY: body, "gzip": quick_gzip(body)})
