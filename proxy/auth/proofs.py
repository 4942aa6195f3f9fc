"""What credentials proved before: whoever comes again with the very same ones is known by one hash, without reading and verifying them anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from multidict import MultiMapping

from policy.principal import Principal
from proxy.auth.credentials import API_KEY_HEADER, ASSERTION_HEADER, AUTHORIZATION, COOKIE, TOKEN_PARAMETER

MAX_PROOFS: Final = 4096
"""One key may be spelled in many ways (the user name of Basic is free), and cookies of others stand beside a session's."""
_FIELDS: Final = ((COOKIE, "c"), (AUTHORIZATION, "a"), (API_KEY_HEADER, "k"), (ASSERTION_HEADER, "j"))


class ProofCache:
    """Callers by the SHA-256 of all header fields that a credential may stand in. No credential is kept.

    SECURITY: of the whole fields, all of them, each with its name: tests/proxy/auth/test_proofs.py holds that whatever differs is verified.
    """

    def __init__(self, capacity: int = MAX_PROOFS) -> None:
        self._capacity = capacity
        self._proofs: dict[bytes, tuple[Principal, tuple[Callable[[], bool], ...]]] = {}

    def __len__(self) -> int:
        return len(self._proofs)

    def find(self, headers: MultiMapping[str], query: tuple[tuple[str, str], ...]) -> Principal | None:
        """None where the request's credentials have to be read and verified."""
        digest = _digest(headers, query)
        entry = self._proofs.get(digest) if digest is not None else None
        if entry is None:
            return None
        principal, checks = entry
        for check in checks:
            if not check():
                return None
        return principal

    def keep(
        self,
        headers: MultiMapping[str],
        query: tuple[tuple[str, str], ...],
        principal: Principal,
        checks: Sequence[Callable[[], bool]],
    ) -> None:
        """principal: whom the request has just proven. checks: whether each of its credentials is still good; asked whenever it comes again."""
        digest = _digest(headers, query)
        if digest is None:
            return
        if len(self._proofs) >= self._capacity:
            self._proofs.clear()
        self._proofs[digest] = (principal, tuple(checks))


def _digest(headers: MultiMapping[str], query: tuple[tuple[str, str], ...]) -> bytes | None:
    """None for a request without a field of its kind, with two of one name, or with a credential in its query."""
    if query and any(name == TOKEN_PARAMETER for name, _ in query):
        return None
    text = ""
    for name, mark in _FIELDS:
        if name in headers:
            values = headers.getall(name)
            if len(values) != 1:
                return None
            value = values[0]
            text += f"{mark}{len(value)}:{value}"  # with its length, so that none looks like two
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest() if text else None
