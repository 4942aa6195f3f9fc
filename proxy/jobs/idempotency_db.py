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
"""How much an owner has is counted after so many rows or bytes, and room for as much is made, since counting goes through all that it has."""
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
        self._since_look: dict[str, tuple[int, int]] = {}
        """Rows and bytes by owner."""

    async def find(self, place: Place, now_s: float) -> Kept | None:
        """None for a key that was not used in the last KEPT_S seconds."""
        return await self._state.read(_find, place, now_s - KEPT_S)

    async def put(self, place: Place, kept: Kept, now_s: float) -> None:
        """On disk when it returns; in the place of what stood there."""
        await self._state.run(self.writing(place, kept, now_s))

    def writing(self, place: Place, kept: Kept, now_s: float, *, is_single_use: bool = False) -> Note:
        """The operation that writes it down. is_single_use: not where something stands there."""
        return partial(
            _take if is_single_use else _put, place, kept, now_s - KEPT_S, self._is_look_due(place.owner, kept)
        )

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

    async def forget(self, place: Place) -> None:
        await self._state.run(_forget, place)


class KeyNote:
    """What is written down of a key before anything is sent; with the job where that is written first, so that both share one transaction.

    is_single_use: nothing is written where the key was used before. prompt_id: of the job; is_written: whether it may be on disk.
    """

    def __init__(
        self,
        kept: KeptSubmissions,
        place: Place,
        fingerprint: bytes,
        clock: Callable[[], float],
        *,
        is_single_use: bool = False,
    ) -> None:
        self._submissions = kept
        self._place = place
        self._fingerprint = fingerprint
        self._clock = clock
        self._is_single_use = is_single_use
        self.prompt_id = ""
        self.is_written = False

    async def write(self, prompt_id: str) -> None:
        """prompt_id: "" where no job will come of it. Raises AlreadyNoted, DatabaseUnavailable."""
        await self._submissions.write(self._writing(prompt_id))
        self.prompt_id, self.is_written = prompt_id, True

    def within(self, prompt_id: str) -> Note:
        """The same as a part of a transaction that is about to be done: whoever does it says `failed` where nothing of it is on disk."""
        self.prompt_id, self.is_written = prompt_id, True
        return self._writing(prompt_id)

    def _writing(self, prompt_id: str) -> Note:
        now_s = self._clock()
        kept = Kept(self._fingerprint, prompt_id, now_s)
        return self._submissions.writing(self._place, kept, now_s, is_single_use=self._is_single_use)

    def failed(self) -> None:
        self.prompt_id, self.is_written = "", False


def _find(place: Place, oldest_s: float) -> Operation[Kept | None]:
    rows = yield Statement(
        "SELECT fingerprint, prompt_id, created_s, status, content_type, body FROM idempotent_submissions "
        "WHERE owner = ? AND key_hash = ? AND created_s > ?",
        (*place, oldest_s),
    )
    return Kept(*rows[0]) if rows else None


def _put(place: Place, kept: Kept, oldest_s: float, is_look_due: bool) -> Operation[bool]:
    yield from _forget(place)
    return (yield from _take(place, kept, oldest_s, is_look_due))


def _take(place: Place, kept: Kept, oldest_s: float, is_look_due: bool) -> Operation[bool]:
    """False where it stands there already."""
    yield Statement("DELETE FROM idempotent_submissions WHERE created_s <= ?", (oldest_s,))
    taken = yield Statement(
        "INSERT INTO idempotent_submissions "
        "(owner, key_hash, fingerprint, prompt_id, created_s, status, content_type, body, size) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (owner, key_hash) DO NOTHING RETURNING 1",
        (*place, *kept, len(kept.body) + ROW_BYTES),
    )
    if not taken:
        return False
    if is_look_due:
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
        yield from _forget(Place(place.owner, key_hash))
        count, size = count - 1, size - freed


def _forget(place: Place) -> Operation[None]:
    yield Statement("DELETE FROM idempotent_submissions WHERE owner = ? AND key_hash = ?", tuple(place))
