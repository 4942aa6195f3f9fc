"""The JWKS client against an issuer that hangs, answers nonsense, redirects, floods or breaks off: known keys keep working."""

from __future__ import annotations

import asyncio
import gzip
import logging
import zlib
from collections.abc import AsyncIterator, Callable

import orjson
import pytest

from proxy.auth.jwks import Jwks
from proxy.auth.jwks_download import MAX_BODY_BYTES
from tests.proxy.jwks_server import Clock, JwksServer, signer

LIFETIME_S = 3600.0
SHORT_S = 0.05


@pytest.fixture
async def issuer() -> AsyncIterator[JwksServer]:
    async with JwksServer(signer("one"), signer("two", "ES256")) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
async def jwks(issuer: JwksServer, clock: Clock) -> AsyncIterator[Jwks]:
    client = Jwks(issuer.url, lifetime_s=LIFETIME_S, monotonic=clock)
    yield client
    await client.stop()


@pytest.fixture
async def impatient(jwks: Jwks, issuer: JwksServer, clock: Clock) -> AsyncIterator[Jwks]:
    """A client with a short time limit that knows the keys already, however slow this machine is."""
    await jwks.find("one")
    client = Jwks(issuer.url, timeout_s=SHORT_S, lifetime_s=LIFETIME_S, monotonic=clock)
    client.adopt(jwks)
    yield client
    await client.stop()


async def test_issuer_that_hangs_holds_up_nobody_with_a_known_key(impatient: Jwks, issuer: JwksServer) -> None:
    issuer.answer = issuer.hang
    strangers = [asyncio.ensure_future(impatient.find("unknown")) for _ in range(20)]
    await asyncio.sleep(0)
    assert [len(await impatient.find("one")) for _ in range(1000)] == [1] * 1000
    assert not any(stranger.done() for stranger in strangers)
    # The issuer never answers: what ends the strangers' wait is the time limit.
    assert await asyncio.gather(*strangers) == [()] * 20
    assert not issuer._released.is_set()
    assert len(issuer.paths) <= 2


async def test_issuer_that_hangs_from_the_start_is_not_asked_for_each_request(issuer: JwksServer, clock: Clock) -> None:
    issuer.answer = issuer.hang
    jwks = Jwks(issuer.url, timeout_s=SHORT_S, monotonic=clock)
    for _ in range(10):
        assert await jwks.find("one") == ()
    assert len(issuer.paths) <= 1
    await jwks.stop()


async def test_answer_that_never_ends_changes_nothing(impatient: Jwks, issuer: JwksServer) -> None:
    issuer.answer = issuer.drip
    assert await impatient.find("unknown") == ()
    assert await impatient.find("one")


