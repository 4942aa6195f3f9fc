"""JWTs of configured issuers: from the text of a token to a principal, or to a refusal.

Trusts nothing in a token before its signature; `iss` only picks the settings that everything is then verified against.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import jwt
from jwt.algorithms import HMACAlgorithm

from policy.principal import ALL_SCOPES, Principal, Role, Scope, TenantId
from proxy.auth.jwks import Jwks
from proxy.auth.jwt_verification import (
    ClaimPath,
    Proof,
    TokenPrincipal,
    TokenRequirements,
    audience_of,
    claim_at,
    claim_path,
    decode_unverified,
    digest_of,
    prove,
    refuse,
    subject_of,
    words_of,
)
from proxy.auth.key_set import FixedKey, KeySource, VerificationKey, names_of, read_public_key
from proxy.config.identity import JwtSettings
from proxy.http.errors import Unauthenticated

SEEN_CAPACITY: Final = 10_000

_NO_TENANT: Final = "This token has no tenant here. Ask whoever runs the gate to map it to one."

# RFC 7518 3.2: a secret as long as the hash's output, or longer.
_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
_SCOPES: Final[Mapping[str, Scope]] = {scope.value: scope for scope in Scope}
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class TokenVerifier(Protocol):
    async def verify(self, token: str) -> Principal:
        """Who the token proves its bearer to be. Raises proxy.http.errors.Unauthenticated."""
        ...

    def check_of(self, token: str) -> Callable[[], bool]:
        """Whether what `verify` said of this token holds; to be asked whenever the token comes again."""
        ...

    def still_knows(self, principal: Principal) -> bool:
        """Whether a principal of an earlier configuration could still come, as the same and with the same rights. For what it has open."""
        ...


class VerifiedTokenCache:
    """Verified tokens by the SHA-256 of their whole text, so that a token seen before needs no signature check.

    SECURITY: the key is the full hash of the full token; tests/proxy/auth/test_jwt_issuers.py holds that no part of it may change.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[bytes, tuple[Principal, KeySource, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, digest: bytes, now_s: float) -> Principal | None:
        """The principal, unless its token has expired or its issuer's keys are others than those that proved it."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        principal, keys, generation = entry
        if principal.expires_at_s is None or now_s >= principal.expires_at_s or generation != keys.generation:
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return principal

    def keep(self, digest: bytes, principal: Principal, keys: KeySource) -> None:
        self._entries[digest] = (principal, keys, keys.generation)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Issuer:
    settings: JwtSettings
    keys: KeySource
    expected: TokenRequirements
    tenant_path: ClaimPath
    role_path: ClaimPath | None
    scope_path: ClaimPath | None

    @property
    def read_claims(self) -> frozenset[str]:
        """The names of those that are read of a token."""
        paths = (self.tenant_path, self.role_path or (), self.scope_path or ())
        return self.expected.required_claims.union(*(path[:1] for path in paths))


class JwtIssuers:
    """The issuers of `[jwt.<name>]`.

    resolve: a path of the configuration as one that can be opened. clock: Unix time in seconds; monotonic: see Jwks.
    previous: the object this one replaces at a reload; fetched keys of the same URL are taken over, verified tokens are not.
    Raises ValueError with every mistake, one a line.
    """

    def __init__(
        self,
        issuers: Mapping[str, JwtSettings],
        *,
        known_tenants: frozenset[str],
        resolve: Callable[[Path], Path],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        seen_capacity: int = SEEN_CAPACITY,
        previous: JwtIssuers | None = None,
    ) -> None:
        self._known_tenants = known_tenants
        self._clock = clock
        self._seen = VerifiedTokenCache(seen_capacity)
        self._jwks: list[Jwks] = []
        self._issuers: dict[str, _Issuer] = {}
        mistakes: list[str] = []
        for name, settings in issuers.items():
            try:
                self._add(name, settings, resolve, monotonic)
            except ValueError as error:
                mistakes.append(f"jwt.{name}: {error}")
        if mistakes:
            raise ValueError("\n".join(mistakes))
        fetched = {jwks.url: jwks for jwks in previous._jwks} if previous is not None else {}
        for jwks in self._jwks:
            if jwks.url in fetched:
                jwks.adopt(fetched[jwks.url])

    @property
    def key_sets(self) -> tuple[Jwks, ...]:
        """What is fetched from issuers."""
        return tuple(self._jwks)

    async def start(self) -> None:
        """Begins to fetch keys. Returns at once, also when no issuer answers."""
        for jwks in self._jwks:
            await jwks.start()

    async def stop(self) -> None:
        for jwks in self._jwks:
            await jwks.stop()

    async def verify(self, token: str) -> Principal:
        digest = digest_of(token)
        if seen := self._seen.find(digest, self._clock()):
            return seen
        unverified = decode_unverified(token)
        name = unverified.claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            refuse("?", self._unknown(name))
        proof = await prove(unverified, issuer.keys, issuer.expected, self._clock)
        principal = self._principal(issuer, proof)
        self._seen.keep(digest, principal, issuer.keys)
        return principal

    def check_of(self, token: str) -> Callable[[], bool]:
        digest = digest_of(token)
        return lambda: self._seen.find(digest, self._clock()) is not None

    def still_knows(self, principal: Principal) -> bool:
        """SECURITY: by what its token said, read anew: the tenant may be another's by now, or the role (tests/proxy/test_issuers.py)."""
        if not isinstance(principal, TokenPrincipal) or (proof := principal.proof) is None:
            return False
        issuer = self._issuers.get(proof.claims["iss"])
        if issuer is None or not issuer.expected.are_met_by(proof, issuer.keys):
            return False
        try:
            return self._principal(issuer, proof).covers(principal)
        except Unauthenticated:
            return False

    def _unknown(self, name: object) -> str:
        """What is wrong with an `iss`, in the gate's own words. The most usual mistake is a slash."""
        for known, issuer in self._issuers.items():
            if isinstance(name, str) and name.rstrip("/") == known.rstrip("/"):
                return f"issuer-unknown: the token's iss and jwt.{issuer.expected.name}.issuer differ by a slash at the end"
        return "issuer-unknown: the token's iss is that of no [jwt.*]"

    def _add(
        self, name: str, settings: JwtSettings, resolve: Callable[[Path], Path], monotonic: Callable[[], float]
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError("the name of an issuer has 1 to 64 letters, digits, '_' and '-'")
        if settings.issuer in self._issuers:
            raise ValueError("its issuer is that of another table: write one table with both audiences")
        unknown = sorted(set(settings.tenants.values()) - self._known_tenants)
        if unknown:
            raise ValueError(f"there is no [tenants.{unknown[0]}]")
        keys, algorithms = _keys_of(settings, resolve, monotonic)
        expected = TokenRequirements(
            name=name,
            issuer=settings.issuer,
            audience=audience_of(settings.audience),
            algorithms=algorithms,
            required_claims=frozenset(settings.required_claims) | {"iss", "aud", "exp", "sub"},
            leeway_s=settings.leeway,
        )
        self._issuers[settings.issuer] = _Issuer(
            settings,
            keys,
            expected,
            tenant_path=claim_path(settings.tenant_claim),
            role_path=claim_path(settings.role_claim) if settings.role_claim is not None else None,
            scope_path=claim_path(settings.scope_claim) if settings.scope_claim is not None else None,
        )
        if isinstance(keys, Jwks):
            self._jwks.append(keys)

    def _principal(self, issuer: _Issuer, proof: Proof) -> Principal:
        name, claims = issuer.expected.name, proof.claims
        if not claims["sub"].strip():
            refuse(name, "empty-subject")
        return TokenPrincipal(
            subject=subject_of(f"jwt:{name}", claims["sub"]),
            tenant=self._tenant_of(issuer, claims),
            role=_role_of(issuer, claims),
            scopes=_scopes_of(issuer, claims),
            expires_at_s=float(claims["exp"]),
            proof=proof.of(issuer.read_claims),
        )

    def _tenant_of(self, issuer: _Issuer, claims: Mapping[str, Any]) -> TenantId:
        value, table = claim_at(claims, issuer.tenant_path), issuer.settings.tenants
        tenant = value if isinstance(value, str) else None
        if tenant is not None and table:
            tenant = table.get(tenant)
        if tenant is None or tenant not in self._known_tenants:
            claim = issuer.settings.tenant_claim
            why = "is no text" if not isinstance(value, str) else "has a value that leads to no tenant"
            refuse(
                issuer.expected.name, f"no-tenant: the claim {claim!r} {why}", _NO_TENANT, reason="token-tenant-unknown"
            )
        return TenantId(tenant)


def _role_of(issuer: _Issuer, claims: Mapping[str, Any]) -> Role:
    if issuer.role_path is None:
        return Role.USER
    value = claim_at(claims, issuer.role_path)
    # One string is one role, whatever spaces it holds: only lists have several.
    words = [value] if isinstance(value, str) else words_of(value)
    is_admin = any(issuer.settings.roles.get(word) is Role.ADMIN for word in words)
    return Role.ADMIN if is_admin else Role.USER


def _scopes_of(issuer: _Issuer, claims: Mapping[str, Any]) -> frozenset[Scope]:
    if issuer.scope_path is None:
        return ALL_SCOPES
    words = words_of(claim_at(claims, issuer.scope_path))
    return frozenset(_SCOPES[word] for word in words if word in _SCOPES)


def _keys_of(
    settings: JwtSettings, resolve: Callable[[Path], Path], monotonic: Callable[[], float]
) -> tuple[KeySource, frozenset[str]]:
    """The keys, and those of the allowed algorithms that they can verify. Raises ValueError."""
    allowed = frozenset().union(*map(names_of, settings.algorithms))
    if settings.jwks_url is not None:
        jwks = Jwks(
            settings.jwks_url,
            timeout_s=settings.jwks_timeout,
            lifetime_s=settings.jwks_lifetime,
            monotonic=monotonic,
        )
        return jwks, allowed
    if settings.public_key_file is not None:
        file = settings.public_key_file
        try:
            key = read_public_key(_read_file(resolve(file)))
        except ValueError as error:
            raise ValueError(f"public_key_file {file}: {error}") from None
        if not allowed & key.algorithms:
            raise ValueError(f"public_key_file {file}: no allowed algorithm goes with this key")
        return FixedKey(key), allowed & key.algorithms
    if settings.secret_file is None:
        raise ValueError("give exactly one of jwks_url, public_key_file and secret_file")
    # An editor's line end is not part of the secret.
    secret = _read_file(resolve(settings.secret_file)).rstrip(b"\r\n")
    needed = max(_SECRET_BYTES[algorithm] for algorithm in allowed)
    if len(secret) < needed:
        raise ValueError(f"secret_file {settings.secret_file}: the secret must have at least {needed} bytes")
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError:
        # SECURITY: a public key as an HMAC secret lets anybody sign.
        raise ValueError(
            f"secret_file {settings.secret_file}: holds a key, not a secret; use public_key_file"
        ) from None
    return FixedKey(VerificationKey(secret, allowed)), allowed


def _read_file(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
