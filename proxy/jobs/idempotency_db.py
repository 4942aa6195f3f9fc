"""Submissions with an Idempotency-Key in the gate's database: one row for each owner and key, the oldest of an owner gone when it has too many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from proxy.jobs.noted import AlreadyNoted, Note
from proxy.persistence.operations import Database, Operation, Statement

KEPT_S: Final = 86_400.0
MAX_KEYS: Final = 10_000
"""Of one owner."""
MAX_BYTES: Final = 16 * 1024**2
"""Of one owner's answers, with what a row takes itself."""
ROW_BYTES: Final = 256
LOOK_EACH: Final = 32
LOOK_EACH_BYTES: Final = 65_536
"""How much an owner has is counted after so many rows or bytes, and room for as much is made, since counting goes through all that it has. What is too old,
whoever's it is, is deleted then too."""
UNANSWERED: Final = 0
# `ON CONFLICT … RETURNING` would say the same in one statement: SQLite makes a table of what it returns, which takes longer than to ask first.
_STANDS: Final = "SELECT prompt_id, created_s FROM idempotent_submissions WHERE owner = ? AND key_hash = ?"
_DELETE: Final = "DELETE FROM idempotent_submissions WHERE owner = ? AND key_hash = ?"
_INSERT: Final = (
    "INSERT INTO idempotent_submissions "
    "(owner, key_hash, fingerprint, prompt_id, created_s, status, content_type, body, size) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


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
        self._since_look: dict[str, tuple[int, int]] = {}
        """Rows and bytes by owner."""

    async def find(self, place: Place, now_s: float) -> Kept | None:
        """None for a key that was not used in the last KEPT_S seconds."""
        return await self._state.read(_find, place, now_s - KEPT_S)

    async def put(self, place: Place, kept: Kept, now_s: float, over: Kept | None = None) -> bool:
        """On disk when it returns; False where something stands there, but `over`, whose place it takes."""
        return await self._state.run(self.writing(place, kept, now_s, over))

    def writing(self, place: Place, kept: Kept, now_s: float, over: Kept | None = None) -> Note:
        """The operation that writes it down; see `put`.

        SECURITY: another gate may have the same request in this moment, and would make a second job (tests/proxy/jobs/test_idempotency.py).
        """
        return partial(_put, place, kept, over, now_s - KEPT_S, self._is_look_due(place.owner, kept))

    async def write(self, note: Note) -> None:
        """Raises AlreadyNoted."""
        if not await self._state.run(note):
            raise AlreadyNoted

    def _is_look_due(self, owner: str, kept: Kept) -> bool:
        rows, size = self._since_look.get(owner, (LOOK_EACH, 0))
        rows, size = rows + 1, size + len(kept.body) + ROW_BYTES
        is_due = rows > LOOK_EACH or size > LOOK_EACH_BYTES
        self._since_look[owner] = (0, 0) if is_due else (rows, size)
        return is_due

    async def forget(self, place: Place, kept: Kept) -> None:
        """Where that stands there."""
        await self._state.run(_forget, place, kept)


class KeyNote:
    """What is written down of a key before anything is sent; with the job where that is written first, so that both share one transaction.

    over: what stood there before; nothing is written where something else does. kept: what is, or may be, on disk of it; prompt_id: of its job.
    """

    def __init__(
        self,
        kept: KeptSubmissions,
        place: Place,
        fingerprint: bytes,
        clock: Callable[[], float],
        over: Kept | None = None,
    ) -> None:
        self._submissions = kept
        self._place = place
        self._fingerprint = fingerprint
        self._clock = clock
        self._over = over
        self.kept: Kept | None = None

    @property
    def prompt_id(self) -> str:
        return "" if self.kept is None else self.kept.prompt_id

    async def write(self, prompt_id: str) -> None:
        """prompt_id: "" where no job will come of it. Raises AlreadyNoted, DatabaseUnavailable."""
        kept = self._kept_of(prompt_id)
        await self._submissions.write(self._writing(kept))
        self.kept = kept

    def within(self, prompt_id: str) -> Note:
        """The same as a part of a transaction that is about to be done: whoever does it says `failed` where nothing of it is on disk."""
        self.kept = self._kept_of(prompt_id)
        return self._writing(self.kept)

    def _kept_of(self, prompt_id: str) -> Kept:
        return Kept(self._fingerprint, prompt_id, self._clock())

    def _writing(self, kept: Kept) -> Note:
        return self._submissions.writing(self._place, kept, kept.created_s, self._over)

    def failed(self) -> None:
        self.kept = None


def _find(place: Place, oldest_s: float) -> Operation[Kept | None]:
    rows = yield Statement(
        "SELECT fingerprint, prompt_id, created_s, status, content_type, body FROM idempotent_submissions "
        "WHERE owner = ? AND key_hash = ? AND created_s > ?",
        (*place, oldest_s),
    )
    return Kept(*rows[0]) if rows else None


def _put(place: Place, kept: Kept, over: Kept | None, oldest_s: float, is_look_due: bool) -> Operation[bool]:
    """False where something else than `over` stands there."""
    for prompt_id, created_s in (yield Statement(_STANDS, place)):
        if created_s > oldest_s and (over is None or (prompt_id, created_s) != (over.prompt_id, over.created_s)):
            return False
        yield Statement(_DELETE, place)
    yield Statement(_INSERT, (*place, *kept, len(kept.body) + ROW_BYTES))
    if is_look_due:
        yield Statement("DELETE FROM idempotent_submissions WHERE created_s <= ?", (oldest_s,))
        yield from _make_room(place)
    return True


def _make_room(place: Place) -> Operation[None]:
    """SECURITY: a tenant's keys are its own to use up: they push out its own oldest ones and nobody else's (test_idempotency_db.py)."""
    [(count, size)] = yield Statement(
        "SELECT COUNT(*), SUM(size) FROM idempotent_submissions WHERE owner = ?", (place.owner,)
    )
    while count > MAX_KEYS - LOOK_EACH or size > MAX_BYTES - LOOK_EACH_BYTES:
        [(key_hash, freed)] = yield Statement(
            "SELECT key_hash, size FROM idempotent_submissions WHERE owner = ? ORDER BY created_s LIMIT 1",
            (place.owner,),
        )
        yield Statement(_DELETE, (place.owner, key_hash))
        count, size = count - 1, size - freed


def _forget(place: Place, kept: Kept) -> Operation[None]:
    yield Statement(
        "DELETE FROM idempotent_submissions WHERE owner = ? AND key_hash = ? AND prompt_id = ? AND created_s = ?",
        (*place, kept.prompt_id, kept.created_s),
    )
