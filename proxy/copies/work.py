"""What is done with one copy: find out what a job made, copy a file, wipe an original, delete a copy."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from policy.copies import CopyState, file_copy_id, form_copy_id, keeps_count, object_key
from policy.functions.conversion import Recipe, name_of
from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from policy.v2.assets import Asset
from policy.v2.jobs import JobView
from proxy.copies import copy_operations as records
from proxy.copies.bucket import Bucket, BucketFailed, ObjectGone
from proxy.copies.forms import ConversionFailed, FormRefused, Forms, verified
from proxy.copies.originals import OriginalGone, Originals
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.files.hashing import blake3
from proxy.http.errors import LimitExceeded, UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.copy_requests import Copy
from proxy.jobs.job_rows import ENDS, StoredState
from proxy.persistence.operations import Database, DatabaseUnavailable

LOOK_LIMIT_S: Final = 600.0
"""For all that a job made to be measured: a job of many films takes long."""
READ_BYTES: Final = 4 * 1024**2
"""Of a copy that is compared with its original, at a time."""
USE_WAIT_S: Final = 300.0
READ_WAIT_S: Final = 3600.0
"""Until it is looked again whether a job uses an original, or another copy is still to be made of it."""
CONVERTED_TRIES: Final = 3
"""Over half an hour: what was refused may have been for want of memory, or of time on a busy machine."""
LOST_NOTE: Final = "it was deleted, or left the history, before it was looked up"
_UNFINISHED: Final = tuple(sorted(state.value for state in StoredState if state not in ENDS))
_log = logging.getLogger("comfygate")


class Views(Protocol):
    """Jobs as the API tells of them (proxy/v2/job_views.py)."""

    async def find(self, tenant: TenantId, prompt_id: str) -> JobView | None:
        """With what a job that has ended made, measured as far as ComfyUI can be asked. Raises DatabaseUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Done:
    """copy: as it is from now on. result: a word for metrics. has_failed: nothing has changed, and `note` says why. is_settled: it stands in the
    database so already.
    """

    copy: Copy
    result: str
    note: str = ""
    has_failed: bool = False
    may_be_tried_again: bool = True
    is_settled: bool = False


