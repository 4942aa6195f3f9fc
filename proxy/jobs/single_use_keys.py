"""`Idempotency-Key` of Comfy API v2: a key is good for one submission, and a repeat is refused, whatever it asks for and however the first one ended.

Only a refusal that says for sure that nothing came of it gives the key back: the SDKs send the same key again when they are told to wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from policy.call import ClientReply
from policy.violation import Reason, Violation
from proxy.http.errors import LimitExceeded, TurnedAway, UpstreamUnreachable
from proxy.http.request_record import RequestRecord
from proxy.jobs.idempotency_db import Kept, KeptSubmissions, KeyNote, Place
from proxy.jobs.noted import AlreadyNoted
from proxy.jobs.rule_runner import Beforehand
from proxy.persistence.operations import DatabaseUnavailable

_NO_FINGERPRINT: Final = b""
_log = logging.getLogger("comfygate")


class SingleUseKeys:
    """clock: Unix time in seconds."""

    def __init__(self, kept: KeptSubmissions, clock: Callable[[], float] = time.time) -> None:
        self._kept = kept
        self._clock = clock
        self._running: set[Place] = set()

    async def run(
        self,
        place: Place,
        record: RequestRecord,
        run: Callable[[Beforehand], Awaitable[ClientReply]],
        *,
        is_dear: bool = False,
    ) -> ClientReply:
        """What `run` gives, which has what it is given written down before something comes of it.

        is_dear: a used key is looked for first, and not when it is written down. Raises what `run` does; Violation(idempotency-key-reused) for a key
        that was used, or is in use; DatabaseUnavailable.
        """
        if place in self._running:
            raise self._used(record)
        self._running.add(place)
        try:
            if is_dear and await self._is_used(place):
                raise self._used(record)
            return await self._run(place, record, run)
        finally:
            self._running.discard(place)

    async def _run(
        self, place: Place, record: RequestRecord, run: Callable[[Beforehand], Awaitable[ClientReply]]
    ) -> ClientReply:
        record.notes["idempotency"] = "first"
        note = KeyNote(self._kept, place, _NO_FINGERPRINT, self._clock)
        is_undone = False
        try:
            reply = await run(note)
            is_undone = reply.status >= 400
        except AlreadyNoted:
            note.failed()
            raise self._used(record) from None
        except (Violation, LimitExceeded, TurnedAway, UpstreamUnreachable):
            is_undone = True
            # Whatever is wrong besides: of a used key that is what its client is told.
            if note.kept is None and await self._is_used(place):
                raise self._used(record) from None
            raise
        except BaseException:
            is_undone = not record.is_submitted
            raise
        finally:
            if note.kept is not None and is_undone:
                await self._give_back(place, note.kept)
        if is_undone and note.kept is None and await self._is_used(place):
            raise self._used(record)
        return reply

    async def _is_used(self, place: Place) -> bool:
        return await self._kept.find(place, self._clock()) is not None

    async def _give_back(self, place: Place, kept: Kept) -> None:
        try:
            await self._kept.forget(place, kept)
        except DatabaseUnavailable as error:
            _log.error("an Idempotency-Key cannot be taken back: %s", error)

    def _used(self, record: RequestRecord) -> Violation:
        record.notes["idempotency"] = "reused"
        return Violation(
            Reason.IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key was used before: send a new one with each request.",
            "Idempotency-Key",
        )
