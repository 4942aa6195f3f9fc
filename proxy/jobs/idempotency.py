"""A submission with an Idempotency-Key runs once: a repeat gets the first one's answer, also after a restart of the gate.

The key's row is on disk, with the job's id, before ComfyUI is sent the job; so whatever breaks off, a repeat knows which job to ask for.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NoReturn

import orjson
from multidict import istr

from policy.call import ClientReply
from policy.idempotency import is_decided, is_decision
from policy.principal import Principal
from policy.rules.jobs import JSON_TYPE
from policy.violation import Reason, Violation
from proxy.http.errors import Refusal, TurnedAway, UpstreamUnreachable, refusal_for
from proxy.http.request_record import RequestRecord
from proxy.jobs.idempotency_db import UNANSWERED, Kept, KeptSubmissions, KeyNote, Place
from proxy.jobs.job_finder import JobFinder
from proxy.jobs.noted import AlreadyNoted
from proxy.jobs.rule_runner import Beforehand
from proxy.persistence.operations import DatabaseUnavailable

IDEMPOTENCY_KEY: Final = istr("Idempotency-Key")
REPLAYED: Final = ("Idempotency-Replayed", "true")
UNCERTAIN_S: Final = 120.0
"""A submission without an answer is in ComfyUI's queue by then, or nowhere."""
MAX_BODY_BYTES: Final = 1024**2
"""Of an answer that is kept whole."""
_AGAIN_S: Final = 2
_ASK_AGAIN_S: Final = 10

_log = logging.getLogger("comfygate")

Run = Callable[[Beforehand], Awaitable[ClientReply]]


def place_of(principal: Principal, key: str, route: str = "") -> Place:
    """route: of which alone the key is, empty for one that is its owner's.

    SECURITY: an admin's answers are ComfyUI's own, so keys of a tenant's users never find them (tests/proxy/jobs/test_idempotency.py).
    """
    owner = f"{principal.tenant}/admin" if principal.is_admin else principal.tenant
    if route:
        owner = f"{owner} {route}"
    return Place(owner, hashlib.sha256(key.encode("ascii")).digest())


@dataclass(slots=True)
class Attempt:
    """One run of a submission. prompt_id: of its job, from the moment before ComfyUI was sent it. stands: what is on disk of its key, as far as is known."""

    place: Place
    fingerprint: bytes
    principal: Principal
    record: RequestRecord
    prompt_id: str = ""
    stands: Kept | None = None

    def note(self, outcome: str) -> None:
        """For metrics and audit trail: `first`, `replayed`, `found`, `in-use` or `reused`."""
        self.record.notes["idempotency"] = outcome
        if self.prompt_id:
            self.record.notes["prompt_id"] = self.prompt_id


