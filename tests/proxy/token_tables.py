"""Good and bad tokens, each bad one with the reason of its refusal, and the issuers they are made for."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from proxy.auth.jwt_verification import MAX_TOKEN_BYTES
from tests.proxy.jwks_server import as_json, b64, signer

NOW = 1_800_000_000
LEEWAY = 30
TENANTS = frozenset({"acme", "globex"})
IDP, PEM, SHARED = "https://idp.example.com/", "https://pem.example.com", "https://shared.example.com"
SECRET = b"a secret of more than 64 bytes, so that it does for HS512 as well as HS256"

RSA, PSS, EC, ED = signer("rsa"), signer("pss", "PS256"), signer("ec", "ES256"), signer("ed", "EdDSA")
FILE_KEY = signer("file")
MALLORY, MALLORY_EC = signer("mallory"), signer("mallory", "ES256")

HS_TENANT = {"iss": SHARED, "app": {"org": "org-1"}}
FOR_PEM = {"iss": PEM, "amr": ["mfa"]}


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, changed; `...` leaves one out."""
    good = {
        "iss": IDP,
        "aud": "comfygate",
        "sub": "alice",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 300,
        "tenant": "acme",
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


def hmac_sign(payload: Any, secret: bytes, header: dict[str, Any] | None = None, algorithm: str = "HS256") -> str:
    """Signs with any bytes at all, also those that pyjwt would refuse as a secret."""
    signed = f"{b64(as_json({'alg': algorithm, 'typ': 'JWT', **(header or {})}))}.{b64(as_json(payload))}"
    return f"{signed}.{b64(jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), secret))}"


def unsigned(header: dict[str, Any], signature: str = "") -> str:
    return f"{b64(as_json(header))}.{b64(as_json(claims()))}.{signature}"


def with_part(index: int, text: str, token: str = "") -> str:
    parts = (token or RSA.sign(claims())).split(".")
    parts[index] = text
    return ".".join(parts)


def part(index: int, token: str = "") -> str:
    return (token or RSA.sign(claims())).split(".")[index]


def noncanonical(token: str) -> str:
    """The same signature in another spelling: its last character has bits that no byte has."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def cut(token: str) -> str:
    """Without the last three bytes of the signature."""
    return with_part(2, b64(base64.urlsafe_b64decode(part(2, token) + "==")[:-3]), token)


def doubled(name: str, value: str) -> bytes:
    """Good claims with one name twice."""
    return as_json(claims())[:-1] + f', "{name}": {value}'.encode() + b"}"


def as_bad_key(alg: str, kid: Any, **header: Any) -> str:
    """Signed by a key that is not the issuer's, with a header that points to it."""
    key = MALLORY_EC if alg == "ES256" else MALLORY
    return key.sign(claims(), {"kid": kid, "jwk": key.jwk(), **header})


MALFORMED: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "one part": lambda: "abcdefgh",
    "dots": lambda: "..",
    "two parts": lambda: RSA.sign(claims()).rpartition(".")[0],
    "four parts": lambda: RSA.sign(claims()) + ".AAAA",
    "a JWE": lambda: f"{b64(as_json({'alg': 'RSA-OAEP', 'enc': 'A256GCM', 'cty': 'JWT'}))}.AAAA.AAAA.AAAA.AAAA",
    "none and no signature": lambda: unsigned({"alg": "none"}),
    "none and no signature, cased": lambda: unsigned({"alg": "nOnE", "typ": "JWT"}),
    "RS256 and no signature": lambda: with_part(2, ""),
    "no header": lambda: with_part(0, ""),
    "no claims": lambda: with_part(1, ""),
    "leading space": lambda: " " + RSA.sign(claims()),
    "trailing newline": lambda: RSA.sign(claims()) + "\n",
    "space within": lambda: RSA.sign(claims()).replace(".", ". "),
    "tab within": lambda: RSA.sign(claims()).replace(".", "\t."),
    "with its scheme": lambda: "Bearer " + RSA.sign(claims()),
    "two tokens": lambda: f"{RSA.sign(claims())},{RSA.sign(claims())}",
    "in quotes": lambda: f'"{RSA.sign(claims())}"',
    "NUL": lambda: RSA.sign(claims()) + "\0",
    "non-ASCII letter": lambda: RSA.sign(claims()) + "é",
    "non-ASCII digit": lambda: with_part(2, "١٢٣٤"),
    "full-width dot": lambda: RSA.sign(claims()).replace(".", "\uff0e"),
    "lone surrogate": lambda: RSA.sign(claims()) + "\ud800",
    "percent-encoded": lambda: RSA.sign(claims()).replace(".", "%2E"),
    "padded claims": lambda: with_part(1, b64(as_json(claims(pad="x"))) + "="),
    "padded signature": lambda: RSA.sign(claims()) + "==",
    "standard base64": lambda: with_part(2, "+/+/"),
    "impossible length": lambda: with_part(2, part(2)[:-1]),
    "other spelling of the signature": lambda: noncanonical(RSA.sign(claims())),
    "header is not JSON": lambda: RSA.sign(claims(), b"{alg: RS256}"),
    "header is a list": lambda: RSA.sign(claims(), b'["RS256"]'),
    "header is null": lambda: RSA.sign(claims(), b"null"),
    "header is not UTF-8": lambda: RSA.sign(claims(), b'{"alg": "RS256", "kid": "\xff"}'),
    "header with two algs": lambda: RSA.sign(claims(), b'{"alg": "none", "kid": "rsa", "alg": "RS256"}'),
    "header with two kids": lambda: RSA.sign(claims(), b'{"alg": "RS256", "kid": "x", "kid": "rsa"}'),
    "claims are not JSON": lambda: RSA.sign(b"alice"),
    "claims are a list": lambda: RSA.sign([claims()]),
    "claims are a string": lambda: RSA.sign("alice"),
    "claims with more behind": lambda: RSA.sign(as_json(claims()) + b"{}"),
    "claims with two issuers": lambda: RSA.sign(doubled("iss", f'"{PEM}"')),
    "claims with two ends": lambda: RSA.sign(doubled("exp", str(NOW + 900))),
    "claims with two tenants": lambda: RSA.sign(doubled("tenant", '"globex"')),
    "claims with two names deep inside": lambda: RSA.sign(doubled("app", '{"a": 1, "a": 2}')),
    "claims with two spellings of a name": lambda: RSA.sign(doubled("\\u0074enant", '"globex"')),
    "claims with NaN": lambda: RSA.sign(claims(exp=float("nan"))),
    "claims with Infinity": lambda: RSA.sign(claims(exp=float("inf"))),
    "claims nested 5,000 deep": lambda: RSA.sign(b"[" * 5000 + b"]" * 5000),
    "claims with a number of 5,000 digits": lambda: RSA.sign(doubled("n", "1" * 5000)),
    "claims with a byte order mark": lambda: RSA.sign(b"\xef\xbb\xbf" + as_json(claims())),
    "claims in UTF-16": lambda: RSA.sign(as_json(claims()).decode().encode("utf-16")),
    "good but one byte too large": lambda: sized(MAX_TOKEN_BYTES + 1),
    "a megabyte": lambda: "A" * 1_000_000,
    "an API key": lambda: "cg_7f3a9c21_" + "s" * 43,
}

