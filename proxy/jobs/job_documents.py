"""What is on disk of a job for its tenant to read, as the rules show it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from policy.call import DocumentsRead
from policy.documents import Document, Kind, from_bytes
from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rules.jobs import MAX_READ_BYTES, submitted_item
from policy.rules.prompt import without_credentials
from proxy.jobs.job import Job
from proxy.jobs.job_rows import Submitted
from proxy.jobs.operator_operations import is_draining
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_operations import amend
from proxy.jobs.store_reading import documents, submissions, submitted_of
from proxy.persistence.operations import Database


class JobDocuments:
    def __init__(self, database: Database, registry: JobRegistry) -> None:
        self._database = database
        self._registry = registry

    async def read(self, tenant: TenantId, kind: Kind, prompt_ids: tuple[str, ...]) -> DocumentsRead:
        """prompt_ids: of the tenant's own jobs. Raises DatabaseUnavailable."""
        if kind is Kind.ITEM:
            submitted, unread = await self._database.read(submissions, tenant, prompt_ids, MAX_READ_BYTES)
            names = Namespace(tenant)
            items = {prompt_id: self._item(prompt_id, each, names) for prompt_id, each in submitted.items()}
            return DocumentsRead(items, tuple(unread))
        bodies, unread = await self._database.read(documents, tenant, kind.value, prompt_ids, MAX_READ_BYTES)
        return DocumentsRead({each: from_bytes(kind, body) for each, body in bodies.items()}, tuple(unread))

    async def amend(self, prompt_id: str, outputs: bytes) -> None:
        """outputs: as in Submitted. Raises DatabaseUnavailable."""
        await self._database.run(amend, prompt_id, outputs)

    async def is_draining(self) -> bool:
        """Whether ComfyUI, the first of several, is to be given no jobs, as the operator says. Raises DatabaseUnavailable."""
        first = self._registry.comfyuis[0] if self._registry.comfyuis.has_others else ""
        return await self._database.read(is_draining, first)

    async def without_credentials(self, job: Job) -> bytes | None:
        """What was submitted, as it may be kept; None where nothing is. Raises DatabaseUnavailable."""
        try:
            submitted = await self._database.read(submitted_of, job.prompt_id)
        except LookupError:
            return None
        return await asyncio.to_thread(without_credentials, submitted.body)

    def _item(self, prompt_id: str, submitted: Submitted, names: Namespace) -> Document:
        job = self._registry.job(prompt_id)
        created_ms = 0 if job is None else int(job.claimed_at_s * 1000)
        outputs: list[Any] = orjson.loads(submitted.outputs)
        return submitted_item(submitted.body, submitted.originals, prompt_id, created_ms, outputs, names)