@dataclass(slots=True)
class CopyWork:
    """disk: None where the gate does not see ComfyUI's folders; then nothing is wiped. wipes: whether the configuration in force says that it is.
    forms_of: what its function gives of a job in another form, which is copied besides.
    """

    database: Database
    bucket: Bucket
    originals: Originals
    forms: Forms
    disk: ComfyUIFolders | None
    views: Views
    wipes: Callable[[], bool]
    forms_of: Callable[[JobView], Sequence[tuple[Asset, Recipe]]]
    clock: Callable[[], float] = field(default=time.time)

    def may_wipe(self, copy: Copy) -> bool:
        """SECURITY: nothing but what lies in the tenant's own output folder, as it was measured, is ever deleted (tests/proxy/copies/test_wiping.py)."""
        if self.disk is None or not self.wipes() or copy.folder != Folder.OUTPUT or not copy.stamp or not copy.hash:
            return False
        if copy.form:
            return False
        with suppress(OriginalGone):
            path = self.originals.path_of(copy)
            is_own = path.startswith(f"{Namespace(TenantId(copy.tenant)).root}/")
            return is_own and self.disk.sees(Folder.OUTPUT, path)
        return False

    async def do(self, copy: Copy) -> Done:
        """Raises DatabaseUnavailable."""
        try:
            match copy.state:
                case CopyState.WAITING:
                    return await (self._split(copy) if copy.is_whole_job else self._copy(copy))
                case CopyState.COPIED:
                    return await self._wipe(copy)
                case CopyState.WIPED:
                    return await self._delete_original(copy)
                case CopyState.UNWANTED:
                    return await self._delete(copy)
            raise AssertionError(f"nothing is due of one that is {copy.state}")
        except BucketFailed as error:
            return _failed(copy, str(error))
        except OriginalGone as error:
            return _failed(copy, str(error), may_be_tried_again=False)
        except FormRefused as error:
            return _failed(copy, str(error), may_be_tried_again=copy.attempts + 1 < CONVERTED_TRIES)
        except ConversionFailed as error:
            return _failed(copy, str(error))
        except (UpstreamUnavailable, UpstreamTimeout, LimitExceeded):
            return _failed(copy, "ComfyUI does not give the original")
        except OSError as error:
            return _failed(copy, f"the original: {error.strerror or type(error).__name__}")
        except DatabaseUnavailable:
            raise
        except Exception:  # a bug: without an end it would be tried for ever, at once
            _log.exception("a copy of job %s cannot be made", copy.prompt_id)
            return _failed(copy, "the gate could not make it; its log says why")

    async def lost(self, copy: Copy) -> None:
        """While the gate worked at it, it became another's, or is wanted no more: then what was just put there goes."""
        found = await self.database.read(records.find_copy, copy.copy_id)
        if copy.object_key and (found is None or found.state == CopyState.UNWANTED):
            with suppress(BucketFailed):
                await self.bucket.delete(copy.object_key)
                await self.database.run(records.remove, copy)

    async def _split(self, job: Copy) -> Done:
        tenant = TenantId(job.tenant)
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                view = await self.views.find(tenant, job.prompt_id)
        except TimeoutError:
            return _failed(job, "what the job made took too long to be measured")
        assets = [] if view is None or view.ended_at_s != job.ended_at_s else view.outputs
        files = [asset for asset in assets if asset.folder is not None]
        if any(asset.hash is None for asset in files):
            return _failed(job, "ComfyUI is away, which has what the job made")
        due_at_s = min(job.ended_at_s, self.clock())  # at once: the end may be of ComfyUI's clock
        found = [_copy_of(job, asset, due_at_s) for asset in files]
        if view is not None and files:
            found += [_form_of(_copy_of(job, asset, due_at_s), asset, form) for asset, form in self.forms_of(view)]
        became = await self.database.run(records.split, job, found)
        if became is records.Split.LOST:
            _log.warning("nothing of what job %s of tenant %s made is copied: %s", job.prompt_id, job.tenant, LOST_NOTE)
            return Done(job._replace(note=LOST_NOTE), became, is_settled=True)
        return Done(job, became, is_settled=True)

    async def _copy(self, copy: Copy) -> Done:
        if copy.form:
            return await self._copy_form(copy)
        async with aclosing(self.originals.read(copy)) as pieces:
            await self.bucket.put(copy.object_key, pieces, copy.size_bytes, copy.content_type, copy.path)
        done = copy._replace(state=CopyState.COPIED, copied_at_s=self.clock(), due_at_s=None, attempts=0)
        return Done(done, "copied")

    async def _copy_form(self, copy: Copy) -> Done:
        async with self.forms.open(copy) as output, aclosing(verified(output)) as pieces:
            size_bytes, digest = output.size_bytes, output.hash
            await self.bucket.put(copy.object_key, pieces, size_bytes, output.content_type, output.name)
        done = copy._replace(state=CopyState.COPIED, copied_at_s=self.clock(), due_at_s=None, attempts=0)
        return Done(done._replace(form_hash=digest, form_bytes=size_bytes), "copied")

    async def _wipe(self, copy: Copy) -> Done:
        """The copy is read once more, as a whole, before it is the only one. What it says is on disk before the original goes."""
        if not self.may_wipe(copy) or self.disk is None:
            return Done(copy._replace(due_at_s=None), "kept", "originals like it are not wiped")
        if await self.database.read(records.is_in_use, copy, _UNFINISHED):
            return Done(copy._replace(due_at_s=self.clock() + USE_WAIT_S), "kept", "a job uses it")
        if await self.database.read(records.is_still_read, copy):
            note = "another copy is still to be made of it"
            return Done(copy._replace(due_at_s=self.clock() + READ_WAIT_S), "kept", note)
        if await self.disk.stamps([(Folder.OUTPUT, self.originals.path_of(copy))]) != [copy.stamp]:
            return Done(copy._replace(due_at_s=None), "kept", "the original was deleted, or overwritten")
        if not await self._is_whole(copy):
            again = copy._replace(state=CopyState.WAITING, copied_at_s=None, due_at_s=self.clock(), attempts=0)
            return Done(again, "missing", "the bucket has it no more, or another: it is copied again")
        return Done(copy._replace(state=CopyState.WIPED, due_at_s=self.clock(), attempts=0), "wiped")

    async def _delete_original(self, copy: Copy) -> Done:
        if self.disk is not None and self.may_wipe(copy):
            tenant, path = TenantId(copy.tenant), self.originals.path_of(copy)
            # ComfyUI counts on from the highest number of each kind: its name stays, else a later file would get it.
            is_last = await asyncio.to_thread(self._keeps_count, copy)
            take = self.disk.empty if is_last else self.disk.delete
            await take(tenant, Folder.OUTPUT, path, copy.stamp)
        return Done(copy._replace(due_at_s=None, attempts=0), "deleted")

    async def _delete(self, copy: Copy) -> Done:
        if copy.object_key:
            await self.bucket.delete(copy.object_key)
        await self.database.run(records.remove, copy)
        return Done(copy, "removed", is_settled=True)

    async def _is_whole(self, copy: Copy) -> bool:
        """Raises BucketFailed."""
        digest = blake3()
        try:
            if await self.bucket.size_of(copy.object_key) != copy.size_bytes:
                return False
            for start in range(0, copy.size_bytes, READ_BYTES):
                count = min(READ_BYTES, copy.size_bytes - start)
                piece = await self.bucket.read(copy.object_key, start, count, copy.size_bytes)
                await asyncio.to_thread(digest.update, piece)
        except ObjectGone:
            return False
        return f"blake3:{digest.hexdigest()}" == copy.hash

    def _keeps_count(self, copy: Copy) -> bool:
        assert self.disk is not None, "looked at"
        path = self.originals.path_of(copy)
        root = self.disk.directories.root_of(Folder.OUTPUT, path)
        assert root is not None, "may be wiped"
        return keeps_count(Path(path).name, _names_in((root / path).parent))


def _copy_of(job: Copy, asset: Asset, due_at_s: float) -> Copy:
    """asset: a file that is measured."""
    assert asset.folder is not None, "looked at"
    assert asset.hash is not None, "looked at"
    copy_id = file_copy_id(job.copy_id, asset.asset_id)
    return Copy(
        *(copy_id, job.tenant, job.prompt_id, asset.asset_id, CopyState.WAITING, asset.folder.value),
        *(asset.path, asset.stamp, asset.hash, asset.size_bytes, asset.content_type),
        object_key=object_key(TenantId(job.tenant), job.prompt_id, copy_id, asset.path),
        ended_at_s=job.ended_at_s,
        due_at_s=due_at_s,
    )


def _form_of(copy: Copy, asset: Asset, recipe: Recipe) -> Copy:
    """As its function gives it."""
    copy_id = form_copy_id(copy.copy_id, recipe.mark)
    key = object_key(TenantId(copy.tenant), copy.prompt_id, copy_id, name_of(asset, recipe))
    return copy._replace(copy_id=copy_id, object_key=key, form=recipe.mark)


def _names_in(folder: Path) -> Iterator[str]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name


def _failed(copy: Copy, note: str, *, may_be_tried_again: bool = True) -> Done:
    return Done(copy, "failed", note, has_failed=True, may_be_tried_again=may_be_tried_again)
