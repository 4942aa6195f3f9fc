"""Browser sessions that were ended before their time, kept so that no restart revives one."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from proxy.auth.api_keys import Session
from proxy.persistence.operations import Database, DatabaseUnavailable, Operation, Statement
from proxy.tasks import Tasks

MAX_REVOKED_PER_KEY: Final = 1024
READ_AGAIN_S: Final = 0.5
"""After another gate has written to the database, what sessions it has ended is read; once in so long at most."""
OLD_FILE: Final = "sessions.ended"
"""Where they stood before the gate had a database: lines of text."""
_OLD_LINE = re.compile(r"(session|floor) ([0-9a-f]{8,32}) ([0-9a-f]{32}|[0-9]{1,12}) ([0-9]{1,12})")
_FOR_EVER_S: Final = 1 << 62

_log = logging.getLogger("comfygate")


class _Row(NamedTuple):
    """As in the database. session_id: "" for all that were issued until `issued_until_s`; key_id: "" for every key. Unix seconds."""

    key_id: str
    session_id: str
    issued_until_s: int
    expires_s: int


class RevokedSessions:
    """Sessions that were logged out, until they would have expired anyway.

    Bounded: over MAX_REVOKED_PER_KEY of one key, all sessions of that key issued until then end.
    """

    def __init__(
        self,
        state: Database | None = None,
        now: Callable[[], float] = time.time,
        state_dir: Path | None = None,
    ) -> None:
        """state: None keeps them in the process alone. now: Unix time in seconds. state_dir: where a list of before the database may lie."""
        self._state = state
        self._old = None if state_dir is None else state_dir / OLD_FILE
        self._now = now
        self._sessions: dict[str, dict[str, int]] = {}
        self._floors: dict[str, tuple[int, int]] = {}
        self._unsaved: list[_Row] = []
        self._is_reading_soon = False
        self._tasks = Tasks()

    async def load(self) -> None:
        """Reads what was kept. Raises DatabaseUnavailable, and OSError for a list of before the database that cannot be read."""
        if self._state is None:
            return
        if self._state.is_past_unknown:
            # SECURITY: which sessions were ended is not known any more, so all have (test_revoked_sessions.py).
            self._unsaved.append(_Row("", "", int(self._now()) - (self._state.set_aside is None), _FOR_EVER_S))
            await self._state.run(_write, self._unsaved, self._now())
            self._unsaved = []
        if self._old is not None and self._old.exists():
            await self._state.run(_write, read_old_file(self._old), self._now())
            os.replace(self._old, self._old.with_name(f"{OLD_FILE}.migrated"))
        for row in await self._state.read(_read):
            self._take(row)
        self._forget_expired(self._now())
        if self._state.is_shared:
            self._state.on_change(self._heard)

    def has(self, key_id: str, session: Session) -> bool:
        floors = (self._floors.get(key_id), self._floors.get(""))
        if any(floor is not None and session.issued_s <= floor[0] for floor in floors):
            return True
        return session.id in self._sessions.get(key_id, ())

    def add(self, key_id: str, session: Session) -> None:
        """Ends a session, in this process at once and on disk by `save`."""
        now = self._now()
        self._forget_expired(now)
        row = _Row(key_id, session.id, session.issued_s, session.expires_s)
        self._take(row)
        own = self._sessions[key_id]
        if len(own) > MAX_REVOKED_PER_KEY:
            latest = max(*own.values(), self._floors.get(key_id, (0, 0))[1])
            row = _Row(key_id, "", int(now), latest)
            self._take(row)
        self._unsaved.append(row)

    async def save(self) -> None:
        """Writes what has ended. When that fails it stands in the log: the sessions have ended until the gate is restarted."""
        if self._state is None:
            return
        rows, self._unsaved = self._unsaved, []
        try:
            await self._state.run(_write, rows, self._now())
        except DatabaseUnavailable as error:
            self._unsaved = [*rows, *self._unsaved]
            _log.error("ended sessions cannot be written to %s: %s", self._state.place, error)

    def _heard(self) -> None:
        """Another gate has written something: of many such calls comes one reading."""
        if not self._is_reading_soon:
            self._is_reading_soon = True
            asyncio.get_running_loop().call_later(READ_AGAIN_S, self._read_again)

    def _read_again(self) -> None:
        self._is_reading_soon = False
        self._tasks.start(self._take_from_others(), "ended sessions")

    async def _take_from_others(self) -> None:
        assert self._state is not None
        with suppress(DatabaseUnavailable):  # when it is back, it calls again
            for row in await self._state.read(_read):
                self._add(row)

    def _add(self, row: _Row) -> None:
        """SECURITY: takes nothing away: what this gate has ended may not be written yet (test_revoked_sessions.py)."""
        if row.session_id:
            self._sessions.setdefault(row.key_id, {})[row.session_id] = row.expires_s
        else:
            issued_until_s, expires_s = self._floors.get(row.key_id, (0, 0))
            self._floors[row.key_id] = (max(row.issued_until_s, issued_until_s), max(row.expires_s, expires_s))

    def _take(self, row: _Row) -> None:
        if row.session_id:
            self._sessions.setdefault(row.key_id, {})[row.session_id] = row.expires_s
        else:
            self._floors[row.key_id] = (row.issued_until_s, row.expires_s)
            self._sessions.pop(row.key_id, None)

    def _forget_expired(self, now: float) -> None:
        for key_id, own in list(self._sessions.items()):
            self._sessions[key_id] = {session: until for session, until in own.items() if until > now}
            if not self._sessions[key_id]:
                del self._sessions[key_id]
        self._floors = {key_id: floor for key_id, floor in self._floors.items() if floor[1] > now}


def read_old_file(file: Path) -> list[_Row]:
    """The list of before the database. A line that is none is said and left out. Raises OSError."""
    rows: list[_Row] = []
    for line in file.read_text(encoding="ascii", errors="replace").splitlines():
        found = _OLD_LINE.fullmatch(line)
        if not found:
            _log.error("%s has a line that is no ended session: it is left out", file)
        elif found[1] == "session":
            rows.append(_Row(found[2], found[3], 0, int(found[4])))
        else:
            rows.append(_Row(found[2], "", int(found[3]), int(found[4])))
    return sorted(rows)  # floors first, as `_write` takes them


def _write(rows: Iterable[_Row], now: float) -> Operation[None]:
    yield Statement("DELETE FROM revoked_sessions WHERE expires_s <= ?", (int(now),))
    for row in rows:
        if not row.session_id:
            yield Statement("DELETE FROM revoked_sessions WHERE key_id = ?", (row.key_id,))
        yield Statement(
            "INSERT INTO revoked_sessions (key_id, session_id, issued_until_s, expires_s) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (key_id, session_id) DO UPDATE "
            "SET issued_until_s = excluded.issued_until_s, expires_s = excluded.expires_s",
            tuple(row),
        )


def _read() -> Operation[list[_Row]]:
    """Floors first: they take the place of sessions that were ended one by one until then."""
    found = yield Statement(
        "SELECT key_id, session_id, issued_until_s, expires_s FROM revoked_sessions ORDER BY key_id, session_id"
    )
    return [_Row(*row) for row in found]
