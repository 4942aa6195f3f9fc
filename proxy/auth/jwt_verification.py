"""From the text of a signed token to the claims that its issuer's key has proven.

Trusts nothing in a token before its signature, and of its header only `alg` and `kid`, within what is allowed and known.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn

import jwt
from jwt.algorithms import OKPAlgorithm

from policy.principal import Principal
from proxy.auth.key_set import KeySource, VerificationKey
from proxy.http.errors import IssuerUnavailable, Unauthenticated

TELL_AGAIN_S: Final = 60.0
_told_at_s: dict[tuple[str, str], float] = {}
"""By issuer and reason, which are words of the configuration and of the gate: bounded."""
_log = logging.getLogger("comfygate")

MAX_TOKEN_BYTES: Final = 16 * 1024

_MALFORMED: Final = "This is not a signed JSON Web Token (three base64url parts with dots between)."
INVALID: Final = "This token is not valid here. Get a new one from its issuer."
_EXPIRED: Final = "This token has expired. Get a new one from its issuer."
_EARLY: Final = "This token is not valid yet. Check the clocks of its issuer and of the gate."
_AUDIENCE: Final = "This token is not meant for the gate. Ask its issuer for one with the gate's audience."

# RFC 7515 7.1: three parts of base64url without padding. Five would be a JWE, an empty third one an unsigned token.
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TYPES: Final = frozenset({"jwt", "at+jwt"})
_LAST_TIME_S: Final = 253_402_300_799  # the end of the year 9999
_MAX_SUBJECT: Final = 128
# pyjwt has EdDSA by its old name only (RFC 9864 2.2); it refuses a second registration when it has the new one.
with suppress(ValueError):
    jwt.register_algorithm("Ed25519", OKPAlgorithm())


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token taken apart. Nothing of it is believed."""

    text: str = field(repr=False)
    header: Mapping[str, Any] = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a key has proven. claims: all, or those that are kept."""

    claims: Mapping[str, Any] = field(repr=False)
    key: VerificationKey

    def of(self, names: Iterable[str]) -> Proof:
        """With those of these names that are there: what is kept of a token is bounded by what is read of it."""
        return replace(self, claims={name: self.claims[name] for name in names if name in self.claims})


@dataclass(frozen=True, slots=True)
class TokenPrincipal(Principal):
    """A caller whom a token proved.

    proof: so that it can be said later whether it still is; None for nobody.
    """

    proof: Proof | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class TokenRequirements:
    """What a token must prove. name: of the issuer in the configuration, for the log."""

    name: str
    issuer: str
    audience: tuple[str, ...]
    algorithms: frozenset[str]
    required_claims: frozenset[str]
    leeway_s: float

    def are_met_by(self, proof: Proof, keys: KeySource) -> bool:
        """Whether what was proven before is of this issuer, by a key that it has still, for this audience, and all that is required."""
        claims = proof.claims
        audience = claims.get("aud")
        audiences = {audience} if isinstance(audience, str) else set(words_of(audience))
        is_of_issuer = claims.get("iss") == self.issuer and not audiences.isdisjoint(self.audience)
        return is_of_issuer and claims.keys() >= self.required_claims and keys.has(proof.key)


def refuse(name: str, why: str, message: str = INVALID, *, reason: str = "token-invalid") -> NoReturn:
    """Raises Unauthenticated. why: for the operator's log, from the gate's own words, never from the token.

    name: of the issuer's table, "?" where it is not known. Told at most once a minute for each of both, but at debug level, since anybody can send a bad token.
    """
    _log.debug("token refused: issuer %s: %s", name, why)
    now_s = time.monotonic()
    if now_s >= _told_at_s.get((name, why), -math.inf) + TELL_AGAIN_S:
        _told_at_s[name, why] = now_s
        _log.warning("a token was refused: issuer %s: %s", name, why)
    raise Unauthenticated(message, reason=reason) from None


def decode_unverified(token: str) -> UnverifiedToken:
    """Header and claims of a signed token in its only spelling. Raises Unauthenticated for everything else."""
    if not _COMPACT.fullmatch(token):
        refuse("?", "not-a-signed-token", _MALFORMED, reason="token-malformed")
    header, claims, signature = token.split(".")
    try:
        _bytes_of(signature)
        return UnverifiedToken(token, _object_of(header), _object_of(claims))
    except (ValueError, RecursionError):
        refuse("?", "not-json-in-base64url", _MALFORMED, reason="token-malformed")


def _bytes_of(part: str) -> bytes:
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    # Unused last bits would give one signature several spellings (RFC 4648 3.5).
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part.encode():
        raise ValueError("not canonical base64url")
    return decoded


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    # SECURITY: readers differ on which of two equal names counts (RFC 8725 2.4); no reader may differ from us.
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


_JSON: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _object_of(part: str) -> dict[str, Any]:
    value = _JSON.decode(_bytes_of(part).decode())
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


async def prove(
    token: UnverifiedToken, keys: KeySource, expected: TokenRequirements, clock: Callable[[], float]
) -> Proof:
    """The claims of a token that has proven all of `expected`, and the key that did. clock: Unix time in seconds. Raises Unauthenticated, IssuerUnavailable."""
    header = token.header
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in expected.algorithms:
        refuse(expected.name, "algorithm-not-allowed")
    # RFC 7515 4.1.11: what is critical and not understood is refused; the gate understands no extension. b64 is one.
    if "crit" in header or "b64" in header:
        refuse(expected.name, "critical-header")
    if "typ" in header and not _is_token_type(header["typ"]):
        refuse(expected.name, "type-not-allowed")
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        refuse(expected.name, "kid-not-a-string")
    # SECURITY: jku, jwk, x5u and x5c are never read: the keys are the issuer's, not the token's.
    candidates = [key for key in await keys.find(kid) if algorithm in key.algorithms]
    if not candidates and not keys.is_ready:
        _log.debug("token not judged: issuer %s: no keys yet", expected.name)
        raise IssuerUnavailable
    proof = _verify(token, candidates, algorithm, expected)
    _check_times(proof.claims, expected, clock())
    return proof


def _is_token_type(value: object) -> bool:
    # RFC 7515 4.1.9: compared without regard to case, "application/" may be left out.
    return isinstance(value, str) and value.lower().removeprefix("application/") in _TYPES


def _verify(
    token: UnverifiedToken, candidates: Iterable[VerificationKey], algorithm: str, expected: TokenRequirements
) -> Proof:
    for candidate in candidates:
        try:
            claims = jwt.decode(
                token.text,
                candidate.key,
                algorithms=[algorithm],
                audience=expected.audience,
                issuer=expected.issuer,
                options={
                    "require": sorted(expected.required_claims),
                    # The times are checked by _check_times, since pyjwt reads the machine's clock itself.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            return Proof(claims, candidate)
        except jwt.InvalidSignatureError:
            continue
        except jwt.MissingRequiredClaimError as error:
            message = f"This token lacks the claim {error.claim!r}. Ask its issuer to add it."
            refuse(expected.name, "claim-missing", message)
        except jwt.InvalidAudienceError:
            refuse(expected.name, "audience", _AUDIENCE)
        except jwt.PyJWTError as error:
            refuse(expected.name, type(error).__name__)
    refuse(expected.name, "signature-or-key")


def _check_times(claims: Mapping[str, Any], expected: TokenRequirements, now_s: float) -> None:
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_TIME_S:
            refuse(expected.name, f"{name}-not-a-time")
    if now_s >= claims["exp"] + expected.leeway_s:
        refuse(expected.name, "expired", _EXPIRED, reason="token-expired")
    for name in ("nbf", "iat"):
        if claims.get(name, 0) > now_s + expected.leeway_s:
            refuse(expected.name, f"{name}-in-the-future", _EARLY)


def subject_of(kind: str, text: str) -> str:
    """A principal's subject: readable where it can be, always bounded, and never the same for two texts."""
    if len(text) > _MAX_SUBJECT or not text.isprintable() or text.startswith("sha256:"):
        text = "sha256:" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{kind}:{text}"


