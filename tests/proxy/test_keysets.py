"""Which published keys the gate uses, and for which algorithms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import RSAAlgorithm

from proxy.auth.key_set import FixedKey, VerificationKey, algorithms_for, read_key_set, read_public_key
from tests.proxy.jwks_server import signer

ED25519 = {"EdDSA", "Ed25519"}
ALL_RSA = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
USABLE: dict[str, tuple[dict[str, Any], set[str]]] = {
    "RSA of one algorithm": (signer("one").jwk(), {"RS256"}),
    "RSA of another algorithm": (signer("one").jwk(alg="PS512"), {"PS512"}),
    "P-256": (signer("one", "ES256").jwk(), {"ES256"}),
    "P-384": (signer("one", "ES384").jwk(), {"ES384"}),
    "P-521": (signer("one", "ES512").jwk(), {"ES512"}),
    "Ed25519": (signer("one", "EdDSA").jwk(), ED25519),
    "Ed25519 by the name of RFC 9864": (signer("one", "EdDSA").jwk(alg="Ed25519"), ED25519),
    "with key_ops": (signer("one").jwk(key_ops=["verify"]), {"RS256"}),
    "with x5u and x5c": (signer("one").jwk(x5u="http://127.0.0.1:1/", x5c=["x"]), {"RS256"}),
}


@pytest.mark.parametrize("name", USABLE)
def test_usable_key_goes_with_its_algorithms_only(name: str) -> None:
    jwk, algorithms = USABLE[name]
    (key,) = read_key_set(orjson.dumps({"keys": [jwk]})).find("one")
    assert key.algorithms == algorithms


def test_key_without_use_and_alg_goes_with_all_of_its_type() -> None:
    jwk = signer("one").jwk()
    del jwk["use"], jwk["alg"]
    (key,) = read_key_set(orjson.dumps({"keys": [jwk]})).find("one")
    assert key.algorithms == ALL_RSA


def rsa_of(bits: int, exponent: int = 65537) -> dict[str, Any]:
    private = rsa.generate_private_key(public_exponent=exponent, key_size=bits)
    return {**RSAAlgorithm.to_jwk(private.public_key(), as_dict=True), "kid": "one"}


UNUSABLE: dict[str, Callable[[], Any]] = {
    "a secret": lambda: {"kty": "oct", "kid": "one", "k": "c2VjcmV0"},
    "for encryption": lambda: signer("one").jwk(use="enc"),
    "use null": lambda: signer("one").jwk(use=None),
    "key_ops for encryption": lambda: signer("one").jwk(key_ops=["encrypt"]),
    "key_ops a number": lambda: signer("one").jwk(key_ops=1),
    "a published private key": lambda: signer("one").jwk(d="AQAB"),
    "alg none": lambda: signer("one").jwk(alg="none"),
    "alg of a secret": lambda: signer("one").jwk(alg="HS256"),
    "alg of another type": lambda: signer("one").jwk(alg="ES256"),
    "alg of another curve": lambda: signer("one", "ES256").jwk(alg="ES512"),
    "alg a list": lambda: signer("one").jwk(alg=["RS256"]),
    "kty unknown": lambda: signer("one").jwk(kty="DSA"),
    "kty of another type": lambda: signer("one").jwk(kty="EC"),
    "n missing": lambda: {name: value for name, value in signer("one").jwk().items() if name != "n"},
    "n a number": lambda: signer("one").jwk(n=12),
    "n not base64": lambda: signer("one").jwk(n="!!!!"),
    "n huge": lambda: signer("one").jwk(n="A" * 100_000),
    "e huge": lambda: signer("one").jwk(e="_" * 1400),
    "e long": lambda: signer("one").jwk(e="_______v"),
    "1024 bits": lambda: rsa_of(1024),
    "a point off the curve": lambda: signer("one", "ES256").jwk(x="A" * 43),
    "crv unknown": lambda: signer("one", "ES256").jwk(crv="P-257"),
    "secp256k1": lambda: signer("one", "ES256").jwk(crv="secp256k1"),
    "RSA for Ed25519": lambda: signer("one").jwk(alg="Ed25519"),
    "Ed25519 for ES256": lambda: signer("one", "EdDSA").jwk(alg="ES256"),
    "X25519": lambda: signer("one", "EdDSA").jwk(crv="X25519"),
    "Ed25519 cut": lambda: signer("one", "EdDSA").jwk(x="AAAA"),
    "a string": lambda: "one",
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_key_is_left_out(name: str) -> None:
    keys = read_key_set(orjson.dumps({"keys": [UNUSABLE[name](), signer("two").jwk()]}))
    assert keys.find("one") == ()
    assert len(keys.find("two")) == 1
    # What the set's only key is, is not for the gate to guess.
    assert keys.find(None) == ()


def test_key_without_kid_is_found_only_when_alone() -> None:
    nameless = signer("one").jwk()
    del nameless["kid"]
    assert len(read_key_set(orjson.dumps({"keys": [nameless]})).find(None)) == 1
    assert read_key_set(orjson.dumps({"keys": [nameless, signer("two").jwk()]})).find(None) == ()
    assert read_key_set(orjson.dumps({"keys": [{**nameless, "kid": 7}, signer("two").jwk()]})).find("7") == ()


def test_two_keys_of_one_kid_are_both_found() -> None:
    keys = read_key_set(orjson.dumps({"keys": [signer("one").jwk(), signer("one", "ES256").jwk()]}))
    assert [key.algorithms for key in keys.find("one")] == [{"RS256"}, {"ES256"}]


def test_hundred_keys_are_read() -> None:
    keys = [signer("one", "ES256").jwk(kid=str(number)) for number in range(100)]
    assert len(read_key_set(orjson.dumps({"keys": keys})).by_kid) == 100


def test_public_key_file_is_read() -> None:
    assert read_public_key(signer("one").pem()).algorithms == ALL_RSA
    assert read_public_key(signer("one", "EdDSA").pem()).algorithms == ED25519


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"secret",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        signer("one").private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        ec.generate_private_key(ec.SECP256K1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ed448.Ed448PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ],
)
def test_public_key_file_of_something_else_is_refused(pem: bytes) -> None:
    with pytest.raises(ValueError, match=r"is not a PEM public key|public keys are taken"):
        read_public_key(pem)


def test_no_algorithm_for_what_is_no_key() -> None:
    with pytest.raises(ValueError, match="public keys are taken"):
        algorithms_for(b"secret")


async def test_fixed_key_is_found_for_every_kid() -> None:
    key = VerificationKey(b"s" * 32, frozenset({"HS256"}))
    source = FixedKey(key)
    assert await source.find(None) == await source.find("any") == (key,)
    assert source.is_ready
    assert "sss" not in repr(source)
