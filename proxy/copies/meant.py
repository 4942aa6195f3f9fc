"""Which copy stands for a file whose ComfyUI does not give it: that of the file itself, or none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import orjson

from policy.call import UpstreamPath
from policy.copies import CopyState
from policy.documents import Document, Kind
from policy.makers import maker_of
from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from policy.v2.outputs import MAX_OUTPUTS, find_results
from proxy.copies import copy_operations as records
from proxy.jobs.copy_requests import Copy
from proxy.jobs.job import Job, JobState
from proxy.jobs.job_documents import JobDocuments
from proxy.jobs.registry import JobRegistry
from proxy.persistence.operations import Database
from proxy.v2.off_loop import off_loop

MAX_ASKED: Final = 32
"""Jobs of which it is looked up which files they made, for one answer."""
MAX_LISTED: Final = 1000
MAX_REMEMBERED: Final = 256
_THERE: Final = frozenset({CopyState.COPIED, CopyState.WIPED})
Files = frozenset[tuple[Folder | None, str]]


class MeantCopies:
    """SECURITY: names come again, of files that were deleted or that a node writes anew: where a later file may have the name that is asked for, the copy
    of an earlier one is not given for it (tests/proxy/copies/test_meant.py).

    answers: whether the ComfyUI that has a file says anything, as far as is known.
    """

    def __init__(
        self,
        database: Database,
        documents: JobDocuments,
        registry: JobRegistry,
        answers: Callable[[Folder, UpstreamPath], bool],
    ) -> None:
        self._database = database
        self._documents = documents
        self._registry = registry
        self.answers = answers
        self._made: OrderedDict[tuple[str, float], Files | None] = OrderedDict()
        """Files of jobs that have ended, by id and end; None where that is not known."""

    def is_gone(self, path: str) -> bool:
        """Whether a ComfyUI made it that is configured no more."""
        return maker_of(path) not in ("", *self._registry.comfyuis)

    async def find(self, tenant: TenantId, folder: Folder, path: UpstreamPath, stamp: str) -> Copy | None:
        """stamp: of the file that is meant; "" for whichever has the name. None where the bucket has it not, or it is not sure which one is meant.

        Raises DatabaseUnavailable.
        """
        own = Namespace(tenant).path_to_client(path)
        if stamp:
            return await self._database.read(records.of_file, tenant, folder, own or path, stamp)
        if not own:
            return await self._preview(tenant, folder, path)
        # What lies among everybody's previews is told by the same name.
        return None if folder is Folder.TEMP else await self._newest(tenant, folder, path, own)

    async def _preview(self, tenant: TenantId, folder: Folder, path: UpstreamPath) -> Copy | None:
        """Of a name among everybody's it is known which run wrote it last."""
        job = self._registry.temp_files.origin(tenant, path)
        if not isinstance(job, Job):
            return None
        return await self._there(await self._database.read(records.of_name, tenant, folder, path, job.prompt_id))

    async def _newest(self, tenant: TenantId, folder: Folder, path: UpstreamPath, name: str) -> Copy | None:
        found = await self._there(await self._database.read(records.of_name, tenant, folder, name))
        if found is None or self._is_being_written(tenant, path):
            return None
        if await self._database.read(records.newest_hash, found) not in ("", found.hash):
            return None
        listed = await self._database.read(records.may_have_written, found, MAX_LISTED)
        maybe = {
            (prompt_id, ended_at_s)
            for prompt_id, ended_at_s, comfyui in listed
            if prompt_id != found.prompt_id and self._ran_at(comfyui, maker_of(path))
        }
        if len(listed) >= MAX_LISTED or len(maybe) > MAX_ASKED:
            return None
        for job in maybe:
            made = await self._made_by(tenant, *job)
            if made is None or (folder, name) in made:
                return None
        return found

    def _ran_at(self, comfyui: str, maker: str) -> bool:
        """comfyui: as the database has it; one that is not among the others may have been the first one under another name."""
        return comfyui == maker if maker else comfyui not in self._registry.comfyuis[1:]

    async def _there(self, newest: Copy | None) -> Copy | None:
        """The copy of this very file, where one was made: a later job may list what an earlier one made."""
        if newest is None or newest.state in _THERE:
            return newest
        if newest.state == CopyState.UNWANTED or not newest.stamp:
            return None
        file = (newest.tenant, newest.folder, newest.path, newest.stamp, newest.hash)
        return await self._database.read(records.of_file, *file)

    def _is_being_written(self, tenant: TenantId, path: UpstreamPath) -> bool:
        """What a job that runs has made so far its client has heard of, and the gate has not."""
        comfyui = maker_of(path) or self._registry.comfyuis[0]
        return any(job.tenant == tenant and job.state is JobState.RUNNING for job in self._registry.given_to(comfyui))

    async def _made_by(self, tenant: TenantId, prompt_id: str, ended_at_s: float) -> Files | None:
        key = (prompt_id, ended_at_s)
        if key not in self._made:
            read = await self._documents.read(tenant, Kind.ENTRY, (prompt_id,))
            document = read.documents.get(prompt_id)
            made = Files() if document is None else await off_loop(_files_of, document, size=document.size)
            self._made[key] = None if prompt_id in read.unread else made
            while len(self._made) > MAX_REMEMBERED:
                self._made.popitem(last=False)
        return self._made.get(key)


def _files_of(document: Document) -> Files | None:
    """document: an entry of the history. None where it lists more than is read of one."""
    entry: Any = orjson.loads(document.numbered(0))
    shown = find_results(entry.get("outputs"))
    return None if len(shown) >= MAX_OUTPUTS else frozenset((each.folder, each.path) for each in shown)
