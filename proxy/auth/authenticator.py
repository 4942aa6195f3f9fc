"""From what a request presents to a principal, or to a refusal. All that is presented is verified; nothing configured means nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, assert_never

from multidict import MultiMapping

from policy.principal import Principal, Role
from proxy.auth.api_keys import ApiKeyStore, KeyPrincipal
from proxy.auth.credentials import AccessAssertion, ApiKey, Credential, SessionCookie, Token, read_credentials
from proxy.auth.proofs import ProofCache
from proxy.auth.sessions import Sessions
from proxy.http.errors import Unauthenticated

if TYPE_CHECKING:
    from proxy.auth.jwt_issuers import TokenVerifier


class Authenticator:
    """One configuration's answer to who calls. tokens, access: None where the configuration has no issuer of that kind."""

    def __init__(
        self, keys: ApiKeyStore, sessions: Sessions, tokens: TokenVerifier | None, access: TokenVerifier | None
    ) -> None:
        self.keys = keys
        self.sessions = sessions
        self._tokens = tokens
        self._access = access
        self._proofs = ProofCache()
        self.recall = self._proofs.find
        """Whom these very credentials proved before, as long as they are good. None: `authenticate` has the answer."""

    async def authenticate(self, headers: MultiMapping[str], query: tuple[tuple[str, str], ...]) -> Principal:
        """The proven caller.

        Raises Unauthenticated when there is no credential, when one of them is not good, whatever stands beside it, and when they name different callers;
        SessionRefused, which carries headers for the answer, when it was the cookie; KeyRefused, with the claimed id, when it was a key.
        """
        credentials = read_credentials(headers, query, self.sessions.cookie_name)
        if not credentials:
            raise self.sessions.missing(headers)
        principal = await self._verify(credentials[0])
        checks = self._checks_of(credentials[0], principal)
        for credential in credentials[1:]:
            has_assertion = isinstance(credential, AccessAssertion) or isinstance(credentials[0], AccessAssertion)
            other = await self._verify(credential)
            checks += self._checks_of(credential, other)
            principal = _agreed(principal, other, is_same_subject=not has_assertion)
        self._proofs.keep(headers, query, principal, checks)
        return principal

    def is_alive(self, principal: Principal, now: float) -> bool:
        """Whether this configuration would still let the caller in. now: Unix time in seconds. For sockets, which outlive their request."""
        if principal.expires_at_s is not None and principal.expires_at_s <= now:
            return False
        if not all(self.is_alive(other, now) for other in principal.beside):
            return False
        if isinstance(principal, KeyPrincipal):
            return self.keys.is_alive(principal, now) and self.sessions.is_alive(principal)
        verifiers = (verifier for verifier in (self._tokens, self._access) if verifier is not None)
        return any(verifier.still_knows(principal) for verifier in verifiers)

    def _checks_of(self, credential: Credential, principal: Principal) -> list[Callable[[], bool]]:
        """What may change of a verified credential while this configuration is in force; nothing, of a key without an end."""
        if isinstance(principal, KeyPrincipal):
            is_for_good = principal.session is None and principal.expires_at_s is None
            return [] if is_for_good else [partial(self._holds, principal)]
        verifier = self._access if isinstance(credential, AccessAssertion) else self._tokens
        assert verifier is not None, "it was verified"
        assert not isinstance(credential, SessionCookie), "a session is a key's"
        return [verifier.check_of(credential.text)]

    def _holds(self, principal: KeyPrincipal) -> bool:
        if principal.session is None:
            return not self.keys.has_expired(principal)
        return self.sessions.is_alive(principal) and not self.sessions.has_expired(principal)

    async def _verify(self, credential: Credential) -> Principal:
        match credential:
            case ApiKey():
                return self.keys.verify(credential.text)
            case SessionCookie():
                return self.sessions.verify(credential, self.keys)
            case Token():
                if self._tokens is None:
                    raise Unauthenticated(
                        "The credential is not an API key, and this gate accepts no tokens.", reason="token-unwanted"
                    )
                return await self._tokens.verify(credential.text)
            case AccessAssertion():
                if self._access is None:
                    raise Unauthenticated(
                        "This gate is not set up for Cloudflare Access: its operator has to add [cloudflare_access].",
                        reason="assertion-unwanted",
                    )
                return await self._access.verify(credential.text)
        assert_never(credential)


def _agreed(one: Principal, other: Principal, *, is_same_subject: bool) -> Principal:
    """One caller from two proofs, with what both of them permit.

    is_same_subject: False beside an assertion, which the edge adds to whatever the client sends: it names a person, the key a key, and the tenant must be one.
    """
    if one.tenant != other.tenant or (is_same_subject and one.subject != other.subject):
        raise Unauthenticated(
            "The credentials of this request name different callers. Send one.", reason="credentials-disagree"
        )
    # A key's principal stays one, whichever came first: it can be revoked before its time.
    kept, narrowing = (
        (other, one) if isinstance(other, KeyPrincipal) and not isinstance(one, KeyPrincipal) else (one, other)
    )
    ends = [moment for moment in (one.expires_at_s, other.expires_at_s) if moment is not None]
    return replace(
        kept,
        role=Role.ADMIN if one.is_admin and other.is_admin else Role.USER,
        scopes=kept.scopes & narrowing.scopes,
        expires_at_s=min(ends, default=None),
        is_session=one.is_session or other.is_session,
        beside=(*kept.beside, narrowing),
    )
