"""What credentials proved before: whoever comes again with the very same ones is known by one hash, without reading and verifying them anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from multidict import MultiMapping

from policy.principal import Principal
from proxy.auth.credentials import API_KEY_HEADER, ASSERTION_HEADER, AUTHORIZATION, COOKIE, TOKEN_PARAMETER

Query = tuple[tuple[str, str], ...]
MAX_PROOFS: Final = 4096
"""One key may be spelled in many ways (the user name of Basic is free), and cookies of others stand beside a session's."""
_FIELDS: Final = ((COOKIE, "c"), (AUTHORIZATION, "a"), (API_KEY_HEADER, "k"), (ASSERTION_HEADER, "j"))

_NOTHING: Final = b""
_DERIVED: Final = "credentials' digest"


class ProofCache:
    """Callers by the SHA-256 of all header fields that a credential may stand in. No credential is kept.

    SECURITY: of the whole fields, all of them, each with its name: tests/proxy/auth/test_proofs.py holds that whatever differs is verified.
    """

    def __init__(self, capacity: int = MAX_PROOFS) -> None:
        self._capacity = capacity
        self._proofs: dict[bytes, tuple[Principal, tuple[Callable[[], bool], ...]]] = {}

    def __len__(self) -> int:
        return len(self._proofs)

    def find(self, headers: MultiMapping[str], query: Query, derived: dict[str, Any]) -> Principal | None:
        """None where the request's credentials have to be read and verified. derived: `of_fields` of Request."""
        digest = derived.get(_DERIVED)
        if digest is None:
            digest = derived[_DERIVED] = _digest(headers)
        entry = self._proofs.get(digest)
        if entry is None or has_token(query):
            return None
        principal, checks = entry
        for check in checks:
            if not check():
                return None
        return principal

    def keep(
        self, headers: MultiMapping[str], query: Query, principal: Principal, checks: Sequence[Callable[[], bool]]
    ) -> None:
        """principal: whom the request has just proven. checks: whether each of its credentials is still good; asked whenever it comes again."""
        digest = _digest(headers)
        if digest == _NOTHING or has_token(query):
            return
        if len(self._proofs) >= self._capacity:
            self._proofs.clear()
        self._proofs[digest] = (principal, tuple(checks))


def has_token(query: Query) -> bool:
    """Whether there is a credential in the query, empty or not."""
    return bool(query) and any(name == TOKEN_PARAMETER for name, _ in query)


def _digest(headers: MultiMapping[str]) -> bytes:
    """Nothing for a request without a field of its kind, or with two of one name."""
    text = ""
    for name, mark in _FIELDS:
        if name in headers:
            values = headers.getall(name)
            if len(values) != 1:
                return _NOTHING
            value = values[0]
            text += f"{mark}{len(value)}:{value}"  # with its length, so that none looks like two
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest() if text else _NOTHING
