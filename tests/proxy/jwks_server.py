"""A token issuer for tests: its clock, its signing keys, and its JWKS endpoint with all the bad days one can have."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def as_json(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


_JWK_WRITERS: dict[str, Callable[..., dict[str, Any]]] = {
    "RS": RSAAlgorithm.to_jwk,
    "PS": RSAAlgorithm.to_jwk,
    "ES": ECAlgorithm.to_jwk,
    "Ed": OKPAlgorithm.to_jwk,
}


class Signer:
    """One signing key of an issuer."""

    def __init__(self, kid: str, algorithm: str, private_key: Any) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.private_key = private_key

    def jwk(self, **changes: Any) -> dict[str, Any]:
        public = self.private_key.public_key()
        write = _JWK_WRITERS[self.algorithm[:2]]
        found = write(public, as_dict=True)
        found.pop("key_ops", None)
        return {**found, "kid": self.kid, "use": "sig", "alg": self.algorithm, **changes}

    def pem(self) -> bytes:
        pem: bytes = self.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    def sign(self, claims: Any, header: Any = None, *, algorithm: str | None = None) -> str:
        """A token of these claims (an object, or bytes as they are). header: changes to the usual one, or bytes as they are."""
        if not isinstance(header, bytes):
            header = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid, **(header or {})}
            header = {name: value for name, value in header.items() if value is not ...}
        signed = f"{b64(as_json(header))}.{b64(as_json(claims))}"
        signer = jwt.get_algorithm_by_name(algorithm or self.algorithm)
        return f"{signed}.{b64(signer.sign(signed.encode(), self.private_key))}"


@cache
def signer(kid: str, algorithm: str = "RS256") -> Signer:
    """The same key for the same arguments."""
    if algorithm.startswith(("RS", "PS")):
        return Signer(kid, algorithm, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    curves: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    if algorithm in curves:
        return Signer(kid, algorithm, ec.generate_private_key(curves[algorithm]))
    return Signer(kid, algorithm, ed25519.Ed25519PrivateKey.generate())


class JwksServer:
    """answer: what it does with a request; one of its own methods, or any coroutine function."""

    def __init__(self, *signers: Signer) -> None:
        self.keys: list[Any] = [one.jwk() for one in signers]
        self.answer: Answer = self.serve_keys
        self.paths: list[str] = []
        self.sent_bytes = 0
        self.port = 0
        self._arrived = asyncio.Condition()
        self._released = asyncio.Event()
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        await self.come_back()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go_away()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"

    async def come_back(self) -> None:
        """Listens, on the port of the last time if there was one."""
        self._released.clear()
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def go_away(self) -> None:
        self.release()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def release(self) -> None:
        """Lets the requests that hang go on."""
        self._released.set()

    async def wait_for_requests(self, count: int) -> None:
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.paths) >= count)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        async with self._arrived:
            self.paths.append(request.path_qs)
            self._arrived.notify_all()
        return await self.answer(request)

    async def serve_keys(self, request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"keys": self.keys})

    async def hang(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._released.wait()
        return await self.serve_keys(request)

    async def hang_up(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def break_off(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"keys": [')
        return await self.hang_up(request)

    async def drip(self, request: web.BaseRequest) -> web.StreamResponse:
        """Begins an answer and never ends it."""
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"keys"')
        await self._released.wait()
        return response

    async def redirect(self, request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/moved"})

    async def flood(self, request: web.BaseRequest) -> web.StreamResponse:
        """100 MB, in pieces."""
        response = web.StreamResponse()
        await response.prepare(request)
        piece = b" " * 100_000
        for _ in range(1000):
            await response.write(piece)
            self.sent_bytes += len(piece)
        return response

    def say(self, body: bytes, status: int = 200, *, coding: str | None = None, **headers: str) -> None:
        """Answers every request with this. coding: what Content-Encoding says of it."""
        if coding is not None:
            headers["Content-Encoding"] = coding

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(body=body, status=status, headers=headers)

        self.answer = answer