def digest_of(token: str) -> bytes:
    """The SHA-256 of the whole text. Raises Unauthenticated for a token over MAX_TOKEN_BYTES."""
    if len(token) > MAX_TOKEN_BYTES:
        message = f"This token has more than {MAX_TOKEN_BYTES} bytes. Ask its issuer for a smaller one."
        refuse("?", "too-large", message, reason="token-malformed")
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


ClaimPath = tuple[str, ...]


def claim_path(text: str) -> ClaimPath:
    """ "app_metadata.tenant" as a path; a name with "://" is one claim, as Auth0 writes its own. Raises ValueError."""
    path = (text,) if "://" in text else tuple(text.split("."))
    if not all(path):
        raise ValueError(f'{text!r} is no claim: write a name such as "tenant" or "app_metadata.tenant"')
    return path


def claim_at(claims: Mapping[str, Any], path: ClaimPath) -> object:
    """The value of a claim, None when it is not there."""
    value: Any = claims
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def words_of(value: object) -> list[str]:
    """The strings of a claim that holds a list of them or one string with spaces between (RFC 8693 4.2)."""
    if isinstance(value, str):
        return value.split()
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def audience_of(audience: str | Iterable[str]) -> tuple[str, ...]:
    """Raises ValueError for an empty one, which a token without audience could match."""
    found = (audience,) if isinstance(audience, str) else tuple(audience)
    if not found or not all(found):
        raise ValueError("audience must not be empty")
    return found
