"""Submissions with an Idempotency-Key in the gate's database: one row for each owner and key, the oldest of an owner gone when it has too many."""

from __future__ import annotations

from typing import Final, NamedTuple

from proxy.persistence.operations import Database, Operation, Statement

KEPT_S: Final = 86_400.0
MAX_KEYS: Final = 10_000
"""Of one owner."""
MAX_BYTES: Final = 16 * 1024**2
"""Of one owner's answers, with what a row takes itself."""
ROW_BYTES: Final = 256
UNANSWERED: Final = 0


class Place(NamedTuple):
    """owner: a tenant, or a tenant's admins. key_hash: SHA-256 of the key, so that nothing of a client's text is kept."""

    owner: str
    key_hash: bytes


class Kept(NamedTuple):
    """One submission. status: UNANSWERED while no answer is known. prompt_id: "" where no job came of it. created_s: Unix time."""

    fingerprint: bytes
    prompt_id: str
    created_s: float
    status: int = UNANSWERED
    content_type: str = ""
    body: bytes = b""


class KeptSubmissions:
    """Every method raises DatabaseUnavailable."""

    def __init__(self, state: Database) -> None:
        self._state = state

    async def find(self, place: Place, now_s: float) -> Kept | None:
        """None for a key that was not used in the last KEPT_S seconds."""
        return await self._state.read(_find, place, now_s - KEPT_S)

    async def put(self, place: Place, kept: Kept, now_s: float) -> None:
        """On disk when it returns; in the place of what stood there."""
        await self._state.run(_put, place, kept, now_s - KEPT_S)

    async def forget(self, place: Place) -> None:
        await self._state.run(_forget, place)


def _find(place: Place, oldest_s: float) -> Operation[Kept | None]:
    rows = yield Statement(
        "SELECT fingerprint, prompt_id, created_s, status, content_type, body FROM idempotent_submissions "
        "WHERE owner = ? AND key_hash = ? AND created_s > ?",
        (*place, oldest_s),
    )
    return Kept(*rows[0]) if rows else None


def _put(place: Place, kept: Kept, oldest_s: float) -> Operation[None]:
    yield Statement("DELETE FROM idempotent_submissions WHERE created_s <= ?", (oldest_s,))
    yield from _forget(place)
    yield Statement(
        "INSERT INTO idempotent_submissions "
        "(owner, key_hash, fingerprint, prompt_id, created_s, status, content_type, body, size) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*place, *kept, len(kept.body) + ROW_BYTES),
    )
    # SECURITY: a tenant's keys are its own to use up: they push out its own oldest ones and nobody else's (test_idempotency_db.py).
    [(count, size)] = yield Statement(
        "SELECT COUNT(*), SUM(size) FROM idempotent_submissions WHERE owner = ?", (place.owner,)
    )
    while count > MAX_KEYS or size > MAX_BYTES:
        [(key_hash, freed)] = yield Statement(
            "SELECT key_hash, size FROM idempotent_submissions WHERE owner = ? ORDER BY created_s LIMIT 1",
            (place.owner,),
        )
        yield from _forget(Place(place.owner, key_hash))
        count, size = count - 1, size - freed


def _forget(place: Place) -> Operation[None]:
    yield Statement("DELETE FROM idempotent_submissions WHERE owner = ? AND key_hash = ?", tuple(place))
