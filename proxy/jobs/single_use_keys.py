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
from proxy.jobs.idempotency_db import UNANSWERED, Kept, KeptSubmissions, Place
from proxy.jobs.rule_runner import BeforeSending
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
        self, place: Place, record: RequestRecord, run: Callable[[BeforeSending], Awaitable[ClientReply]]
    ) -> ClientReply:
        """What `run` gives, which calls what it is given when something is going to come of it.

        Raises what `run` does; Violation(idempotency-key-reused) for a key that was used, or is in use; DatabaseUnavailable.
        """
        if place in self._running:
            raise self._used(record)
        self._running.add(place)
        try:
            if await self._kept.find(place, self._clock()) is not None:
                raise self._used(record)
            return await self._run(place, record, run)
        finally:
            self._running.discard(place)

    async def _run(
        self, place: Place, record: RequestRecord, run: Callable[[BeforeSending], Awaitable[ClientReply]]
    ) -> ClientReply:
        record.notes["idempotency"] = "first"
        is_taken = False

        async def take(prompt_id: str) -> None:
            nonlocal is_taken
            now_s = self._clock()
            await self._kept.put(place, Kept(_NO_FINGERPRINT, prompt_id, now_s, UNANSWERED), now_s)
            is_taken = True

        is_undone = False
        try:
            reply = await run(take)
            is_undone = reply.status >= 400
            return reply
        except (Violation, LimitExceeded, TurnedAway, UpstreamUnreachable):
            is_undone = True
            raise
        except BaseException:
            is_undone = not record.is_submitted
            raise
        finally:
            if is_taken and is_undone:
                await self._give_back(place)

    async def _give_back(self, place: Place) -> None:
        try:
            await self._kept.forget(place)
        except DatabaseUnavailable as error:
            _log.error("an Idempotency-Key cannot be taken back: %s", error)

    def _used(self, record: RequestRecord) -> Violation:
        record.notes["idempotency"] = "reused"
        return Violation(
            Reason.IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key was used before: send a new one with each request.",
            "Idempotency-Key",
        )
