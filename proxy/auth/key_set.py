"""Public keys: read from a JWK set or a PEM file, each with the only algorithms that it may verify. Trusts nothing of what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

MAX_KEYS: Final = 100
# 8192-bit moduli are 1366 base64url characters. A larger number would only buy time on the event loop.
_MAX_NUMBER_LENGTH: Final = 1400
_RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
# RFC 7518 3.4 ties each ES algorithm to one curve.
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
# RFC 9864 2.2 names EdDSA with the curve Ed25519 after its curve. The gate takes no other one, so both are names of one algorithm.
_ED25519_NAMES: Final = frozenset({"EdDSA", "Ed25519"})
_READERS: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key and the only algorithms that it may verify; bytes are an HMAC secret."""

    key: PublicKey | bytes = field(repr=False)
    algorithms: frozenset[str]


class KeySource(Protocol):
    """Where an issuer's keys come from."""

    @property
    def generation(self) -> int:
        """Another number as soon as the keys are others: what the old ones proved must be proven again."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether there are keys at all."""
        ...

    async def find(self, kid: str | None) -> tuple[VerificationKey, ...]:
        """The keys that a token with this kid (None: without one) may be signed by; empty for unknown."""
        ...

    def has(self, key: VerificationKey) -> bool:
        """Whether this very key, which may have been read at another time, is one of those that are known now."""
        ...


@dataclass(frozen=True, slots=True)
class FixedKey:
    """One key from a file. A kid says nothing, since there is no choice."""

    key: VerificationKey
    generation: int = 0
    is_ready: bool = True

    async def find(self, kid: str | None) -> tuple[VerificationKey, ...]:
        return (self.key,)

    def has(self, key: VerificationKey) -> bool:
        return key == self.key


@dataclass(frozen=True, slots=True)
class KeySet:
    """lone: the only key of the set, which a token without kid means (OpenID Connect Core 10.1); else empty."""

    by_kid: Mapping[str, tuple[VerificationKey, ...]] = field(default_factory=dict)
    lone: tuple[VerificationKey, ...] = ()

    def find(self, kid: str | None) -> tuple[VerificationKey, ...]:
        return self.lone if kid is None else self.by_kid.get(kid, ())

    def has(self, key: VerificationKey) -> bool:
        return key in self.lone or any(key in found for found in self.by_kid.values())


def names_of(algorithm: str) -> frozenset[str]:
    """Every name of this algorithm in a key or a token, by any of them."""
    return _ED25519_NAMES if algorithm in _ED25519_NAMES else frozenset({algorithm})


def algorithms_for(key: object) -> frozenset[str]:
    """The algorithms that this public key may verify. Raises ValueError when the gate takes no such key."""
    if isinstance(key, RSAPublicKey):
        # RFC 7518 3.3: at least 2048 bits. The upper bounds keep one verification under a millisecond.
        if not 2048 <= key.key_size <= 8192 or key.public_numbers().e.bit_length() > 32:
            raise ValueError("an RSA key must have 2048 to 8192 bits and an exponent of at most 32")
        return _RSA_ALGORITHMS
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return frozenset({_CURVES[key.curve.name]})
    if isinstance(key, Ed25519PublicKey):
        return _ED25519_NAMES
    raise ValueError("only RSA, P-256, P-384, P-521 and Ed25519 public keys are taken")


def read_public_key(pem: bytes) -> VerificationKey:
    """A PEM public key. Raises ValueError, also for a private key or a certificate."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is not a PEM public key (-----BEGIN PUBLIC KEY-----)") from None
    algorithms = algorithms_for(key)
    return VerificationKey(key, algorithms)  # type: ignore[arg-type]  # algorithms_for refuses every other type


def read_key_set(body: bytes) -> KeySet:
    """A JWK set (RFC 7517) as the gate may use it: keys it cannot or must not use are left out.

    Raises ValueError when it is none, has over MAX_KEYS keys, or no usable one.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ValueError("the answer is not JSON") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError("the answer is not a JWK set")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"the JWK set has more than {MAX_KEYS} keys")
    by_kid: dict[str, tuple[VerificationKey, ...]] = {}
    usable: list[VerificationKey] = []
    for jwk in keys:
        try:
            key = _read_key(jwk)
        except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):
            continue
        usable.append(key)
        if isinstance(kid := jwk.get("kid"), str):
            by_kid[kid] = (*by_kid.get(kid, ()), key)
    if not usable:
        raise ValueError("the JWK set has no key that the gate can use")
    return KeySet(by_kid, tuple(usable) if len(keys) == 1 else ())


def _read_key(jwk: Any) -> VerificationKey:
    if not isinstance(jwk, dict):
        raise ValueError("not an object")
    # SECURITY: an oct key is a secret that was published, and "d" is a private key that was: anybody can sign with it.
    if jwk.get("kty") not in ("RSA", "EC", "OKP") or "d" in jwk:
        raise ValueError("not a public key")
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        raise ValueError("not a key for signatures")
    if any(len(jwk.get(name, "")) > _MAX_NUMBER_LENGTH for name in ("n", "e", "x", "y")):
        raise ValueError("too large")
    key = _READERS[jwk["kty"]](jwk)
    algorithms = algorithms_for(key)
    if "alg" in jwk:
        algorithms &= names_of(jwk["alg"])
    if not algorithms:
        raise ValueError("its alg does not go with its kty")
    return VerificationKey(key, algorithms)
