"""The door to addresses outside: where it leads, and what it does with who answers there."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.abc import ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.outside.door import MAX_INTERIM, OutsideDoor, Place
from proxy.outside.target import Answer, Target, Unreachable
from tests.ports import free_port
from tests.proxy.upstreams import serving

LIMIT_S = 240.0


def target(url: str, *, is_private: bool = True) -> Target:
    port = urlsplit(url).port
    return Target(url, frozenset({port or 443}), is_private)


def door(*own: Place) -> OutsideDoor:
    return OutsideDoor(lambda: own)


async def post(url: str, *own: Place, is_private: bool = True, limit_s: float = LIMIT_S) -> Answer:
    made = door(*own)
    try:
        return await made.post(target(url, is_private=is_private), b"{}", {}, limit_s)
    finally:
        await made.stop()


@pytest.fixture
async def asked() -> list[web.BaseRequest]:
    return []


@pytest.fixture
async def server(asked: list[web.BaseRequest]) -> AsyncIterator[str]:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request)
        return web.Response(status=503, headers={"Retry-After": "7"})

    async with serving(answer) as url:
        yield url


async def test_a_body_is_posted_and_the_answers_head_is_read(server: str, asked: list[web.BaseRequest]) -> None:
    assert await post(f"{server}/a?b=c") == Answer(503, "7")
    assert (asked[0].method, asked[0].raw_path) == ("POST", "/a?b=c")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
async def test_this_machine_is_not_public_however_it_is_written(server: str, host: str) -> None:
    with pytest.raises(Unreachable):
        await post(f"http://{host}:{urlsplit(server).port}", is_private=False)


async def test_nobody_is_asked_at_an_address_that_is_refused(server: str, asked: list[web.BaseRequest]) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1 is not a public address"):
        await post(server, is_private=False)
    assert not asked


async def test_a_name_is_judged_by_the_address_that_its_connection_goes_to(
    server: str, asked: list[web.BaseRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server may say one thing now and another a moment later; each connection is looked at by itself."""
    made = door()
    answers = ["93.184.215.14", "127.0.0.1"]

    async def rebinds(host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=answers.pop(), port=port, family=socket.AF_INET, proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]  # fmt: skip

    monkeypatch.setattr(made._resolver, "resolve", rebinds)
    with pytest.raises(Unreachable, match="is not a public address"):
        await made.post(target(f"http://shop.test:{urlsplit(server).port}", is_private=False), b"", {}, LIMIT_S)
    await made.stop()
    assert answers == ["93.184.215.14"]
    assert not asked


@pytest.mark.parametrize("own", ["127.0.0.1", "localhost", "0.0.0.0", "::", "127.0.0.2"])
async def test_comfyui_and_the_gate_itself_are_never_asked(server: str, asked: list[web.BaseRequest], own: str) -> None:
    """Who listens at every address, or at another one of this machine with the same port, may be the same program."""
    port = urlsplit(server).port
    assert port is not None
    with pytest.raises(Unreachable, match=r"ComfyUI"):
        await post(server, (own, port))
    assert not asked


async def test_comfyui_on_another_machine_is_not_asked_either() -> None:
    with pytest.raises(Unreachable, match="is ComfyUI's or the gate's own"):
        await post("https://10.255.255.254:8188", ("10.255.255.254", 8188))


async def test_a_place_whose_name_has_no_address_stands_in_nobodys_way(server: str) -> None:
    assert (await post(server, ("no-such-host.invalid", 1))).status == 503


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    paths = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        paths.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with serving(answer) as url:
        assert (await post(f"{url}/here")).status == 307
    assert paths == ["/here"]


async def test_proxies_of_the_environment_are_not_asked(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await post(server)).status == 503


async def test_an_answer_without_end_is_not_read() -> None:
    is_over = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(65536))
        finally:
            is_over.set()

    async with serving(answer) as url:
        assert (await post(url)).status == 200
        async with asyncio.timeout(LIMIT_S):
            await is_over.wait()


