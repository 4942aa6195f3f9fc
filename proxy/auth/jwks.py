"""The public keys of a token issuer: fetched over HTTP, kept, renewed, and served stale while the issuer is down.

Trusts the configured URL (https, or this machine) and nothing that a token says: a kid is only a key of a dictionary.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp
import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from proxy.tasks import Tasks

_log = logging.getLogger("comfygate")

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_KEYS: Final = 100
ASK_INTERVAL_S: Final = 60.0
"""An unknown kid makes the gate ask the issuer at most this often: kids are free to invent, requests are not."""

_FIRST_RETRY_S: Final = 5.0
_RENEW_AFTER: Final = 0.8  # of the lifetime, so that a slow issuer is asked before the keys are old
# 8192-bit moduli are 1366 base64url characters. A larger number would only buy time on the event loop.
_MAX_NUMBER_LENGTH: Final = 1400
_RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
# RFC 7518 3.4 ties each ES algorithm to one curve.
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # of zlib: with 16 added it reads gzip's frame
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


@dataclass(frozen=True, slots=True)
class FixedKey:
    """One key from a file. A kid says nothing, since there is no choice."""

    key: VerificationKey
    generation: int = 0
    is_ready: bool = True

    async def find(self, kid: str | None) -> tuple[VerificationKey, ...]:
        return (self.key,)


@dataclass(frozen=True, slots=True)
class KeySet:
    """lone: the only key of the set, which a token without kid means (OpenID Connect Core 10.1); else empty."""

    by_kid: Mapping[str, tuple[VerificationKey, ...]] = field(default_factory=dict)
    lone: tuple[VerificationKey, ...] = ()

    def find(self, kid: str | None) -> tuple[VerificationKey, ...]:
        return self.lone if kid is None else self.by_kid.get(kid, ())


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
        return frozenset({"EdDSA"})
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
        algorithms &= {jwk["alg"]}
    if not algorithms:
        raise ValueError("its alg does not go with its kty")
    return VerificationKey(key, algorithms)


class Jwks:
    """The JWK set behind one URL.

    At most one fetch runs at a time, and everybody who needs it waits for that one, never longer than timeout_s.
    Known keys are never waited for. monotonic: seconds of a clock that only runs forward.
    Raises ValueError when the URL is neither https nor on this machine.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        lifetime_s: float = 3600.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        parts = urlsplit(url)
        is_local = parts.hostname in ("127.0.0.1", "::1", "localhost")
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_local)):
            raise ValueError("the URL of the keys must be https (http only for this machine)")
        self.url = url
        # Some issuers want an API key in the query: the log gets no query and no user.
        self._shown_url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._timeout_s = timeout_s
        self._renew_after_s = max(1.0, _RENEW_AFTER * lifetime_s)
        self._monotonic = monotonic
        self._sleep = sleep
        self._keys: KeySet | None = None
        self._digest = b""
        self._generation = 0
        self._read_at_s = -math.inf
        self._tried_at_s = -math.inf
        self._asked_at_s = -math.inf
        self._failures = 0
        self._why = ""
        self._fetch: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._tasks = Tasks()

    @property
    def shown_url(self) -> str:
        """Without query and user, which may be secret."""
        return self._shown_url

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def is_ready(self) -> bool:
        return self._keys is not None

    def adopt(self, previous: Jwks) -> None:
        """Takes over what a predecessor of the same URL knows, so that a reload while the issuer is down locks nobody out."""
        self._keys, self._digest, self._generation = previous._keys, previous._digest, previous._generation
        self._read_at_s, self._tried_at_s = previous._read_at_s, previous._tried_at_s
        self._asked_at_s, self._failures = previous._asked_at_s, previous._failures

    async def start(self) -> None:
        """Begins to fetch the keys and to renew them before they are old. Returns at once, whatever the issuer does."""
        self._is_stopped = False
        self._tasks.supervise(self._renew, "jwks renewal")

    async def try_once(self) -> str | None:
        """One fetch. Why the keys cannot be read, None when they can."""
        await asyncio.wait({self._start_fetch()})
        return self._why if self._failures else None

    async def stop(self) -> None:
        """Ends all fetching. Known keys can still be found, so that running requests finish."""
        self._is_stopped = True
        await self._tasks.stop()

    async def find(self, kid: str | None) -> tuple[VerificationKey, ...]:
        """The keys of this kid; for an unknown kid after asking the issuer, if that is allowed again."""
        now_s = self._monotonic()
        is_due = not self._is_stopped and now_s >= self._due_at_s()
        if found := self._known(kid):
            if is_due:
                self._start_fetch()
            return found
        had_keys = self._keys is not None
        may_ask = had_keys and not self._is_stopped and now_s >= self._asked_at_s + ASK_INTERVAL_S
        if not (is_due or may_ask or self._is_fetching()):
            return ()
        self._asked_at_s = now_s
        # Not `await fetch`: a request that is cancelled must not take the others' fetch with it.
        await asyncio.wait({self._start_fetch()}, timeout=self._timeout_s)
        found = self._known(kid)
        if found and not had_keys:
            self._asked_at_s = -math.inf  # The very first fetch was not for an unknown kid.
        return found

    def _known(self, kid: str | None) -> tuple[VerificationKey, ...]:
        return self._keys.find(kid) if self._keys is not None else ()

    def _due_at_s(self) -> float:
        """When the keys should be fetched (again), nobody asking."""
        if self._failures and self._keys is not None:
            return self._tried_at_s + ASK_INTERVAL_S
        if self._failures:
            # Without any key nobody gets in: try again soon, then ever more rarely.
            return self._tried_at_s + min(_FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 10), ASK_INTERVAL_S)
        return self._read_at_s + self._renew_after_s

    def _is_fetching(self) -> bool:
        return self._fetch is not None and not self._fetch.done()

    def _start_fetch(self) -> asyncio.Task[None]:
        """The fetch that runs, or else a new one."""
        if self._fetch is None or self._fetch.done():
            self._fetch = self._tasks.start(self._read(), "jwks-fetch")
        return self._fetch

    async def _renew(self) -> None:
        while True:
            while (pause_s := self._due_at_s() - self._monotonic()) > 0:
                await self._sleep(pause_s)
            await asyncio.wait({self._start_fetch()})

    async def _read(self) -> None:
        """One fetch. What goes wrong is logged once until it goes right again, and the known keys stay."""
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._download()
            keys = read_key_set(body)
        except TimeoutError:
            self._fail(f"no whole answer within {self._timeout_s:g} s")
        except aiohttp.ClientConnectionError as error:
            self._fail(str(error))
        except aiohttp.ClientError as error:
            self._fail(type(error).__name__)  # Its text would hold the whole URL.
        except (OSError, ValueError) as error:
            self._fail(str(error))
        else:
            if self._failures:
                _log.info("keys at %s can be read again", self._shown_url)
            self._failures = 0
            self._read_at_s = self._monotonic()
            digest = hashlib.sha256(body).digest()
            if digest != self._digest:
                self._keys, self._digest = keys, digest
                self._generation += 1

    def _fail(self, why: str) -> None:
        self._failures += 1
        self._why = why
        self._tried_at_s = self._monotonic()
        if self._failures == 1:
            consequence = (
                "the known keys stay in use" if self._keys else "its tokens are refused until they can be read"
            )
            _log.warning("keys at %s cannot be read: %s; %s", self._shown_url, why, consequence)

    async def _download(self) -> bytes:
        """The body, at most MAX_BODY_BYTES. Raises ValueError for any answer but a 200 of that size."""
        # A session for each fetch: there is one an hour. aiohttp rounds its own time limits up, so asyncio holds ours.
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=1, force_close=True),
                auto_decompress=False,
            ) as session,
            session.get(
                self.url,
                allow_redirects=False,
                headers={
                    "Accept": "application/json, application/jwk-set+json",
                    "Accept-Encoding": "identity",
                    "User-Agent": "comfygate",
                },
            ) as response,
        ):
            if response.status != 200:
                # SECURITY: a redirect is not followed, it could lead to http or into the private network.
                raise ValueError(f"the answer is {response.status}, not 200")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise ValueError(f"the answer has more than {MAX_BODY_BYTES} bytes")
            return _unpacked(bytes(body), response.headers.get("Content-Encoding", ""))


def _unpacked(body: bytes, encoding: str) -> bytes:
    """A body without its content coding (RFC 9110, 8.4.1): some servers compress whatever they are asked. Bounded. Raises ValueError."""
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in _WINDOW_BITS:
        raise ValueError("the answer has a Content-Encoding other than gzip or deflate")
    unpacker = zlib.decompressobj(_WINDOW_BITS[coding])
    try:
        unpacked = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise ValueError("the answer is not what its Content-Encoding says") from None
    if len(unpacked) > MAX_BODY_BYTES:
        raise ValueError(f"the answer has more than {MAX_BODY_BYTES} bytes")
    if not unpacker.eof:
        raise ValueError("the answer ends too soon")
    return unpacked
