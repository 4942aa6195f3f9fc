"""API keys: their form, their hashes, and the ring of those that the configuration knows. Trusts only the configured hashes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from policy.keyform import KEY_FORM
from policy.principal import Principal
from proxy.config.identity import KeySettings, tenant_of
from proxy.http.errors import Unauthenticated

SECRET_BYTES: Final = 32
_ID_BYTES: Final = 4
_HASH_PREFIX: Final = "sha256:"
# What an unknown id is compared with, so that it costs what a known one costs. No text has this digest that anybody knows.
_NO_DIGEST: Final = secrets.token_bytes(hashlib.sha256().digest_size)


@dataclass(frozen=True, slots=True)
class Session:
    """A browser session. Times are Unix times in seconds.

    expires_s: beyond which it cannot be renewed; renewed_s: when the cookie that the caller brought was made. mark: of the secret that signed that.
    """

    id: str
    issued_s: int
    expires_s: int
    renewed_s: int = 0
    mark: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class KeyPrincipal(Principal):
    """A caller whom an API key proved, at first hand or by a browser session.

    digest: of the key, so that a socket opened with it dies with it even where the id is given to a new key.
    """

    digest: bytes = field(default=b"", repr=False)
    session: Session | None = field(default=None, repr=False)


class KeyRefused(Unauthenticated):
    """The API key is not good: 401. key_id: the id it claims, None when it has none, so that failures can be counted by it."""

    def __init__(self, message: str, *, reason: str, key_id: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.key_id = key_id


def generate_key() -> tuple[str, str]:
    """A new key's id and its text: `cg_<8 hex digits>_<256 random bits in base64url>`. The id is not secret."""
    key_id = secrets.token_hex(_ID_BYTES)
    return key_id, f"cg_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"


def hash_key(text: str) -> str:
    """What stands in the configuration. A plain SHA-256 is enough for 256 random bits: there is nothing to guess from."""
    return _HASH_PREFIX + hashlib.sha256(text.encode("ascii")).hexdigest()


def key_id_of(text: str) -> str | None:
    """The id that a key claims to have, None when the text is no key. For counting failures; it proves nothing."""
    found = KEY_FORM.fullmatch(text)
    return found[1] if found else None


class ApiKeyStore:
    """The configured keys. An empty ring lets nobody in."""

    def __init__(self, keys: Iterable[KeySettings], now: Callable[[], float] = time.time) -> None:
        """now: Unix time in seconds."""
        self._now = now
        self._keys: dict[str, KeyPrincipal] = {key.id: _principal_of(key) for key in keys}

    def verify(self, text: str) -> KeyPrincipal:
        """Whose key this is. Raises KeyRefused when it is nobody's or has expired."""
        key_id = key_id_of(text)
        if key_id is None:
            raise KeyRefused("This is not an API key: send it as 'cg_<id>_<secret>'.", reason="key-malformed")
        digest = hashlib.sha256(text.encode("ascii")).digest()
        key = self._keys.get(key_id)
        is_same = hmac.compare_digest(digest, key.digest if key is not None else _NO_DIGEST)
        if key is None or not is_same:
            raise KeyRefused("The API key is not valid.", reason="key-unknown", key_id=key_id)
        if self.has_expired(key):
            raise KeyRefused("The API key has expired. Ask for a new one.", reason="key-expired", key_id=key_id)
        return key

    def has_expired(self, key: KeyPrincipal) -> bool:
        return _has_expired(key, self._now())

    def find(self, key_id: str) -> KeyPrincipal | None:
        """The caller of a key by its id, expired or not. It proves nothing: for sessions, which prove themselves."""
        return self._keys.get(key_id)

    def is_alive(self, principal: KeyPrincipal, now: float) -> bool:
        """Whether the key is still in the ring under its own hash, permits all that the caller may do, and has not expired."""
        key = self._keys.get(principal.subject)
        if key is principal:
            return key.expires_at_s is None or key.expires_at_s > now
        return (
            key is not None
            and hmac.compare_digest(key.digest, principal.digest)
            and key.covers(principal)
            and not _has_expired(key, now)
        )


def as_session_principal(key: KeyPrincipal, session: Session, ends_s: float) -> KeyPrincipal:
    """The caller of a key as its browser session: no longer than the session, never longer than the key."""
    ends = ends_s if key.expires_at_s is None else min(ends_s, key.expires_at_s)
    return replace(key, is_session=True, session=session, expires_at_s=ends)


def _has_expired(key: KeyPrincipal, now: float) -> bool:
    return key.expires_at_s is not None and key.expires_at_s <= now


def _principal_of(key: KeySettings) -> KeyPrincipal:
    return KeyPrincipal(
        subject=key.id,
        tenant=tenant_of(key),
        role=key.role,
        scopes=key.scopes,
        expires_at_s=key.expires.timestamp() if key.expires else None,
        digest=bytes.fromhex(key.hash.removeprefix(_HASH_PREFIX)),
    )
