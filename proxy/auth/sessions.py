"""Browser sessions: a signed cookie that names an API key and lives no longer than it. Trusts only what the gate's own secret signed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from filelock import FileLock
from multidict import MultiMapping

from policy.principal import Principal, TenantId
from proxy.auth.api_keys import ApiKeyStore, KeyPrincipal, Session, as_session_principal
from proxy.auth.atomic_file import replace_file
from proxy.auth.credentials import TOMBSTONE, SessionCookie, session_cookie
from proxy.config.identity import SessionSettings
from proxy.http.errors import Unauthenticated

COOKIE_NAME: Final = "comfygate_session"
MIN_SECRET_BYTES: Final = 32
MAX_ENDED_PER_KEY: Final = 1024
_SECRET_FILE = "session.secret"  # noqa: S105 - a file's name
_ENDED_FILE = "sessions.ended"
COOKIE_AFTERLIFE_S: Final = 30 * 86400
"""How long a browser keeps the cookie of an ended session: a request that still brings it is told what ended."""
RENEW_AFTER: Final = 1 / 16
"""Of the lifetime: a younger cookie is not renewed, so that not every answer carries one."""
_COOKIE = re.compile(
    r"(2\.([0-9a-f]{32})\.([0-9a-f]{8,32})\.([0-9]{1,12})\.([0-9]{1,12})\.([0-9]{1,12})\.([0-9]{1,12}))\.([0-9a-f]{64})"
)
_STORAGE_COOKIE: Final = "comfygate_storage"
_STORAGE_COOKIE_S: Final = 400 * 86400
_ENDED_LINE = re.compile(r"(session|floor) ([0-9a-f]{8,32}) ([0-9a-f]{32}|[0-9]{1,12}) ([0-9]{1,12})")
_NO_DIGEST: Final = secrets.token_bytes(32)

_log = logging.getLogger("comfygate")


class SessionRefused(Unauthenticated):
    """The session cookie is not, or no longer, good: 401. headers: for the answer, so that the browser forgets the session. login: the path of the page."""

    def __init__(self, headers: tuple[tuple[str, str], ...], login: str = "/gate/login") -> None:
        super().__init__(
            f"The session has ended. Sign in at {login} in another tab, then go on here: nothing is lost.",
            reason="session-ended",
        )
        self.headers = headers


class SessionStateError(Exception):
    """The signing secret, or the list of ended sessions, cannot be used. The text says what to do."""


class RevokedSessions:
    """Sessions that were logged out, until they would have expired anyway. Kept in a file, so that no restart revives one.

    Bounded: over MAX_ENDED_PER_KEY of one key, all sessions of that key issued until then end.
    """

    def __init__(self, file: Path | None = None, now: Callable[[], float] = time.time) -> None:
        """file: None keeps them in the process alone. Raises SessionStateError when it is there and cannot be read."""
        self.file = file
        self._now = now
        self._sessions: dict[str, dict[str, int]] = {}
        self._floors: dict[str, tuple[int, int]] = {}
        self._saving = asyncio.Lock()
        if file is not None:
            self._load(file)

    def has(self, key_id: str, session: Session) -> bool:
        floor = self._floors.get(key_id)
        if floor is not None and session.issued_s <= floor[0]:
            return True
        return session.id in self._sessions.get(key_id, ())

    def add(self, key_id: str, session: Session) -> None:
        """Ends a session, in this process at once and on disk by `save`."""
        now = self._now()
        self._forget_expired(now)
        own = self._sessions.setdefault(key_id, {})
        own[session.id] = session.expires_s
        if len(own) > MAX_ENDED_PER_KEY:
            latest = max(*own.values(), self._floors.get(key_id, (0, 0))[1])
            self._floors[key_id] = (int(now), latest)
            del self._sessions[key_id]

    async def save(self) -> None:
        """Writes what has ended. When that fails it stands in the log: the sessions have ended until the gate is restarted."""
        if self.file is None:
            return
        async with self._saving:
            try:
                await asyncio.to_thread(replace_file, self.file, self._text().encode("ascii"))
            except OSError as error:
                _log.error("ended sessions cannot be written to %s: %s", self.file, error)

    def _forget_expired(self, now: float) -> None:
        for key_id, own in list(self._sessions.items()):
            self._sessions[key_id] = {session: until for session, until in own.items() if until > now}
            if not self._sessions[key_id]:
                del self._sessions[key_id]
        self._floors = {key_id: floor for key_id, floor in self._floors.items() if floor[1] > now}

    def _text(self) -> str:
        lines = [
            f"session {key} {session} {until}\n"
            for key, own in self._sessions.items()
            for session, until in own.items()
        ]
        lines += [f"floor {key} {issued} {until}\n" for key, (issued, until) in self._floors.items()]
        return "".join(lines)

    def _load(self, file: Path) -> None:
        try:
            text = file.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise SessionStateError(
                f"The ended sessions in {file} cannot be read: {error.strerror or error}."
            ) from None
        for line in text.splitlines():
            found = _ENDED_LINE.fullmatch(line)
            if not found:
                _log.error("%s has a line that is no ended session: it is left out", file)
            elif found[1] == "session":
                self._sessions.setdefault(found[2], {})[found[3]] = int(found[4])
            else:
                self._floors[found[2]] = (int(found[3]), int(found[4]))
        self._forget_expired(self._now())


class Sessions:
    """Issues, verifies and ends sessions."""

    def __init__(
        self,
        secret: bytes,
        *,
        lifetime_s: float,
        max_lifetime_s: float | None = None,
        is_secure: bool,
        public_path: str = "",
        ended: RevokedSessions | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """A session ends lifetime_s after it was last renewed, and max_lifetime_s (None: as long) after its login, whichever is first.

        is_secure: the gate is reached by https. public_path: the prefix that browsers see before the gate's paths, "" or "/prefix".
        Raises ValueError for a secret that is too short.
        """
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"a session secret has at least {MIN_SECRET_BYTES} bytes")
        self._secret = secret
        self._lifetime_s = lifetime_s
        self._max_lifetime_s = lifetime_s if max_lifetime_s is None else max_lifetime_s
        self._now = now
        self.ended = ended or RevokedSessions(now=now)
        self.public_path = public_path
        self.login_path = f"{public_path}/gate/login"
        # RFC 6265bis, 4.1.3: with these prefixes a browser takes the cookie only over https, and with __Host-, which goes with the path "/"
        # alone, only from this very host, never from a sibling of it.
        prefix = "" if not is_secure else "__Secure-" if public_path else "__Host-"
        # The path is a part of the name: of two cookies with one name the gate could not tell which one counts.
        self.cookie_name = f"{prefix}{COOKIE_NAME}{public_path.replace('/', '-')}"
        self._storage_name = f"{prefix}{_STORAGE_COOKIE}{public_path.replace('/', '-')}"
        self._attributes = f"; Path={public_path}/; HttpOnly; SameSite=Lax" + ("; Secure" if is_secure else "")

    def begin(self, key: KeyPrincipal) -> tuple[tuple[str, str], ...]:
        """Headers that start a session of a key that has just been proven. Always a new id, whatever cookie the client had."""
        now = int(self._now())
        return (self._cookie(key, Session(secrets.token_hex(16), now, int(now + self._max_lifetime_s)), now),)

    def renewed(self, principal: Principal) -> tuple[tuple[str, str], ...]:
        """Headers that renew the session which the caller came by; none while it is young, or already lasts as long as it may.

        It stays the same session: ending it ends every cookie that was made of it.
        """
        if not isinstance(principal, KeyPrincipal) or principal.session is None or principal.expires_at_s is None:
            return ()
        now = int(self._now())
        is_young = now - principal.session.renewed_s < self._lifetime_s * RENEW_AFTER
        if is_young or self._good_until(principal.session, now) <= principal.expires_at_s:
            return ()
        return (self._cookie(principal, principal.session, now),)

    def _cookie(self, key: KeyPrincipal, session: Session, now: int) -> tuple[str, str]:
        good_until = self._good_until(session, now)
        payload = f"2.{session.id}.{key.subject}.{session.issued_s}.{now}.{good_until}.{session.expires_s}"
        value = f"{payload}.{self._sign(payload, key.digest)}"
        # The browser keeps it longer than it is good, so that the answer to it can say what ended. How long it is good stands inside it.
        max_age = max(1, session.expires_s - now) + COOKIE_AFTERLIFE_S
        return ("Set-Cookie", f"{self.cookie_name}={value}; Max-Age={max_age}{self._attributes}")

    def _good_until(self, session: Session, renewed_s: int) -> int:
        return int(min(renewed_s + self._lifetime_s, session.issued_s + self._max_lifetime_s, session.expires_s))

    def verify(self, cookie: SessionCookie, keys: ApiKeyStore) -> KeyPrincipal:
        """Whose session this is. Raises SessionRefused."""
        found = _COOKIE.fullmatch(cookie.value) if cookie.value is not None else None
        if not found:
            raise self._refused()
        payload, session_id, key_id, issued, renewed, good_until, expires, signature = found.groups()
        session = Session(session_id, int(issued), int(expires), int(renewed))
        key = keys.find(key_id)
        expected = self._sign(payload, key.digest if key is not None else _NO_DIGEST)
        is_signed = hmac.compare_digest(expected.encode("ascii"), signature.encode("ascii"))
        if key is None or not is_signed or self.ended.has(key_id, session):
            raise self._refused()
        # A lifetime that was shortened since holds for sessions that are older.
        principal = as_session_principal(
            key, session, float(min(int(good_until), self._good_until(session, session.renewed_s)))
        )
        if principal.expires_at_s is None or principal.expires_at_s <= self._now():
            raise self._refused()
        return principal

    def missing(self, headers: MultiMapping[str]) -> Unauthenticated:
        """What a request without a credential is told: that its session has ended, where the browser still knows of one."""
        cookie = session_cookie(headers, self.cookie_name)
        return self._refused(()) if cookie is not None and cookie.value == TOMBSTONE else Unauthenticated()

    def _refused(self, headers: tuple[tuple[str, str], ...] | None = None) -> SessionRefused:
        return SessionRefused(self.burying if headers is None else headers, self.login_path)

    def end(self, cookie: SessionCookie, keys: ApiKeyStore) -> KeyPrincipal | None:
        """Ends the session of a cookie at once, and says whose it was: None when it was none. `save` makes it last."""
        try:
            principal = self.verify(cookie, keys)
        except SessionRefused:
            return None
        if principal.session is not None:
            self.ended.add(principal.subject, principal.session)
        return principal

    async def save(self) -> None:
        await self.ended.save()

    def is_alive(self, principal: KeyPrincipal) -> bool:
        """Whether the session, if the caller came by one, was not ended since."""
        return principal.session is None or not self.ended.has(principal.subject, principal.session)

    @property
    def burying(self) -> tuple[tuple[str, str], ...]:
        """Headers that take an ended session from a browser, and leave word that there was one.

        What a browser adds by itself to every request must not keep it from coming in with another credential.
        """
        return (("Set-Cookie", f"{self.cookie_name}={TOMBSTONE}; Max-Age={COOKIE_AFTERLIFE_S}{self._attributes}"),)

    @property
    def expiring(self) -> tuple[tuple[str, str], ...]:
        """Headers that make a browser forget the cookie."""
        dead = f"{self.cookie_name}=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT{self._attributes}"
        return (("Set-Cookie", dead),)

    def keeps_storage_of(self, tenant: TenantId, headers: MultiMapping[str]) -> bool:
        """Whether what the browser keeps for pages of this address (drafts, settings) is this tenant's. A browser that says nothing may keep anybody's."""
        cookie = session_cookie(headers, self._storage_name)
        mark = self._storage_mark(tenant)
        return cookie is not None and cookie.value is not None and hmac.compare_digest(cookie.value, mark)

    def storage_is_of(self, tenant: TenantId) -> tuple[tuple[str, str], ...]:
        """Headers that note whose the browser's storage is from now on. The mark proves nothing, and does not show the tenant's name."""
        mark = f"{self._storage_name}={self._storage_mark(tenant)}"
        return (("Set-Cookie", f"{mark}; Max-Age={_STORAGE_COOKIE_S}{self._attributes}"),)

    @property
    def storage_is_empty(self) -> tuple[tuple[str, str], ...]:
        return (("Set-Cookie", f"{self._storage_name}=; Max-Age=0{self._attributes}"),)

    def _storage_mark(self, tenant: TenantId) -> str:
        message = b"comfygate storage\n" + tenant.encode("ascii")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:32]

    def _sign(self, payload: str, digest: bytes) -> str:
        """The key's digest is signed and not sent: a key that was changed under its id takes its sessions with it."""
        message = b"comfygate session\n" + digest + b"\n" + payload.encode("ascii")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def load_secret(secret_file: Path | None, state_dir: Path) -> bytes:
    """The signing secret: from the file that the configuration names, or one made once in the gate's own folder.

    Raises SessionStateError. The gate makes no secret where it was told to read one.
    """
    if secret_file is not None:
        return _read_secret(secret_file)
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = state_dir / _SECRET_FILE
        with FileLock(state_dir / f".{_SECRET_FILE}.lock", timeout=10):
            if not file.exists():
                replace_file(file, secrets.token_hex(MIN_SECRET_BYTES).encode("ascii") + b"\n")
    except OSError as error:  # filelock.Timeout is one
        raise SessionStateError(
            f"The session secret cannot be made in {state_dir}: {error}. Make the folder writable, or set sessions.secret_file."
        ) from None
    return _read_secret(file)


def open_sessions(
    settings: SessionSettings,
    public_url: str | None,
    state_dir: Path,
    now: Callable[[], float] = time.time,
    *,
    public_path: str = "",
    previous: Sessions | None = None,
) -> Sessions:
    """Sessions as configured; secret_file and state_dir with their folders. Raises SessionStateError.

    previous: what these replace at a reload: they share the list of ended sessions, so that none comes back while it is being written.
    """
    secret = load_secret(settings.secret_file, state_dir)
    is_secure = public_url is not None and public_url.startswith("https:")
    file = state_dir / _ENDED_FILE
    ended = previous.ended if previous and previous.ended.file == file else RevokedSessions(file, now)
    return Sessions(
        secret,
        lifetime_s=settings.lifetime,
        max_lifetime_s=settings.max_lifetime,
        is_secure=is_secure,
        public_path=public_path,
        ended=ended,
        now=now,
    )


def _read_secret(file: Path) -> bytes:
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise SessionStateError(f"The session secret {file} cannot be read: {error.strerror or error}.") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise SessionStateError(
            f"The session secret {file} is shorter than {MIN_SECRET_BYTES} bytes: fill it with `openssl rand -hex 32`."
        )
    return secret
