"""Results of functions in another form: made when somebody asks for them, once, and kept as long as there is room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from policy.functions.conversion import Derived, NotDerived
from policy.principal import TenantId
from policy.v2.asset_files import DerivedFile
from policy.v2.assets import Asset
from policy.violation import Reason, Violation
from proxy.conversion.kept_files import KeptFile, KeptFiles, Key
from proxy.conversion.order import Answer, Order
from proxy.conversion.pool import ConverterPool
from proxy.conversion.sources import Sources, gone
from proxy.files.hashing import blake3
from proxy.http.errors import TurnedAway, UpstreamTimeout, UpstreamUnavailable
from proxy.limits.keyed_semaphore import KeyedSemaphore
from proxy.persistence.operations import DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.v2.asset_files import changed_at_s

LIST_WAIT_S: Final = 8.0
"""How long an answer about a job waits for what it tells of, which may have waited for the job already (policy.functions.delivery.MAX_WAIT_S). What takes
longer is told without its size, and goes on being made."""
REFUSED_S: Final = 600.0
FAILED_S: Final = 30.0
"""How long it is told again that something could not be made, before that is tried anew: of the file's fault, and of the gate's."""
MAX_AT_ONCE: Final = 4
"""Of all tenants. Each has two files on the disk, what is fetched and what is made, of a quarter of the folder each at most."""
MAX_REFUSED: Final = 4096
MAX_FORGOTTEN: Final = 4096
"""Assets of which it is known that they were deleted, until what was being made of them has been."""
_SWEEP_EACH_S: Final = 600.0

_log = logging.getLogger("comfygate")


class NotConvertible(Violation):
    """Of the file's fault, as far as can be told: it is the same the next time, unless it wanted memory or time."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.CONVERSION_FAILED, message)


