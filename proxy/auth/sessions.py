"""Browser sessions: a signed cookie that names an API key and lives no longer than it. Trusts only what the gate's own secret signed."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from multidict import MultiMapping

from policy.principal import Principal
from proxy.auth.api_keys import ApiKeyStore, KeyPrincipal, Session, as_session_principal
from proxy.auth.browser_storage import BrowserStorage
from proxy.auth.credentials import TOMBSTONE, SessionCookie, session_cookie
from proxy.auth.revoked_sessions import RevokedSessions
from proxy.auth.session_secret import MIN_SECRET_BYTES, load_secret
from proxy.config.identity import SessionSettings
from proxy.http.errors import Unauthenticated
from proxy.persistence.operations import Database

COOKIE_NAME: Final = "comfygate_session"
COOKIE_AFTERLIFE_S: Final = 30 * 86400
"""How long a browser keeps the cookie of an ended session: a request that still brings it is told what ended."""
RENEW_AFTER: Final = 1 / 16
"""Of the lifetime: a younger cookie is not renewed, so that not every answer carries one."""
_COOKIE = re.compile(
    r"(2\.([0-9a-f]{32})\.([0-9a-f]{8,32})\.([0-9]{1,12})\.([0-9]{1,12})\.([0-9]{1,12})\.([0-9]{1,12}))\.([0-9a-f]{64})"
)
_NO_DIGEST: Final = secrets.token_bytes(32)


class SessionRefused(Unauthenticated):
    """The session cookie is not, or no longer, good: 401. headers: for the answer, so that the browser forgets the session. login: the path of the page."""

    def __init__(self, headers: tuple[tuple[str, str], ...], login: str = "/gate/login") -> None:
        super().__init__(
            f"The session has ended. Sign in at {login} in another tab, then go on here: nothing is lost.",
            reason="session-ended",
        )
        self.headers = headers


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
        revoked: RevokedSessions | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """A session ends lifetime_s after it was last renewed, and max_lifetime_s (None: as long) after its login, whichever is first.

        is_secure: the gate is reached by https. public_path: the prefix that browsers see before the gate's paths, "" or "/prefix".
        Raises ValueError for a secret that is too short.
        """
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"a session secret has at least {MIN_SECRET_BYTES} bytes")
        self._secret = secret
        self._mark = hashlib.sha256(b"comfygate session secret\n" + secret).digest()
        self._lifetime_s = lifetime_s
        self._max_lifetime_s = lifetime_s if max_lifetime_s is None else max_lifetime_s
        self._now = now
        self.revoked = revoked or RevokedSessions(now=now)
        self.public_path = public_path
        self.login_path = f"{public_path}/gate/login"
        # RFC 6265bis, 4.1.3: with these prefixes a browser takes the cookie only over https, and with __Host-, which goes with the path "/"
        # alone, only from this very host, never from a sibling of it.
        prefix = "" if not is_secure else "__Secure-" if public_path else "__Host-"
        # The path is a part of the name: of two cookies with one name the gate could not tell which one counts.
        suffix = public_path.replace("/", "-")
        self.cookie_name = f"{prefix}{COOKIE_NAME}{suffix}"
        self._attributes = f"; Path={public_path}/; HttpOnly; SameSite=Lax" + ("; Secure" if is_secure else "")
        self.storage = BrowserStorage(secret, prefix, suffix, self._attributes)

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
        session = Session(session_id, int(issued), int(expires), int(renewed), self._mark)
        key = keys.find(key_id)
        expected = self._sign(payload, key.digest if key is not None else _NO_DIGEST)
        is_signed = hmac.compare_digest(expected.encode("ascii"), signature.encode("ascii"))
        if key is None or not is_signed or self.revoked.has(key_id, session):
            raise self._refused()
        # A lifetime that was shortened since holds for sessions that are older.
        principal = as_session_principal(
            key, session, float(min(int(good_until), self._good_until(session, session.renewed_s)))
        )
        if self.has_expired(principal):
            raise self._refused()
        return principal

    def has_expired(self, principal: KeyPrincipal) -> bool:
        return principal.expires_at_s is None or principal.expires_at_s <= self._now()

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
            self.revoked.add(principal.subject, principal.session)
        return principal

    async def save(self) -> None:
        await self.revoked.save()

    def is_alive(self, principal: KeyPrincipal) -> bool:
        """Whether the session, if the caller came by one, was not ended since: by itself, by another secret, or by a lifetime that was shortened.

        SECURITY: what it has open would outlive the cookie that opened it (tests/proxy/auth/test_sessions.py).
        """
        session = principal.session
        if session is None:
            return True
        is_good = session.mark == self._mark and self._good_until(session, session.renewed_s) > self._now()
        return is_good and not self.revoked.has(principal.subject, session)

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

    def _sign(self, payload: str, digest: bytes) -> str:
        """The key's digest is signed and not sent: a key that was changed under its id takes its sessions with it."""
        message = b"comfygate session\n" + digest + b"\n" + payload.encode("ascii")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def open_sessions(
    settings: SessionSettings,
    public_url: str | None,
    state_dir: Path,
    now: Callable[[], float] = time.time,
    *,
    public_path: str = "",
    state: Database | None = None,
    previous: Sessions | None = None,
) -> Sessions:
    """Sessions as configured; secret_file and state_dir with their folders. Raises SessionStateError.

    state: where ended sessions are kept, None for a process that only looks at the configuration. previous: what these replace at a
    reload: they share the list of ended sessions, so that none comes back while it is being written.
    """
    secret = load_secret(settings.secret_file, state_dir)
    is_secure = public_url is not None and public_url.startswith("https:")
    return Sessions(
        secret,
        lifetime_s=settings.lifetime,
        max_lifetime_s=settings.max_lifetime,
        is_secure=is_secure,
        public_path=public_path,
        revoked=previous.revoked if previous else RevokedSessions(state, now, state_dir),
        now=now,
    )
