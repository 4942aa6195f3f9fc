"""Documents of the tenants' jobs, kept in memory: so that nobody's queue or history is read through everybody's workflows.

Bounded in bytes by tenant and in all. What is not kept is asked for by its id.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from policy.documents import Document, Kind
from policy.principal import TenantId
from policy.values import value

MAX_TENANT_BYTES: Final = 8 * 1024**2
MAX_BYTES: Final = 48 * 1024**2
MAX_UNWRITTEN_BYTES: Final = 2 * 1024**2
"""Of a tenant's: what was not written yet is not packed either, and most jobs have ended before anybody asks for it."""
_OVERHEAD_BYTES: Final = 300
"""Of one document, beside its bytes."""


@dataclass(slots=True)
class _Shelf:
    documents: OrderedDict[tuple[Kind, str], Document] = field(default_factory=OrderedDict)
    held_bytes: int = 0
    unwritten_bytes: int = 0


class KeptDocuments:
    """The oldest of a tenant's own give way; when all are too many, those of the tenant that has most."""

    def __init__(self, max_tenant_bytes: int = MAX_TENANT_BYTES, max_bytes: int = MAX_BYTES) -> None:
        self._max_tenant_bytes = max_tenant_bytes
        self._max_bytes = max_bytes
        self._shelves: dict[TenantId, _Shelf] = {}
        self.held_bytes = 0

    def of(self, tenant: TenantId) -> KeptOfTenant:
        return KeptOfTenant(self, tenant)

    def get(self, tenant: TenantId, kind: Kind, prompt_id: str) -> Document | None:
        shelf = self._shelves.get(tenant)
        return None if shelf is None else shelf.documents.get((kind, prompt_id))

    def has_room(self, tenant: TenantId, size: int) -> bool:
        """Whether a document may come unwritten; else it is to be written and packed."""
        shelf = self._shelves.get(tenant)
        held = 0 if shelf is None else shelf.unwritten_bytes
        return held + size <= MAX_UNWRITTEN_BYTES and self.held_bytes + size <= self._max_bytes // 2

    def put(self, tenant: TenantId, prompt_id: str, document: Document) -> None:
        """Keeps it in the place of an older one. What alone is more than the tenant's share is not kept."""
        key, cost, shelf = (document.kind, prompt_id), _cost(document), self._shelves.get(tenant)
        if shelf is not None and key in shelf.documents:
            self._drop(tenant, key)
            shelf = self._shelves.get(tenant)
        if cost > self._max_tenant_bytes:
            return
        if shelf is None:
            shelf = self._shelves[tenant] = _Shelf()
        shelf.documents[key] = document
        shelf.held_bytes += cost
        self.held_bytes += cost
        shelf.unwritten_bytes += _unwritten(document)
        while shelf.held_bytes > self._max_tenant_bytes:
            self._drop_oldest(tenant)
        while self.held_bytes > self._max_bytes:
            self._drop_oldest(max(self._shelves, key=lambda owner: self._shelves[owner].held_bytes))

    def forget(self, tenant: TenantId, prompt_id: str, *kinds: Kind) -> None:
        """kinds: all without any."""
        for kind in kinds or Kind:
            self._drop(tenant, (kind, prompt_id))

    def _drop_oldest(self, tenant: TenantId) -> None:
        self._drop(tenant, next(iter(self._shelves[tenant].documents)))

    def _drop(self, tenant: TenantId, key: tuple[Kind, str]) -> None:
        shelf = self._shelves.get(tenant)
        document = shelf.documents.pop(key, None) if shelf is not None else None
        if shelf is not None and document is not None:
            shelf.held_bytes -= _cost(document)
            shelf.unwritten_bytes -= _unwritten(document)
            self.held_bytes -= _cost(document)
            if not shelf.documents:
                del self._shelves[tenant]


@value
class KeptOfTenant:
    """One tenant's: what rules see (policy.documents.OwnDocuments)."""

    kept: KeptDocuments
    tenant: TenantId

    def get(self, kind: Kind, prompt_id: str) -> Document | None:
        return self.kept.get(self.tenant, kind, prompt_id)

    def has_room(self, size: int) -> bool:
        return self.kept.has_room(self.tenant, size)


def _cost(document: Document) -> int:
    return document.held_bytes + _OVERHEAD_BYTES


def _unwritten(document: Document) -> int:
    return 0 if document.write is None else document.held_bytes