INVALID: dict[str, Callable[[], str]] = {
    # Algorithms.
    "none with a signature": lambda: unsigned({"alg": "none", "kid": "rsa"}, "AAAA"),
    "None with a signature": lambda: unsigned({"alg": "None", "kid": "rsa"}, part(2)),
    "alg missing": lambda: RSA.sign(claims(), {"alg": ...}),
    "alg null": lambda: RSA.sign(claims(), {"alg": None}),
    "alg a list": lambda: RSA.sign(claims(), {"alg": ["RS256"]}),
    "alg lower case": lambda: RSA.sign(claims(), {"alg": "rs256"}),
    "alg not allowed": lambda: RSA.sign(claims(), {"alg": "RS512"}, algorithm="RS512"),
    "public PEM as secret": lambda: hmac_sign(claims(), RSA.pem(), {"kid": "rsa"}),
    "public PEM as secret, no newline": lambda: hmac_sign(claims(), RSA.pem().strip(), {"kid": "rsa"}),
    "public JWK as secret": lambda: hmac_sign(claims(), as_json(RSA.jwk()), {"kid": "rsa"}),
    "public PEM of the file as secret": lambda: hmac_sign(claims(iss=PEM), FILE_KEY.pem()),
    "HS384 with the public PEM": lambda: hmac_sign(claims(iss=PEM), FILE_KEY.pem(), algorithm="HS384"),
    "empty secret": lambda: hmac_sign(claims(iss=SHARED), b""),
    "wrong secret": lambda: hmac_sign(claims(iss=SHARED), SECRET + b"!"),
    "RS256 where a secret is": lambda: RSA.sign(claims(iss=SHARED)),
    "HS512 where HS256 is": lambda: hmac_sign(claims(iss=SHARED), SECRET, algorithm="HS512"),
    "PS256 with a key for RS256": lambda: RSA.sign(claims(), {"alg": "PS256"}, algorithm="PS256"),
    "RS256 with a key for PS256": lambda: PSS.sign(claims(), {"alg": "RS256"}, algorithm="RS256"),
    "ES256 with an RSA key": lambda: RSA.sign(claims(), {"alg": "ES256"}),
    "EdDSA with an RSA key": lambda: RSA.sign(claims(), {"alg": "EdDSA"}),
    "Ed25519 with an RSA key": lambda: RSA.sign(claims(), {"alg": "Ed25519"}),
    "Ed448, which the gate has no key for": lambda: ED.sign(claims(), {"alg": "Ed448"}),
    "RS256 with an EC key": lambda: EC.sign(claims(), {"alg": "RS256"}),
    # Signatures.
    "another key of that kid": lambda: MALLORY.sign(claims(), {"kid": "rsa"}),
    "another EC key of that kid": lambda: MALLORY_EC.sign(claims(), {"kid": "ec"}),
    "signature of another token": lambda: with_part(2, part(2, RSA.sign(claims(sub="bob")))),
    "claims of another token": lambda: with_part(1, b64(as_json(claims(tenant="globex")))),
    "header changed": lambda: with_part(0, b64(as_json({"alg": "RS256", "kid": "rsa", "x": 1}))),
    "signature cut": lambda: cut(RSA.sign(claims())),
    "signature longer": lambda: RSA.sign(claims()) + "AAAA",
    "signature of zeros": lambda: with_part(2, b64(bytes(256))),
    "ES256 of zeros": lambda: with_part(2, b64(bytes(64)), EC.sign(claims())),
    "ES256 cut": lambda: with_part(2, b64(bytes(63)), EC.sign(claims())),
    "EdDSA of zeros": lambda: with_part(2, b64(bytes(64)), ED.sign(claims())),
    "Ed25519 of zeros": lambda: with_part(2, b64(bytes(64)), ED.sign(claims(), {"alg": "Ed25519"})),
    "HS256 cut": lambda: cut(hmac_sign(claims(iss=SHARED), SECRET)),
    # Keys.
    "kid unknown": lambda: as_bad_key("RS256", "unknown"),
    "kid a path": lambda: as_bad_key("RS256", "../../../../dev/null"),
    "kid a URL": lambda: as_bad_key("RS256", "http://127.0.0.1:1/key"),
    "kid SQL": lambda: as_bad_key("RS256", "x' UNION SELECT 'key' --"),
    "kid a command": lambda: as_bad_key("RS256", "| whoami"),
    "kid empty": lambda: as_bad_key("RS256", ""),
    "kid of 8 KiB": lambda: as_bad_key("ES256", "k" * 8192),
    "kid with a lone surrogate": lambda: as_bad_key("RS256", "\ud800"),
    "kid a number": lambda: RSA.sign(claims(), {"kid": 0}),
    "kid a list": lambda: RSA.sign(claims(), {"kid": ["rsa"]}),
    "kid an object": lambda: RSA.sign(claims(), {"kid": {"rsa": 1}}),
    "kid null": lambda: RSA.sign(claims(), {"kid": None}),
    "kid missing where there are several": lambda: RSA.sign(claims(), {"kid": ...}),
    "kid of another case": lambda: RSA.sign(claims(), {"kid": "RSA"}),
    "kid of a key for encryption": lambda: signer("enc").sign(claims()),
    "jwk of its own": lambda: as_bad_key("RS256", "rsa"),
    "jwk of its own, ES256": lambda: as_bad_key("ES256", "ec"),
    "jku of its own": lambda: as_bad_key("RS256", "mallory", jku="http://127.0.0.1:1/keys"),
    "x5u of its own": lambda: as_bad_key("RS256", "mallory", x5u="http://127.0.0.1:1/cert"),
    "x5c of its own": lambda: as_bad_key("RS256", "mallory", x5c=["AAAA"]),
    # Headers that change what a token means.
    "crit": lambda: RSA.sign(claims(), {"crit": ["exp"], "exp": 1}),
    "crit empty": lambda: RSA.sign(claims(), {"crit": []}),
    "crit null": lambda: RSA.sign(claims(), {"crit": None}),
    "crit of b64": lambda: RSA.sign(claims(), {"crit": ["b64"], "b64": True}),
    "b64 true": lambda: RSA.sign(claims(), {"b64": True}),
    "b64 false": lambda: RSA.sign(claims(), {"b64": False}),
    "typ of an event": lambda: RSA.sign(claims(), {"typ": "secevent+jwt"}),
    "typ of a logout": lambda: RSA.sign(claims(), {"typ": "logout+jwt"}),
    "typ JOSE": lambda: RSA.sign(claims(), {"typ": "JOSE"}),
    "typ empty": lambda: RSA.sign(claims(), {"typ": ""}),
    "typ null": lambda: RSA.sign(claims(), {"typ": None}),
    "typ a number": lambda: RSA.sign(claims(), {"typ": 1}),
    # iss.
    "iss missing": lambda: RSA.sign(claims(iss=...)),
    "iss null": lambda: RSA.sign(claims(iss=None)),
    "iss unknown": lambda: RSA.sign(claims(iss="https://evil.example.com/")),
    "iss without the slash": lambda: RSA.sign(claims(iss=IDP.rstrip("/"))),
    "iss of another case": lambda: RSA.sign(claims(iss=IDP.upper())),
    "iss a list": lambda: RSA.sign(claims(iss=[IDP])),
    "iss an object": lambda: RSA.sign(claims(iss={IDP: 1})),
    "iss empty": lambda: RSA.sign(claims(iss="")),
    "iss of another issuer": lambda: RSA.sign(claims(iss=PEM)),
    "iss of this one by another issuer": lambda: FILE_KEY.sign(claims(), {"kid": "rsa"}),
    # aud.
    "aud missing": lambda: RSA.sign(claims(aud=...)),
    "aud null": lambda: RSA.sign(claims(aud=None)),
    "aud wrong": lambda: RSA.sign(claims(aud="grafana")),
    "aud a part": lambda: RSA.sign(claims(aud="comfy")),
    "aud longer": lambda: RSA.sign(claims(aud="comfygate-admin")),
    "aud of another case": lambda: RSA.sign(claims(aud="ComfyGate")),
    "aud empty": lambda: RSA.sign(claims(aud="")),
    "aud an empty list": lambda: RSA.sign(claims(aud=[])),
    "aud a list of others": lambda: RSA.sign(claims(aud=["grafana", "kibana"])),
    "aud a list with a number": lambda: RSA.sign(claims(aud=["comfygate", 1])),
    "aud a number": lambda: RSA.sign(claims(aud=1)),
    "aud an object": lambda: RSA.sign(claims(aud={"comfygate": True})),
    # Times.
    "exp missing": lambda: RSA.sign(claims(exp=...)),
    "exp null": lambda: RSA.sign(claims(exp=None)),
    "exp a string": lambda: RSA.sign(claims(exp=str(NOW + 300))),
    "exp true": lambda: RSA.sign(claims(exp=True)),
    "exp a list": lambda: RSA.sign(claims(exp=[NOW + 300])),
    "exp negative": lambda: RSA.sign(claims(exp=-1)),
    "exp in milliseconds": lambda: RSA.sign(claims(exp=(NOW + 300) * 1000)),
    "exp 1e999": lambda: RSA.sign(as_json(claims(exp=0)).replace(b'"exp": 0', b'"exp": 1e999')),
    "exp of 400 digits": lambda: RSA.sign(claims(exp=10**400)),
    "nbf in the future": lambda: RSA.sign(claims(nbf=NOW + LEEWAY + 1)),
    "nbf null": lambda: RSA.sign(claims(nbf=None)),
    "nbf a string": lambda: RSA.sign(claims(nbf=str(NOW))),
    "nbf false": lambda: RSA.sign(claims(nbf=False)),
    "iat in the future": lambda: RSA.sign(claims(iat=NOW + LEEWAY + 1)),
    "iat null": lambda: RSA.sign(claims(iat=None)),
    "iat a string": lambda: RSA.sign(claims(iat="now")),
    # sub and others.
    "sub missing": lambda: RSA.sign(claims(sub=...)),
    "sub null": lambda: RSA.sign(claims(sub=None)),
    "sub empty": lambda: RSA.sign(claims(sub="")),
    "sub blank": lambda: RSA.sign(claims(sub=" \t")),
    "sub a number": lambda: RSA.sign(claims(sub=7)),
    "sub a list": lambda: RSA.sign(claims(sub=["alice"])),
    "jti a number": lambda: RSA.sign(claims(jti=7)),
    "a claim that this issuer must send": lambda: FILE_KEY.sign(claims(iss=PEM)),
    "exp missing where the settings leave it out": lambda: FILE_KEY.sign(claims(**FOR_PEM, exp=...)),
    "sub missing where the settings leave it out": lambda: FILE_KEY.sign(claims(**FOR_PEM, sub=...)),
}

