"""What a credential proved before: whoever comes again with the very same one is known by one hash, without reading and verifying it anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from multidict import MultiMapping

from policy.keyform import Presented
from policy.principal import Principal
from proxy.auth.api_keys import KeyPrincipal
from proxy.auth.credentials import API_KEY_HEADER, ASSERTION_HEADER, AUTHORIZATION, COOKIE, TOKEN_PARAMETER

MAX_PROOFS: Final = 4096
"""One key may be spelled in many ways (the user name of Basic is free), and cookies of others stand beside a session's."""
_FIELDS: Final = tuple(
    (name, name.encode() + b":") for name in (COOKIE, AUTHORIZATION, API_KEY_HEADER, ASSERTION_HEADER)
)


@dataclass(frozen=True, slots=True)
class Proof:
    """Who calls, and the texts that proved it, which may stand nowhere else in the request."""

    principal: Principal
    presented: Presented


class ProofCache:
    """Proofs of API keys and their sessions, by the SHA-256 of the one header field that they came in.

    SECURITY: of the whole field, and only where it is the only one of its kind: tests/proxy/auth/test_proofs.py holds that whatever differs is verified.
    """

    def __init__(self, holds: Callable[[KeyPrincipal], bool], capacity: int = MAX_PROOFS) -> None:
        """holds: whether a key or a session that was good still is."""
        self._holds = holds
        self._capacity = capacity
        self._proofs: dict[bytes, tuple[KeyPrincipal, Proof]] = {}

    def __len__(self) -> int:
        return len(self._proofs)

    def find(self, headers: MultiMapping[str], query: tuple[tuple[str, str], ...]) -> Proof | None:
        """None where the request's credentials have to be read and verified."""
        digest = _digest(headers, query)
        entry = self._proofs.get(digest) if digest is not None else None
        if entry is None:
            return None
        principal, proof = entry
        return proof if self._holds(principal) else None

    def keep(self, headers: MultiMapping[str], query: tuple[tuple[str, str], ...], proof: Proof) -> None:
        """proof: what was just verified of this request. Of tokens their issuers' verifiers keep what they need."""
        digest = _digest(headers, query)
        if digest is None or not isinstance(proof.principal, KeyPrincipal):
            return
        if len(self._proofs) >= self._capacity:
            self._proofs.clear()
        self._proofs[digest] = (proof.principal, proof)


def _digest(headers: MultiMapping[str], query: tuple[tuple[str, str], ...]) -> bytes | None:
    """None for a request with no field that may hold a credential, or with several."""
    place = None
    for field in _FIELDS:
        if field[0] in headers:
            if place is not None:
                return None
            place = field
    if place is None or (query and any(name == TOKEN_PARAMETER for name, _ in query)):
        return None
    name, prefix = place
    values = headers.getall(name)
    if len(values) != 1:
        return None
    return hashlib.sha256(prefix + values[0].encode(errors="surrogatepass")).digest()
