"""The JWKS client: one fetch for many requests, rotation, renewal, unknown kids, an issuer that goes away and comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from proxy.auth.jwks import ASK_INTERVAL_S, Jwks
from tests.proxy.jwks_server import Clock, JwksServer, signer

LIFETIME_S = 3600.0


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


class Pause:
    """Stands in for asyncio.sleep: says how long it should have been, and ends when the test says so."""

    def __init__(self) -> None:
        self.asked_s: asyncio.Queue[float] = asyncio.Queue()
        self._over: asyncio.Queue[None] = asyncio.Queue()

    async def __call__(self, seconds: float) -> None:
        self.asked_s.put_nowait(seconds)
        await self._over.get()

    def end(self) -> None:
        self._over.put_nowait(None)


async def test_keys_are_fetched_once_for_many_requests(jwks: Jwks, issuer: JwksServer) -> None:
    for _ in range(20):
        (key,) = await jwks.find("one")
        assert "RS256" in key.algorithms
    assert jwks.is_ready
    assert issuer.paths == ["/keys"]


async def test_requests_with_unknown_kids_share_one_fetch(jwks: Jwks, issuer: JwksServer) -> None:
    issuer.answer = issuer.hang
    waiting = [asyncio.ensure_future(jwks.find(f"kid-{number}")) for number in range(49)]
    waiting.append(asyncio.ensure_future(jwks.find("one")))
    await issuer.wait_for_requests(1)
    issuer.release()
    answers = await asyncio.gather(*waiting)
    assert [len(found) for found in answers] == [0] * 49 + [1]
    assert len(issuer.paths) == 1


async def test_unknown_kid_asks_the_issuer_at_most_once_a_minute(jwks: Jwks, issuer: JwksServer, clock: Clock) -> None:
    await jwks.find("one")
    for _ in range(10):
        assert await jwks.find("unknown") == ()
    assert len(issuer.paths) == 2
    clock.advance(ASK_INTERVAL_S - 0.1)
    assert await jwks.find("unknown") == ()
    assert len(issuer.paths) == 2
    clock.advance(0.2)
    assert await jwks.find("unknown") == ()
    assert await jwks.find("another") == ()
    assert len(issuer.paths) == 3


async def test_first_fetch_for_an_unknown_kid_counts(jwks: Jwks, issuer: JwksServer) -> None:
    assert await jwks.find("unknown") == ()
    assert await jwks.find("unknown") == ()
    assert len(issuer.paths) == 1


async def test_rotated_key_is_found_and_the_removed_one_is_gone(jwks: Jwks, issuer: JwksServer) -> None:
    assert await jwks.find("one")
    before = jwks.generation
    issuer.keys = [signer("three", "EdDSA").jwk()]
    (key,) = await jwks.find("three")
    assert key.algorithms == {"EdDSA", "Ed25519"}
    assert await jwks.find("one") == ()
    assert jwks.generation != before
    assert len(issuer.paths) == 2


async def test_generation_stays_when_the_keys_do(jwks: Jwks, issuer: JwksServer, clock: Clock) -> None:
    await jwks.find("one")
    before = jwks.generation
    await jwks.find("unknown")
    assert len(issuer.paths) == 2
    assert jwks.generation == before


@pytest.mark.parametrize(
    "kid",
    [
        "",
        "../../../../etc/passwd",
        "/dev/null",
        "file:///etc/passwd",
        "http://127.0.0.1:1/evil",
        "' OR 1=1 --",
        "__class__",
        "one\x00",
        "One",
        "\ud800",
        "k" * 10_000,
        None,
    ],
)
async def test_kid_is_only_looked_up(jwks: Jwks, issuer: JwksServer, kid: str | None) -> None:
    assert await jwks.find(kid) == ()
    assert issuer.paths == ["/keys"]


async def test_token_without_kid_means_the_only_key(jwks: Jwks, issuer: JwksServer) -> None:
    issuer.keys = [signer("one").jwk()]
    assert len(await jwks.find(None)) == 1


async def test_known_keys_are_served_while_the_issuer_is_away(
    jwks: Jwks, issuer: JwksServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await jwks.find("one")
    await issuer.go_away()
    for _ in range(5):
        clock.advance(LIFETIME_S)
        assert await jwks.find("one")
        assert await jwks.find("unknown") == ()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the known keys stay in use" in caplog.text

    issuer.keys = [signer("three").jwk()]
    await issuer.come_back()
    clock.advance(ASK_INTERVAL_S)
    assert await jwks.find("three")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_issuer_that_is_away_is_asked_once_a_minute_and_warned_of_each_time_it_goes(
    jwks: Jwks, issuer: JwksServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await jwks.find("one")
    for outage in (1, 2):
        issuer.paths.clear()
        issuer.say(b"", 500)
        for _ in range(3):
            clock.advance(LIFETIME_S)
            assert await jwks.find("unknown") == ()
            for _ in range(10):
                clock.advance(1.0)
                assert await jwks.find("one")
                assert await jwks.find("unknown") == ()
        assert len(issuer.paths) == 3
        assert len(caplog.records) == outage
        clock.advance(ASK_INTERVAL_S)
        issuer.answer = issuer.serve_keys
        assert await jwks.find("unknown") == ()
    # All is well again: the next fetch is due when the keys get old.
    issuer.paths.clear()
    clock.advance(2 * ASK_INTERVAL_S)
    assert await jwks.find("one")
    assert await jwks.find("one")
    assert not jwks._is_fetching()
    assert issuer.paths == []


async def test_old_keys_are_renewed_without_waiting(jwks: Jwks, issuer: JwksServer, clock: Clock) -> None:
    await jwks.find("one")
    clock.advance(LIFETIME_S)
    issuer.answer = issuer.hang
    for _ in range(50):
        assert await jwks.find("one")
    await issuer.wait_for_requests(2)
    assert len(issuer.paths) == 2
    issuer.release()
    # An unknown kid waits for the fetch that runs.
    assert await jwks.find("unknown") == ()
    assert len(issuer.paths) == 2


async def test_cancelled_request_leaves_the_fetch_to_the_others(jwks: Jwks, issuer: JwksServer) -> None:
    issuer.answer = issuer.hang
    gone, stays = asyncio.ensure_future(jwks.find("one")), asyncio.ensure_future(jwks.find("one"))
    await issuer.wait_for_requests(1)
    gone.cancel()
    issuer.release()
    assert await stays
    assert gone.cancelled()
    assert len(issuer.paths) == 1


async def test_start_fetches_and_renews_before_the_keys_are_old(issuer: JwksServer, clock: Clock) -> None:
    pause = Pause()
    jwks = Jwks(issuer.url, lifetime_s=LIFETIME_S, monotonic=clock, sleep=pause)
    await jwks.start()
    pause_s = await pause.asked_s.get()
    assert jwks.is_ready
    assert 0 < pause_s < LIFETIME_S
    issuer.keys = [signer("three").jwk()]
    clock.advance(pause_s)
    pause.end()
    assert await pause.asked_s.get() == pause_s
    assert issuer.paths == ["/keys", "/keys"]
    assert await jwks.find("three")
    assert issuer.paths == ["/keys", "/keys"]
    await jwks.stop()


async def test_start_never_fails_and_tries_again_ever_more_rarely(clock: Clock) -> None:
    pause = Pause()
    jwks = Jwks("http://127.0.0.1:1/keys", monotonic=clock, sleep=pause)
    await jwks.start()
    pauses_s = []
    for _ in range(6):
        pauses_s.append(await pause.asked_s.get())
        clock.advance(pauses_s[-1])
        pause.end()
    assert pauses_s == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    await jwks.stop()


async def test_pause_that_ends_early_is_continued(issuer: JwksServer, clock: Clock) -> None:
    pause = Pause()
    jwks = Jwks(issuer.url, lifetime_s=LIFETIME_S, monotonic=clock, sleep=pause)
    await jwks.start()
    pause_s = await pause.asked_s.get()
    clock.advance(pause_s - 1.0)
    pause.end()
    assert await pause.asked_s.get() == pytest.approx(1.0)
    assert len(issuer.paths) == 1
    await jwks.stop()


async def test_stop_ends_every_task_and_keeps_the_keys(issuer: JwksServer, clock: Clock) -> None:
    before = asyncio.all_tasks()
    jwks = Jwks(issuer.url, lifetime_s=LIFETIME_S, monotonic=clock)
    await jwks.start()
    await jwks.find("one")
    issuer.answer = issuer.hang
    stranger = asyncio.ensure_future(jwks.find("unknown"))
    await issuer.wait_for_requests(2)
    await jwks.stop()
    assert await stranger == ()
    clock.advance(LIFETIME_S)
    assert await jwks.find("one")
    assert await jwks.find("unknown") == ()
    assert {task.get_name() for task in asyncio.all_tasks() - before} & {"jwks renewal", "jwks-fetch"} == set()
    assert len(issuer.paths) == 2


async def test_stopped_before_any_fetch_finds_nothing(jwks: Jwks, issuer: JwksServer) -> None:
    await jwks.stop()
    assert await jwks.find("one") == ()
    assert issuer.paths == []


async def test_successor_takes_over_the_keys(jwks: Jwks, issuer: JwksServer, clock: Clock) -> None:
    await jwks.find("one")
    await issuer.go_away()
    successor = Jwks(issuer.url, monotonic=clock)
    successor.adopt(jwks)
    assert await successor.find("one")
    assert successor.generation == jwks.generation
    await successor.stop()


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example.com/keys",
        "ftp://127.0.0.1/keys",
        "file:///etc/keys",
        "https://",
        "/keys",
        "",
        "//127.0.0.1/",
    ],
)
def test_url_must_be_https_or_this_machine(url: str) -> None:
    with pytest.raises(ValueError, match="must be https"):
        Jwks(url)