EXPIRED: dict[str, Callable[[], str]] = {
    "expired": lambda: RSA.sign(claims(exp=NOW - 3600)),
    "expired to the second": lambda: RSA.sign(claims(exp=NOW - LEEWAY)),
    "exp 0": lambda: RSA.sign(claims(exp=0)),
    "expired with a secret": lambda: hmac_sign(claims(iss=SHARED, exp=NOW - 3600), SECRET),
}

TENANTLESS: dict[str, Callable[[], str]] = {
    "tenant missing": lambda: RSA.sign(claims(tenant=...)),
    "tenant null": lambda: RSA.sign(claims(tenant=None)),
    "tenant empty": lambda: RSA.sign(claims(tenant="")),
    "tenant unknown": lambda: RSA.sign(claims(tenant="initech")),
    "tenant of another case": lambda: RSA.sign(claims(tenant="Acme")),
    "tenant with a space": lambda: RSA.sign(claims(tenant="acme ")),
    "tenant a path": lambda: RSA.sign(claims(tenant="../acme")),
    "tenant a number": lambda: RSA.sign(claims(tenant=7)),
    "tenant true": lambda: RSA.sign(claims(tenant=True)),
    "tenant a list": lambda: RSA.sign(claims(tenant=["acme"])),
    "tenant an object": lambda: RSA.sign(claims(tenant={"acme": 1})),
    "tenant not in the table": lambda: hmac_sign(claims(iss=SHARED, app={"org": "acme"}), SECRET),
    "tenant path through a string": lambda: hmac_sign(claims(iss=SHARED, app="org"), SECRET),
    "tenant path as one name": lambda: hmac_sign(claims(iss=SHARED, **{"app.org": "org-1"}), SECRET),
}

