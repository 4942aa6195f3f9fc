"""A web of the tests' own on loopback: an authority that vouches for its names, a server that speaks TLS, and what its names mean."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.outside.door import OutsideDoor, Place
from proxy.outside.fetching import Fetcher

NAME, OTHER, FOREIGN = "images.test", "more.images.test", "elsewhere.test"
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def server_context(folder: Path, names: Sequence[str] = (NAME, OTHER)) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server of these names, and for a client that trusts who vouches for it."""
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the tests' own")])
    root = _certificate(issuer, issuer, authority, authority, x509.BasicConstraints(ca=True, path_length=0))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    leaf = _certificate(subject, issuer, server, authority, alternatives)
    secret = server.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "server.pem"
    file.write_bytes(secret + leaf.public_bytes(serialization.Encoding.PEM))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    trust = ssl.create_default_context(cadata=root.public_bytes(serialization.Encoding.PEM).decode())
    return serving, trust


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    return builder.sign(signer, hashes.SHA256())


@dataclass
class Names(AbstractResolver):
    """What names mean: each look-up takes the next answer, of which the last one stays. asked: in their order."""

    answers: dict[str, list[str]]
    asked: list[str] = field(default_factory=list)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self.answers.get(host)
        if not answers:
            raise OSError(None, "no such name")
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
            )
        ]  # fmt: skip

    async def close(self) -> None:
        pass


@dataclass
class Web:
    """answer: to each request. asked: what came. names: of `Names`."""

    port: int
    trust: ssl.SSLContext
    names: Names
    asked: list[web.BaseRequest]
    answer: Answer | None = None

    def url(self, path: str, host: str = NAME) -> str:
        return f"https://{host}:{self.port}{path}"

    @property
    def hosts(self) -> str:
        """As a configuration has them."""
        return f'["{NAME}:{self.port}", "*.{NAME}:{self.port}"]'

    def fetcher(self, *own: Place, allows_private: bool = True, **more: Any) -> Fetcher:
        """allows_private: whether loopback may be asked, where all of this web is."""
        door = OutsideDoor(lambda: own, self.trust)
        door._resolver = self.names
        return Fetcher(door, allows_private=allows_private, **more)


@asynccontextmanager
async def a_web(folder: Path, answer: Answer | None = None, names: Sequence[str] = (NAME, OTHER)) -> AsyncIterator[Web]:
    context, trust = server_context(folder, names)
    asked: list[web.BaseRequest] = []

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request)
        assert made.answer is not None
        return await made.answer(request)

    server = web.Server(serve, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    here = {name: ["127.0.0.1"] for name in (NAME, OTHER, FOREIGN)}
    made = Web(runner.addresses[0][1], trust, Names(here), asked, answer)
    try:
        yield made
    finally:
        await runner.cleanup()


def giving(body: bytes, **headers: str) -> Answer:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, headers={name.replace("_", "-"): text for name, text in headers.items()})

    return answer


def leading(locations: dict[str, str], last: Answer, status: int = 302) -> Answer:
    """Redirects, by path; another path is answered by `last`."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if (location := locations.get(request.path)) is not None:
            return web.Response(status=status, headers={"Location": location, "Set-Cookie": "a=b"})
        return await last(request)

    return answer


def pouring(first: bytes, is_over: asyncio.Event, piece: bytes = bytes(65536)) -> Answer:
    """Without end; is_over: set when nobody reads any more."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            await response.write(first)
            while True:
                await response.write(piece)
                await asyncio.sleep(0)  # a lost connection over TLS makes nobody wait
        finally:
            is_over.set()

    return answer


def silent_after(first: bytes, is_over: asyncio.Event) -> Answer:
    """Sends this, and then nothing more."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            await response.write(first)
            await asyncio.Event().wait()
        finally:
            is_over.set()
        raise AssertionError

    return answer
