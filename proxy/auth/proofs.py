"""What credentials proved before: whoever comes again with the very same ones is known by one hash, without reading and verifying them anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from multidict import MultiMapping

from policy.keyform import Presented
from policy.principal import Principal
from proxy.auth.credentials import API_KEY_HEADER, ASSERTION_HEADER, AUTHORIZATION, COOKIE, TOKEN_PARAMETER

MAX_PROOFS: Final = 4096
"""One key may be spelled in many ways (the user name of Basic is free), and cookies of others stand beside a session's."""
_FIELDS: Final = ((COOKIE, "c"), (AUTHORIZATION, "a"), (API_KEY_HEADER, "k"), (ASSERTION_HEADER, "j"))


@dataclass(frozen=True, slots=True)
class Proof:
    """Who calls, and the texts that proved it, which may stand nowhere else in the request."""

    principal: Principal
    presented: Presented


class ProofCache:
    """Proofs by the SHA-256 of all header fields that a credential may stand in.

    SECURITY: of the whole fields, all of them, each with its name: tests/proxy/auth/test_proofs.py holds that whatever differs is verified.
    """

    def __init__(self, capacity: int = MAX_PROOFS) -> None:
        self._capacity = capacity
        self._proofs: dict[bytes, tuple[Proof, tuple[Callable[[], bool], ...]]] = {}

    def __len__(self) -> int:
        return len(self._proofs)

    def find(self, headers: MultiMapping[str], query: tuple[tuple[str, str], ...]) -> Proof | None:
        """None where the request's credentials have to be read and verified."""
        digest = _digest(headers, query)
        entry = self._proofs.get(digest) if digest is not None else None
        if entry is None:
            return None
        proof, checks = entry
        for check in checks:
            if not check():
                return None
        return proof

    def keep(
        self,
        headers: MultiMapping[str],
        query: tuple[tuple[str, str], ...],
        proof: Proof,
        checks: Sequence[Callable[[], bool]],
    ) -> None:
        """proof: what was just verified of this request. checks: whether each of its credentials is still good; asked whenever it comes again."""
        digest = _digest(headers, query)
        if digest is None:
            return
        if len(self._proofs) >= self._capacity:
            self._proofs.clear()
        self._proofs[digest] = (proof, tuple(checks))


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