BAD = [
    pytest.param(make, reason, id=name)
    for reason, table in (
        ("token-malformed", MALFORMED),
        ("token-invalid", INVALID),
        ("token-expired", EXPIRED),
        ("token-tenant-unknown", TENANTLESS),
    )
    for name, make in table.items()
]

GOOD: dict[str, Callable[[], str]] = {
    "RS256": lambda: RSA.sign(claims()),
    "PS256": lambda: PSS.sign(claims()),
    "ES256": lambda: EC.sign(claims()),
    "EdDSA": lambda: ED.sign(claims()),
    "Ed25519, as RFC 9864 names it": lambda: ED.sign(claims(), {"alg": "Ed25519"}),
    "HS256": lambda: hmac_sign(claims(**HS_TENANT), SECRET),
    "RS256 with a key file": lambda: FILE_KEY.sign(claims(**FOR_PEM)),
    "key file and no kid": lambda: FILE_KEY.sign(claims(**FOR_PEM), {"kid": ...}),
    "key file and a kid as a path": lambda: FILE_KEY.sign(claims(**FOR_PEM), {"kid": "../x"}),
    "aud a list": lambda: RSA.sign(claims(aud=["grafana", "comfygate"])),
    "aud the second that is allowed": lambda: RSA.sign(claims(aud="comfygate-dev")),
    "typ missing": lambda: RSA.sign(claims(), {"typ": ...}),
    "typ at+jwt": lambda: RSA.sign(claims(), {"typ": "at+jwt"}),
    "typ application/at+jwt": lambda: RSA.sign(claims(), {"typ": "application/at+JWT"}),
    "typ jwt": lambda: RSA.sign(claims(), {"typ": "jwt"}),
    "exp within the leeway": lambda: RSA.sign(claims(exp=NOW - LEEWAY + 1)),
    "exp with a fraction": lambda: RSA.sign(claims(exp=NOW + 0.5)),
    "nbf within the leeway": lambda: RSA.sign(claims(nbf=NOW + LEEWAY)),
    "iat within the leeway": lambda: RSA.sign(claims(iat=NOW + LEEWAY)),
    "no nbf and no iat": lambda: RSA.sign(claims(nbf=..., iat=...)),
    "headers of another's keys, signed by the right one": lambda: RSA.sign(
        claims(), {"jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/", "jwk": MALLORY.jwk(), "x5c": ["x"]}
    ),
    "claims in other scripts": lambda: RSA.sign(claims(name="Zoë Ωμέγα 名前 \ud83d\ude00")),
    "as large as allowed": lambda: sized(MAX_TOKEN_BYTES),
}


def sized(length: int) -> str:
    """A good token of exactly this length. base64url has no length of 4n + 1, so the header's length varies too."""
    for extra in ("", "y", "yy"):
        for pad in range(length * 3 // 4 - 800, length * 3 // 4):
            token = RSA.sign(claims(pad="x" * pad), {"extra": extra})
            if len(token) == length:
                return token
    raise AssertionError