class Conversions:
    """sources: of what is converted. max_pixels: of a picture, all frames together. clock: seconds that never go back.

    SECURITY: one picture of a tenant at a time, tenants in turn: else one keeps those of all others (tests/proxy/conversion/test_conversions.py).
    """

    def __init__(
        self,
        kept: KeptFiles,
        pool: ConverterPool,
        sources: Sources,
        max_pixels: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept = kept
        self._pool = pool
        self.sources = sources
        self._max_pixels = max_pixels
        self._clock = clock
        self._turns = KeyedSemaphore()
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self._tasks = Tasks(is_watched=True)
        self._refused: OrderedDict[Key, tuple[float, Callable[[], Violation]]] = OrderedDict()
        self._forgotten: OrderedDict[tuple[TenantId, str], None] = OrderedDict()
        self._asked = 0

    @property
    def waiting(self) -> int:
        """How many are asked for, and are not being converted yet."""
        return self._asked - self._pool.busy

    async def stop(self) -> None:
        await self._tasks.stop()
        await self._pool.stop()

    async def give(self, tenant: TenantId, file: DerivedFile) -> KeptFile:
        """Made, where it is not there; who gets it calls its `release`.

        Raises Violation(conversion-failed | not-found), UpstreamUnavailable, UpstreamTimeout, and TurnedAway, DatabaseUnavailable where a copy is its source.
        """
        key = _key_of(tenant, file)
        await self._open(file)
        if (found := await self._known(key)) is not None:
            return found
        self._asked += 1
        try:
            release = await self._turns.acquire(tenant)
        finally:
            self._asked -= 1
        try:
            found = await self._known(key)  # made by who came before
        except BaseException:
            release()
            raise
        if found is not None:
            release()
            return found
        making = self._tasks.start(self._make(key, file), "conversion")
        # A process that converts is not stopped because its client has left: the turn lasts as long as it works.
        making.add_done_callback(lambda _: release())
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_unwanted)
            raise

    async def look(
        self, tenant: TenantId, files: Sequence[DerivedFile], *, is_awaited: bool
    ) -> list[Derived | NotDerived]:
        """See policy.v2.effects.DeriveOutputs."""
        until_s = asyncio.get_running_loop().time() + (LIST_WAIT_S if is_awaited else 0.0)
        return [await self._look_at(tenant, file, until_s) for file in files]

    async def forget(self, tenant: TenantId, asset: Asset) -> None:
        """An asset is deleted, and what was made of it; also what is being made in this moment."""
        of = _digest(asset.asset_id)
        self._forgotten[tenant, of] = None
        if len(self._forgotten) > MAX_FORGOTTEN:
            self._forgotten.popitem(last=False)
        await self._kept.open()
        await self._kept.forget(tenant, of)

    async def sweep_forever(
        self, tenants: Callable[[], Iterable[TenantId]], retention_s: Callable[[TenantId], float | None]
    ) -> None:
        """What was made of files that are deleted for their age goes with them, and what killed gates left half made;
        what another gate keeps in the same folder is counted.

        retention_s: how long a tenant's files are kept, None for always.
        """
        while True:
            await self._kept.open()
            await self._kept.look_again()
            await self._kept.sweep_drafts()
            for tenant in list(tenants()):
                if (age_s := retention_s(tenant)) is not None:
                    await self._kept.forget_older(tenant, age_s)
            await asyncio.sleep(_SWEEP_EACH_S)

    async def _look_at(self, tenant: TenantId, file: DerivedFile, until_s: float) -> Derived | NotDerived:
        """What is there by then, a time of the event loop's."""
        if file.asset.hash is None:
            return NotDerived()
        if asyncio.get_running_loop().time() >= until_s:
            known = self._kept.look_at(_key_of(tenant, file))
            return NotDerived() if known is None else Derived(known.size_bytes, known.hash)
        try:
            async with asyncio.timeout_at(until_s):
                found = await self.give(tenant, file)
        except (TimeoutError, UpstreamUnavailable, UpstreamTimeout, TurnedAway, DatabaseUnavailable):
            return NotDerived()
        except Violation as error:
            return NotDerived(error.message)
        found.release()
        return Derived(found.size_bytes, found.hash)

    async def _open(self, file: DerivedFile) -> None:
        try:
            await self._kept.open()
        except OSError as error:
            raise _failed(file, f"the folder of what was converted cannot be read: {error}")() from None

    async def _known(self, key: Key) -> KeptFile | None:
        """Raises Violation(conversion-failed) of what was refused a moment ago."""
        until_s, refusal = self._refused.get(key, (0.0, None))
        if refusal is not None and self._clock() < until_s:
            raise refusal()
        return await self._kept.find(key)

    async def _make(self, key: Key, file: DerivedFile) -> KeptFile:
        self._asked += 1
        try:
            # SECURITY: drafts count for nothing yet, and would fill the disk (tests/proxy/conversion/test_conversions.py).
            async with self._places:
                return await self._converted(key, file)
        except OSError as error:
            failed = _failed(file, f"the folder of what was converted cannot be written: {error}")
            raise self._refuse(key, failed, FAILED_S) from None
        finally:
            self._asked -= 1

    async def _converted(self, key: Key, file: DerivedFile) -> KeptFile:
        """Raises Violation(conversion-failed | not-found), UpstreamUnavailable, UpstreamTimeout, OSError."""
        fetched, draft = await self._kept.draft(key.tenant), await self._kept.draft(key.tenant)
        max_bytes = self._kept.max_file_bytes
        try:
            async with self.sources.opened(key.tenant, file, fetched, max_bytes) as source:
                recipe = file.recipe
                answer = await self._pool.convert(
                    Order(
                        source=str(source.path),
                        target=str(draft),
                        format=recipe.format,
                        quality=recipe.quality,
                        max_pixels=self._max_pixels(),
                        max_bytes=max_bytes,
                        stamp=source.stamp,
                    )
                )
            self._check(key, file, answer)
            changed_s = changed_at_s(file.asset)
            made = await self._kept.keep(key, draft, answer.size_bytes, answer.hash, changed_s)
            if (key.tenant, key.of) in self._forgotten:  # it was deleted meanwhile
                made.release()
                await self._kept.forget(key.tenant, key.of)
                raise gone()
            return made
        finally:
            await asyncio.to_thread(draft.unlink, missing_ok=True)

    def _check(self, key: Key, file: DerivedFile, answer: Answer) -> None:
        """Raises Violation(conversion-failed | not-found)."""
        if answer.is_gone:
            raise gone()
        if answer.failed:
            raise self._refuse(key, _failed(file, answer.failed), FAILED_S)
        if answer.refused:
            words = f"This output cannot be given {file.recipe.words}. {answer.refused}"
            raise self._refuse(key, partial(NotConvertible, words), REFUSED_S)

    def _refuse(self, key: Key, refusal: Callable[[], Violation], for_s: float) -> Violation:
        self._refused[key] = (self._clock() + for_s, refusal)
        self._refused.move_to_end(key)
        if len(self._refused) > MAX_REFUSED:
            self._refused.popitem(last=False)
        return refusal()


def _unwanted(making: asyncio.Task[KeptFile]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().release()


def _failed(file: DerivedFile, words: str) -> Callable[[], Violation]:
    _log.error("an output was not converted: %s", words)
    told = f"This output cannot be given {file.recipe.words} at the moment. The operator finds why in the gate's log."
    return partial(Violation, Reason.CONVERSION_FAILED, told)


def _key_of(tenant: TenantId, file: DerivedFile) -> Key:
    """Raises UpstreamUnavailable: what could not be measured yet cannot be converted either, for ComfyUI has it and is away."""
    asset = file.asset
    if asset.hash is None:
        raise UpstreamUnavailable
    return Key(tenant, _digest(asset.asset_id), _digest(asset.asset_id, asset.hash, file.recipe.mark))


def _digest(*texts: str) -> str:
    return blake3("\0".join(texts).encode()).hexdigest()[:32]
