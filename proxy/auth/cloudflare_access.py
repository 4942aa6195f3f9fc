"""Cloudflare Access: from the assertion header that the edge adds to a principal, for people and for service tokens.

Trusts the team's published keys and nothing else of the edge; the CF_Authorization cookie is never read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from policy.principal import Principal, Role, TenantId
from proxy.auth.jwks import Jwks
from proxy.auth.jwt_issuers import SEEN_CAPACITY, VerifiedTokenCache
from proxy.auth.jwt_verification import (
    Proof,
    TokenPrincipal,
    TokenRequirements,
    audience_of,
    claim_at,
    decode_unverified,
    digest_of,
    prove,
    refuse,
    subject_of,
)
from proxy.config.identity import CloudflareAccessSettings
from proxy.http.errors import Unauthenticated

_NO_TENANT: Final = "This identity has no tenant here. Ask whoever runs the gate to map it to one."
# SECURITY: ASCII only, since lower() folds letters such as the Kelvin sign into ASCII ones and would make two people one.
_EMAIL: Final = re.compile(r"[\x21-\x3f\x41-\x7e]+@[a-z0-9.-]+")
_GROUP_CLAIMS: Final = (("groups",), ("custom", "groups"))
_REQUIRED_CLAIMS: Final = frozenset({"iss", "aud", "exp", "sub", "type"})
_READ_CLAIMS: Final = _REQUIRED_CLAIMS | {"email", "common_name", "groups", "custom"}


def parse_email(text: object) -> str | None:
    """An e-mail address in lower case, None for what is not surely one."""
    if not isinstance(text, str) or not text.isascii():
        return None
    email = text.lower()
    return email if _EMAIL.fullmatch(email) else None


class CloudflareAccess:
    """`[cloudflare_access]`: verifies assertions and maps who they name.

    clock: Unix time in seconds; monotonic: see Jwks. previous: the object this one replaces at a reload.
    Raises ValueError with every mistake, one a line.
    """

    def __init__(
        self,
        settings: CloudflareAccessSettings,
        *,
        known_tenants: frozenset[str],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        seen_capacity: int = SEEN_CAPACITY,
        previous: CloudflareAccess | None = None,
    ) -> None:
        self._clock = clock
        self._seen = VerifiedTokenCache(seen_capacity)
        mistakes: list[str] = []
        self._emails = _checked(settings.emails, "emails", known_tenants, mistakes, _email_key)
        self._domains = _checked(settings.email_domains, "email_domains", known_tenants, mistakes, _domain_key)
        self._groups = _checked(settings.groups, "groups", known_tenants, mistakes, str)
        self._service_tokens = _checked(settings.service_tokens, "service_tokens", known_tenants, mistakes, str)
        self._admin_emails = frozenset(filter(None, map(parse_email, settings.admins)))
        self._admin_names = frozenset(name for name in settings.admins if parse_email(name) is None)
        if mistakes:
            raise ValueError("\n".join(mistakes))
        issuer = f"https://{settings.team_domain}"
        try:
            self._jwks = Jwks(settings.certs_url or f"{issuer}/cdn-cgi/access/certs", monotonic=monotonic)
            audience = audience_of(settings.audience)
        except ValueError as error:
            raise ValueError(f"cloudflare_access: {error}") from None
        self._expected = TokenRequirements(
            name="cloudflare_access",
            issuer=issuer,
            audience=audience,
            algorithms=frozenset({"RS256"}),
            # sub is there but empty for a service token.
            required_claims=_REQUIRED_CLAIMS,
            leeway_s=settings.leeway,
        )
        if previous is not None and previous._jwks.url == self._jwks.url:
            self._jwks.adopt(previous._jwks)

    @property
    def key_sets(self) -> tuple[Jwks, ...]:
        """What is fetched from the team's domain."""
        return (self._jwks,)

    async def start(self) -> None:
        """Begins to fetch the team's keys. Returns at once, also when the team domain does not answer."""
        await self._jwks.start()

    async def stop(self) -> None:
        await self._jwks.stop()

    async def verify(self, token: str) -> Principal:
        """Who the assertion names. Raises proxy.http.errors.Unauthenticated, also for somebody known who has no tenant."""
        digest = digest_of(token)
        if seen := self._seen.find(digest, self._clock()):
            return seen
        proof = await prove(decode_unverified(token), self._jwks, self._expected, self._clock)
        if proof.claims["type"] != "app":
            # Other tokens of the same team have the same keys and issuer, such as the "org" one of the login itself.
            refuse(self._expected.name, "type-not-app")
        principal = self._principal(proof)
        self._seen.keep(digest, principal, self._jwks)
        return principal

    def check_of(self, token: str) -> Callable[[], bool]:
        digest = digest_of(token)
        return lambda: self._seen.find(digest, self._clock()) is not None

    def still_knows(self, principal: Principal) -> bool:
        """SECURITY: whether this very person or service is mapped as it was, not somebody (tests/proxy/test_issuers.py)."""
        if not isinstance(principal, TokenPrincipal) or (proof := principal.proof) is None:
            return False
        if not self._expected.are_met_by(proof, self._jwks):
            return False
        try:
            return self._principal(proof).covers(principal)
        except Unauthenticated:
            return False

    def _principal(self, proof: Proof) -> Principal:
        return self._service(proof) if not proof.claims["sub"].strip() else self._person(proof)

    def _service(self, proof: Proof) -> Principal:
        """SECURITY: an empty `sub` is a service token or nobody; an e-mail address beside it counts for nothing."""
        claims = proof.claims
        name = claims.get("common_name")
        if not isinstance(name, str) or claims.get("email") or (tenant := self._service_tokens.get(name)) is None:
            self._refuse_unmapped()
        return TokenPrincipal(
            subject=subject_of("access-service", name),
            tenant=tenant,
            role=Role.ADMIN if name in self._admin_names else Role.USER,
            expires_at_s=float(claims["exp"]),
            proof=proof.of(_READ_CLAIMS),
        )

    def _person(self, proof: Proof) -> Principal:
        claims = proof.claims
        email = parse_email(claims.get("email"))
        tenant = None
        if email is not None:
            tenant = self._emails.get(email) or self._domains.get(email.rpartition("@")[2])
        tenant = tenant or self._tenant_of_groups(claims)
        if tenant is None:
            self._refuse_unmapped()
        return TokenPrincipal(
            subject=subject_of("access", claims["sub"]),
            tenant=tenant,
            role=Role.ADMIN if email in self._admin_emails else Role.USER,
            expires_at_s=float(claims["exp"]),
            proof=proof.of(_READ_CLAIMS),
        )

    def _tenant_of_groups(self, claims: Mapping[str, Any]) -> TenantId | None:
        """The first group of the configuration that the person is in: the operator orders them, not the token."""
        values = [value for path in _GROUP_CLAIMS if isinstance(value := claim_at(claims, path), list)]
        groups = {group for value in values for group in value if isinstance(group, str)}
        return next((tenant for group, tenant in self._groups.items() if group in groups), None)

    def _refuse_unmapped(self) -> NoReturn:
        # 401, not 403: 403 would say that the gate knows this identity.
        refuse(self._expected.name, "no-tenant", _NO_TENANT, reason="token-tenant-unknown")


def _email_key(text: str) -> str:
    email = parse_email(text)
    if email is None:
        raise ValueError("is no e-mail address in ASCII")
    return email


def _domain_key(text: str) -> str:
    domain = text.lower().removeprefix("@")
    if parse_email(f"x@{domain}") is None:
        raise ValueError("is no domain in ASCII")
    return domain


def _checked(
    table: Mapping[str, str],
    name: str,
    known_tenants: frozenset[str],
    mistakes: list[str],
    key_of: Callable[[str], str],
) -> dict[str, TenantId]:
    """The table under its keys as tokens are looked up; adds to `mistakes` what is wrong with it."""
    found: dict[str, TenantId] = {}
    for text, tenant in table.items():
        place = f"cloudflare_access.{name}.{text}"
        try:
            key = key_of(text)
        except ValueError as error:
            mistakes.append(f"{place}: {error}")
            continue
        if not key:
            mistakes.append(f"{place}: must not be empty")
        if tenant not in known_tenants:
            mistakes.append(f"{place}: there is no [tenants.{tenant}]")
        if found.setdefault(key, TenantId(tenant)) != tenant:
            mistakes.append(f"{place}: stands twice with different tenants")
    return found