class IdempotentSubmissions:
    """clock: Unix time in seconds."""

    def __init__(self, kept: KeptSubmissions, finder: JobFinder, clock: Callable[[], float] = time.time) -> None:
        self._kept = kept
        self._finder = finder
        self._clock = clock
        self._running: dict[Place, bytes] = {}

    async def submit(self, attempt: Attempt, run: Run) -> ClientReply:
        """The answer that the key has, or what `run` gives, which has what it is given written down before ComfyUI is sent the job.

        Raises what `run` raises; Violation(idempotency-key-reused); TurnedAway while the first one runs or may have run, and where the
        database cannot be used; UpstreamUnavailable, UpstreamTimeout where ComfyUI has to be asked for the job.
        """
        running = self._running.get(attempt.place)
        if running is not None:
            _check_same(attempt, running)
            _refuse_in_use(attempt, _AGAIN_S)
        self._running[attempt.place] = attempt.fingerprint
        try:
            kept = attempt.stands = await self._kept.find(attempt.place, self._clock())
            known = None if kept is None else await self._answer(attempt, kept)
            return await self._run(attempt, run) if known is None else known
        except DatabaseUnavailable as error:
            _log.error("Idempotency-Keys cannot be kept: %s", error)
            sentence = "Idempotency keys cannot be kept at the moment. Try again later, or without the key."
            raise TurnedAway(
                Refusal(503, "idempotency-unavailable", sentence, headers=(("Retry-After", "30"),))
            ) from error
        finally:
            del self._running[attempt.place]

    async def _answer(self, attempt: Attempt, kept: Kept) -> ClientReply | None:
        """None where the job certainly is not: it may run anew."""
        _check_same(attempt, kept.fingerprint)
        if kept.status != UNANSWERED:
            attempt.prompt_id = kept.prompt_id
            attempt.note("replayed")
            return ClientReply(kept.status, kept.body, kept.content_type, headers=(REPLAYED,))
        if not await self._finder.has(attempt.principal, kept.prompt_id):
            rest_s = kept.created_s + UNCERTAIN_S - self._clock()
            if rest_s > 0:
                _refuse_in_use(attempt, min(_ASK_AGAIN_S, int(rest_s) + 1))
            return None
        attempt.prompt_id = kept.prompt_id
        attempt.note("found")
        reply = ClientReply(body=self._accepted(attempt), headers=(REPLAYED,))
        await self._keep(attempt, reply.status, reply.content_type, reply.body)
        return reply

    async def _run(self, attempt: Attempt, run: Run) -> ClientReply:
        attempt.note("first")

        note = KeyNote(self._kept, attempt.place, attempt.fingerprint, self._clock, attempt.stands)
        try:
            try:
                reply = await run(note)
            finally:
                attempt.prompt_id, attempt.stands = note.prompt_id, note.kept or attempt.stands
        except AlreadyNoted:  # by another gate, a moment ago
            _refuse_in_use(attempt, _AGAIN_S)
        except Violation as error:
            refusal = refusal_for(error) if is_decision(error) else None
            if refusal is None:
                await self._forget(attempt)
            elif not await self._keep(attempt, refusal.status, JSON_TYPE, refusal.body(attempt.record.request_id)):
                _refuse_in_use(attempt, _AGAIN_S)
            raise
        except BaseException as error:
            if not attempt.record.is_submitted or isinstance(error, UpstreamUnreachable):
                await self._forget(attempt)
            raise
        if is_decided(reply.status):
            body = reply.body if isinstance(reply.body, bytes) else orjson.dumps(reply.body)
            await self._keep(attempt, reply.status, reply.content_type, body)
        else:
            await self._forget(attempt)
        return reply

    async def _keep(self, attempt: Attempt, status: int, content_type: str, body: bytes) -> bool:
        """False where another gate has written of the key meanwhile.

        A job that runs is not taken back because the disk is full: without this a repeat asks ComfyUI for it.
        """
        if len(body) > MAX_BODY_BYTES:
            if status != 200:
                await self._forget(attempt)
                return True
            body = self._accepted(attempt)
        now_s, prompt_id = self._clock(), attempt.prompt_id if status == 200 else ""
        try:
            kept = Kept(attempt.fingerprint, prompt_id, now_s, status, content_type, body)
            return await self._kept.put(attempt.place, kept, now_s, attempt.stands)
        except DatabaseUnavailable as error:
            _log.error("the answer of an Idempotency-Key cannot be kept: %s", error)
            return True

    async def _forget(self, attempt: Attempt) -> None:
        """A repeat is judged and run anew."""
        if attempt.prompt_id and attempt.stands is not None:
            try:
                await self._kept.forget(attempt.place, attempt.stands)
            except DatabaseUnavailable as error:
                _log.error("an Idempotency-Key cannot be taken back: %s", error)

    def _accepted(self, attempt: Attempt) -> bytes:
        number = self._finder.place_of(attempt.principal, attempt.prompt_id)
        return orjson.dumps({"prompt_id": attempt.prompt_id, "number": number, "node_errors": {}})


def _check_same(attempt: Attempt, fingerprint: bytes) -> None:
    if attempt.fingerprint != fingerprint:
        attempt.note("reused")
        raise Violation(
            Reason.IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key was sent with another request before: use a new one for each job.",
            "Idempotency-Key",
        )


def _refuse_in_use(attempt: Attempt, again_s: int) -> NoReturn:
    attempt.note("in-use")
    raise TurnedAway(
        Refusal(
            409,
            "idempotency-key-in-use",
            "What became of the first request with this Idempotency-Key is not known yet. Send the same again in a moment.",
            "Idempotency-Key",
            headers=(("Retry-After", str(again_s)),),
        )
    )