async def test_interim_answers_without_end_are_not_waited_for() -> None:
    """Here they have one, a little behind the bound."""
    sent = b"HTTP/1.1 103 Early Hints\r\n\r\n" * (MAX_INTERIM + 1) + b"HTTP/1.1 204 No Content\r\n\r\n"
    server = await asyncio.start_server(lambda reader, writer: _hanging_up(reader, writer, sent), "127.0.0.1", 0)
    async with server:
        with pytest.raises(Unreachable, match="the answer cannot be read"):
            await post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def test_a_few_interim_answers_come_before_the_one_that_counts() -> None:
    sent = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 5 + b"HTTP/1.1 204 No Content\r\n\r\n"
    server = await asyncio.start_server(lambda reader, writer: _hanging_up(reader, writer, sent), "127.0.0.1", 0)
    async with server:
        assert (await post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")).status == 204


async def test_who_does_not_answer_is_given_up() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(answer) as url:
        with pytest.raises(Unreachable, match=r"no answer within 0\.2 s"):
            await post(url, limit_s=0.2)


async def _hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(sent)
    writer.close()


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"", "the connection was lost"),
        (b"SSH-2.0-CANARY\r\n\r\n", "the answer cannot be read"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", "the answer cannot be read"),
    ],
    ids=("nothing", "no http", "a head without end"),
)
async def test_what_is_no_answer_is_said_in_our_own_words(sent: bytes, why: str) -> None:
    server = await asyncio.start_server(lambda reader, writer: _hanging_up(reader, writer, sent), "127.0.0.1", 0)
    async with server:
        with pytest.raises(Unreachable) as raised:
            await post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert str(raised.value).startswith(why)
    assert "CANARY" not in str(raised.value)


async def test_a_name_without_an_address_and_a_port_where_nobody_listens() -> None:
    with pytest.raises(Unreachable, match="its name has no address"):
        await post("https://no-such-host.invalid")
    port = free_port()
    with pytest.raises(Unreachable):
        await post(f"http://127.0.0.1:{port}")


async def test_who_speaks_no_tls_is_sent_nothing(server: str, asked: list[web.BaseRequest]) -> None:
    with pytest.raises(Unreachable):
        await post(server.replace("http:", "https:"))
    assert not asked


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_self_signed(tmp_path))
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        with pytest.raises(Unreachable, match="its certificate is not valid"):
            await post(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")


def _self_signed(folder: Path) -> Path:
    """A certificate of 127.0.0.1's, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "server.pem"
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.parametrize(
    ("url", "is_private", "address", "port", "why"),
    [
        ("https://a.test", False, "8.8.8.8", 443, None),
        ("https://a.test", False, "8.8.8.8", 8443, "port 8443 is not permitted"),
        ("https://a.test", False, "10.0.0.1", 443, "10.0.0.1 is not a public address"),
        ("https://a.test", False, "169.254.169.254", 443, "169.254.169.254 is not a public address"),
        ("https://a.test", True, "10.0.0.1", 443, None),
        ("https://a.test", True, "::ffff:10.0.0.1", 443, None),
        ("https://a.test", True, "::ffff:8.8.8.8", 443, None),
        ("https://a.test", True, "169.254.169.254", 443, "169.254.169.254 is not a public address"),
        ("https://a.test", True, "fe80::1%1", 443, "fe80::1%1 is not a public address"),
        ("http://localhost", True, "127.0.0.1", 443, None),
        ("http://localhost", True, "::1", 443, None),
        ("http://localhost", True, "10.0.0.1", 443, "10.0.0.1 is not this machine: use https"),
        ("http://localhost", True, "8.8.8.8", 443, "8.8.8.8 is not this machine: use https"),
        ("https://a.test", True, "shop", 443, "shop is no address"),
    ],
)
def test_a_target_says_which_connections_it_permits(
    url: str, is_private: bool, address: str, port: int, why: str | None
) -> None:
    assert Target(url, frozenset({443}), is_private).objection_to(address, port) == why


def test_ports_of_the_web_alone_are_permitted_where_nobody_says_otherwise() -> None:
    permitted: Iterable[int] = (port for port in range(65536) if not Target("https://a").objection_to("8.8.8.8", port))
    assert list(permitted) == [80, 443]
