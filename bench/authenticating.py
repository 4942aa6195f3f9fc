"""How long it takes to know who calls: API keys, sessions, tokens seen before and new ones. Prints microseconds a request, the median of several rounds."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.auth.api_keys import ApiKeyStore, generate_key, hash_key
from proxy.auth.authenticator import Authenticator
from proxy.auth.jwt_issuers import JwtIssuers
from proxy.auth.sessions import Sessions
from proxy.config.identity import JwtSettings, KeySettings

ROUNDS = 7
CALLS = 3000
NEW_TOKENS = 300
ISSUER = "https://issuer.example"
OTHER_FIELDS = {
    "Host": "gate.example",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en",
    "Content-Type": "application/json",
    "CF-Connecting-IP": "203.0.113.7",
}
Headers = CIMultiDictProxy[str]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def main() -> None:
    asyncio.run(_run())


async def _run() -> None:
    ring, keys = _many_keys(1000)
    sessions = Sessions(b"s" * 32, lifetime_s=3600, is_secure=True)
    plain = Authenticator(ring, sessions, None, None)
    _, key = keys[500]
    ((_, cookie),) = sessions.begin(ring.verify(key))
    await _report("API key, Bearer", plain, _headers(Authorization=f"Bearer {key}"))
    await _report("API key, X-API-Key", plain, _headers(**{"X-API-Key": key}))
    await _report("API key, ?token=", plain, _headers(), (("clientId", "a"), ("token", key)))
    await _report("browser session", plain, _headers(Cookie="theme=dark; " + cookie.partition(";")[0]))
    signers: list[tuple[str, PrivateKey]] = [
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for algorithm, private in signers:
            await _report_tokens(algorithm, private, Path(folder), ring, sessions)


async def _report_tokens(
    algorithm: str, private: PrivateKey, folder: Path, ring: ApiKeyStore, sessions: Sessions
) -> None:
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    file = folder / f"{algorithm}.pem"
    file.write_bytes(public)
    settings = JwtSettings.model_validate(
        {"issuer": ISSUER, "audience": "comfygate", "algorithms": [algorithm], "public_key_file": file}
    )
    tokens = JwtIssuers({"bench": settings}, known_tenants=frozenset({"acme"}), resolve=lambda path: path)
    authenticator = Authenticator(ring, sessions, tokens, None)
    await _report(f"{algorithm} token seen before", authenticator, _bearer(private, algorithm, 0))
    fresh = iter([_bearer(private, algorithm, number + 1) for number in range(ROUNDS * NEW_TOKENS)])
    await _time(f"{algorithm} token that is new", lambda: authenticator.authenticate(next(fresh), ()), NEW_TOKENS)
    texts = [_bearer(private, algorithm, number)["Authorization"][7:] for number in range(NEW_TOKENS)]
    again: Iterator[str] = iter(texts * ROUNDS)

    async def decode() -> None:
        jwt.decode(next(again), public, algorithms=[algorithm], audience="comfygate", issuer=ISSUER)

    await _time(f"{algorithm} by pyjwt alone", decode, NEW_TOKENS)


async def _report(
    name: str, authenticator: Authenticator, headers: Headers, query: tuple[tuple[str, str], ...] = ()
) -> None:
    """Of one who comes again."""
    await authenticator.authenticate(headers, query)

    async def come() -> None:
        if authenticator.recall(headers, query, {}) is None:
            await authenticator.authenticate(headers, query)

    await _time(name, come, CALLS)


async def _time(name: str, call: Callable[[], Awaitable[object]], calls: int) -> None:
    rounds = []
    for _ in range(ROUNDS):
        started_s = time.perf_counter()
        for _ in range(calls):
            await call()
        rounds.append((time.perf_counter() - started_s) / calls * 1e6)
    print(f"{name:30} {statistics.median(rounds):8.1f} µs")


def _many_keys(count: int) -> tuple[ApiKeyStore, list[tuple[str, str]]]:
    keys = [generate_key() for _ in range(count)]
    return ApiKeyStore(
        KeySettings.model_validate({"id": key_id, "hash": hash_key(text), "tenant": "acme"}) for key_id, text in keys
    ), keys


def _bearer(private: PrivateKey, algorithm: str, number: int) -> Headers:
    now_s = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": "comfygate",
        "sub": f"user-{number}",
        "tenant": "acme",
        "iat": now_s,
        "exp": now_s + 3600,
    }
    return _headers(Authorization=f"Bearer {jwt.encode(claims, private, algorithm)}")


def _headers(**more: str) -> Headers:
    return CIMultiDictProxy(CIMultiDict({**OTHER_FIELDS, **more}))


if __name__ == "__main__":
    main()