NONSENSE: dict[str, tuple[bytes, int]] = {
    "server error": (b'{"keys": []}', 500),
    "not found": (b"", 404),
    "no content": (b"", 204),
    "empty": (b"", 200),
    "html": (b"<html>log in</html>", 200),
    "cut JSON": (b'{"keys": [{"kty": "RSA"', 200),
    "not UTF-8": (b'{"keys": ["\xff"]}', 200),
    "a list": (b"[]", 200),
    "null": (b"null", 200),
    "no keys": (b"{}", 200),
    "keys an object": (b'{"keys": {}}', 200),
    "keys empty": (b'{"keys": []}', 200),
    "keys of nonsense": (b'{"keys": [null, 1, "x", [], {}, {"kty": "RSA"}, {"kty": []}]}', 200),
    "nested": (b"[" * 100_000, 200),
    "an error page with keys": (orjson.dumps({"keys": [signer("evil").jwk()]}), 403),
    "a secret": (b'{"keys": [{"kty": "oct", "kid": "evil", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"}]}', 200),
    "too many keys": (orjson.dumps({"keys": [signer("evil", "ES256").jwk()] * 101}), 200),
    "one byte over the limit": (orjson.dumps({"keys": [signer("evil").jwk()]}).ljust(MAX_BODY_BYTES + 1), 200),
    "gzip that does not say so": (gzip.compress(orjson.dumps({"keys": [signer("evil").jwk()]})), 200),
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_changes_nothing(
    jwks: Jwks, issuer: JwksServer, clock: Clock, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    await jwks.find("one")
    issuer.say(*NONSENSE[name])
    assert await jwks.find("evil") == ()
    assert await jwks.find("one")
    assert len(issuer.paths) == 2
    assert len(caplog.records) == 1
    assert caplog.messages[0].startswith(f"keys at {issuer.url} cannot be read: ")


async def test_answer_of_exactly_the_limit_is_read(jwks: Jwks, issuer: JwksServer) -> None:
    issuer.say(orjson.dumps({"keys": issuer.keys}).ljust(MAX_BODY_BYTES))
    assert await jwks.find("one")


async def test_redirect_is_not_followed(jwks: Jwks, issuer: JwksServer) -> None:
    await jwks.find("one")
    issuer.answer = issuer.redirect
    assert await jwks.find("unknown") == ()
    assert issuer.paths == ["/keys", "/keys"]
    assert await jwks.find("one")


async def test_flood_is_cut_off(jwks: Jwks, issuer: JwksServer) -> None:
    await jwks.find("one")
    issuer.answer = issuer.flood
    assert await jwks.find("unknown") == ()
    await issuer.go_away()
    assert issuer.sent_bytes < 50_000_000  # 1 MiB and what the sockets hold, of 100 MB
    assert await jwks.find("one")


# aiohttp sends a GET once more when the connection ends before the answer begins.
@pytest.mark.parametrize(("how", "requests"), [("hang_up", 3), ("break_off", 2)])
async def test_broken_answer_changes_nothing(jwks: Jwks, issuer: JwksServer, how: str, requests: int) -> None:
    await jwks.find("one")
    issuer.answer = getattr(issuer, how)
    assert await jwks.find("unknown") == ()
    assert await jwks.find("one")
    assert len(issuer.paths) == requests


async def test_no_issuer_is_no_key(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    jwks = Jwks("http://127.0.0.1:1/keys", monotonic=clock)
    assert await jwks.find("one") == ()
    assert await jwks.find(None) == ()
    assert not jwks.is_ready
    assert len(caplog.records) == 1
    assert "its tokens are refused until they can be read" in caplog.text
    await jwks.stop()


async def test_log_has_no_user_and_no_query_of_the_url(
    issuer: JwksServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    issuer.say(b"", 500)
    jwks = Jwks(f"http://me:hunter2@127.0.0.1:{issuer.port}/keys?apikey=swordfish", monotonic=clock)
    await jwks.find("one")
    assert issuer.paths == ["/keys?apikey=swordfish"]
    assert f"keys at {issuer.url} cannot be read: the answer is 500, not 200" in caplog.text
    assert "hunter2" not in caplog.text
    assert "swordfish" not in caplog.text
    await jwks.stop()


async def test_answer_that_is_not_http_is_no_answer(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        jwks = Jwks(f"http://127.0.0.1:{port}/keys?apikey=swordfish", monotonic=clock)
        assert await jwks.find("one") == ()
        await jwks.stop()
    assert "cannot be read: " in caplog.text
    assert "swordfish" not in caplog.text


EVIL = orjson.dumps({"keys": [signer("evil").jwk()]})
PACKED: dict[str, tuple[bytes, str]] = {
    "not gzip": (EVIL, "gzip"),
    "half": (gzip.compress(EVIL)[:-12], "gzip"),
    "unpacks to too much": (gzip.compress(EVIL.ljust(MAX_BODY_BYTES + 1)), "gzip"),
    "another coding": (EVIL, "br"),
    "two codings": (gzip.compress(EVIL), "gzip, gzip"),
}


@pytest.mark.parametrize("name", PACKED)
async def test_what_cannot_be_unpacked_changes_nothing(jwks: Jwks, issuer: JwksServer, name: str) -> None:
    await jwks.find("one")
    body, coding = PACKED[name]
    issuer.say(body, coding=coding)
    assert await jwks.find("evil") == ()
    assert await jwks.find("one")


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
async def test_a_compressed_key_set_is_read(
    jwks: Jwks, issuer: JwksServer, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    issuer.say(pack(EVIL), coding=coding)
    assert await jwks.find("evil")
