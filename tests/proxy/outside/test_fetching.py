"""Files at addresses outside: what is asked where, and what is refused of what answers there."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from policy.addresses import HostPattern, read_address
from policy.functions.fetches import MAX_REDIRECTS, Failure, FetchFailed
from proxy.outside.fetching import Fetcher
from tests.proxy.outside.web import (
    FOREIGN,
    NAME,
    OTHER,
    Web,
    a_web,
    giving,
    leading,
    pouring,
    server_context,
    silent_after,
)
from tests.proxy.upstreams import GUARD_S

Spoken = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[Web]:
    async with a_web(tmp_path, giving(b"some bytes")) as made:
        yield made


async def fetched(fetcher: Fetcher, url: str, port: int, most: int = 10**6) -> bytes:
    """most: read of it at most."""
    hosts = (HostPattern(NAME, port), HostPattern(f"*.{NAME}", port))
    found = b""
    try:
        async with fetcher.fetch(read_address(url, hosts), hosts) as content:
            async for piece in content:
                found += piece
                if len(found) > most:
                    break
    finally:
        await fetcher.stop()
    return found


async def refused(fetcher: Fetcher, url: str, port: int) -> FetchFailed:
    with pytest.raises(FetchFailed) as raised:
        await fetched(fetcher, url, port)
    return raised.value


async def test_a_file_is_fetched_and_nothing_is_told_of_who_asks(outside: Web) -> None:
    assert await fetched(outside.fetcher(), outside.url("/a%2Fb/%C3%BC.png?x=%20&y=a+b"), outside.port) == b"some bytes"
    [request] = outside.asked
    assert request.raw_path == "/a%2Fb/%C3%BC.png?x=%20&y=a+b"
    assert {name.lower(): text for name, text in request.headers.items()} == {
        "host": f"{NAME}:{outside.port}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": "comfygate",
        "connection": "close",
    }


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_to_hosts_that_are_permitted(outside: Web, status: int) -> None:
    outside.answer = leading({"/a": "/b", "/b": outside.url("/c#there", OTHER)}, giving(b"there"), status)
    assert await fetched(outside.fetcher(), outside.url("/a"), outside.port) == b"there"
    assert [(request.host.split(":")[0], request.path) for request in outside.asked] == [
        (NAME, "/a"),
        (NAME, "/b"),
        (OTHER, "/c"),
    ]
    assert all(request.method == "GET" and "Cookie" not in request.headers for request in outside.asked)


@pytest.mark.parametrize(
    "location",
    ["https://{FOREIGN}:{port}/", "http://{NAME}:{port}/", "https://{NAME}/", "//{FOREIGN}:{port}/x", "https://a@{NAME}:{port}/", "/a\\b", "", "https://[::1", "https://127.0.0.1:{port}/"],
)  # fmt: skip
async def test_a_redirect_to_what_may_not_be_named_is_not_followed(outside: Web, location: str) -> None:
    outside.answer = leading({"/a": location.format(NAME=NAME, FOREIGN=FOREIGN, port=outside.port)}, giving(b"there"))
    failed = await refused(outside.fetcher(), outside.url("/a"), outside.port)
    if location:
        assert (failed.failure, failed.detail) == (Failure.REDIRECT, "to an address that you may not name")
    assert failed.failure is Failure.REDIRECT
    assert {request.path for request in outside.asked} == {"/a"}


async def test_redirects_have_an_end(outside: Web) -> None:
    outside.answer = leading({"/a": "/a"}, giving(b""))
    failed = await refused(outside.fetcher(), outside.url("/a"), outside.port)
    assert (failed.failure, failed.detail) == (Failure.REDIRECT, "more than 5 times")
    assert len(outside.asked) == MAX_REDIRECTS + 1


async def test_each_address_on_the_way_is_looked_up_and_judged_by_itself(outside: Web) -> None:
    """A name may mean something else for the next connection: then nobody is asked there."""
    outside.answer = leading({"/a": "/b"}, giving(b"there"))
    outside.names.answers[NAME] = ["127.0.0.1", "169.254.1.1"]
    failed = await refused(outside.fetcher(), outside.url("/a"), outside.port)
    assert (failed.failure, failed.note) == (Failure.UNREACHABLE, "169.254.1.1 is not a public address")
    assert outside.names.asked == [NAME, NAME]


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("127.0.0.1", id="this machine"),
        pytest.param("10.1.2.3", id="a private network"),
        pytest.param("169.254.1.1", id="a link"),
        pytest.param("100.100.1.1", id="a carrier's network"),
        pytest.param("0.0.0.0", id="none"),
        pytest.param("224.0.0.1", id="a group"),
        pytest.param("::1", id="this machine, IPv6"),
        pytest.param("::ffff:127.0.0.1", id="this machine, mapped"),
        pytest.param("fe80::1", id="a link, IPv6"),
        pytest.param("fd00::1", id="a private network, IPv6"),
        pytest.param("64:ff9b::7f00:1", id="translated"),
        pytest.param("2002:7f00:1::1", id="6to4"),
    ],
)
async def test_no_address_that_is_not_public_is_asked_whatever_its_name(outside: Web, address: str) -> None:
    outside.names.answers[NAME] = [address]
    failed = await refused(outside.fetcher(allows_private=False), outside.url("/a"), outside.port)
    assert (failed.failure, failed.detail) == (Failure.UNREACHABLE, "")
    assert not outside.asked


async def test_comfyui_and_the_gate_itself_are_not_asked(outside: Web) -> None:
    outside.names.answers["gate"] = ["127.0.0.1"]
    failed = await refused(outside.fetcher(("gate", outside.port)), outside.url("/a"), outside.port)
    assert (failed.failure, failed.detail) == (Failure.UNREACHABLE, "")
    assert not outside.asked


async def test_a_name_without_an_address_is_as_one_that_is_not_asked(outside: Web) -> None:
    del outside.names.answers[NAME]
    failed = await refused(outside.fetcher(), outside.url("/a"), outside.port)
    assert (failed.failure, failed.detail) == (Failure.UNREACHABLE, "")


async def test_a_certificate_of_another_name_or_of_nobody_we_know_is_refused(tmp_path: Path, outside: Web) -> None:
    other = tmp_path / "other"
    other.mkdir()
    async with a_web(other, giving(b""), (FOREIGN,)) as foreign:
        failed = await refused(foreign.fetcher(), foreign.url("/a"), foreign.port)
        assert (failed.failure, failed.detail) == (Failure.UNREACHABLE, "")
        assert failed.note == "its certificate is not valid"
        foreign.trust = outside.trust
        failed = await refused(foreign.fetcher(), foreign.url("/a"), foreign.port)
        assert (failed.failure, failed.note) == (Failure.UNREACHABLE, "its certificate is not valid")
        assert not foreign.asked


@pytest.mark.parametrize("status", [204, 206, 304, 401, 404, 500])
async def test_what_is_no_file_is_told_by_its_status(outside: Web, status: int) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status)

    outside.answer = answer
    failed = await refused(outside.fetcher(), outside.url("/a"), outside.port)
    assert (failed.failure, failed.detail) == (Failure.STATUS, str(status))


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "anything"])
async def test_an_answer_in_a_coding_is_not_unpacked(outside: Web, coding: str) -> None:
    outside.answer = giving(b"bomb", Content_Encoding=coding)
    assert (await refused(outside.fetcher(), outside.url("/a"), outside.port)).failure is Failure.ENCODED


async def test_an_empty_answer_is_no_file(outside: Web) -> None:
    outside.answer = giving(b"")
    assert (await refused(outside.fetcher(), outside.url("/a"), outside.port)).failure is Failure.EMPTY


async def test_who_sends_without_end_is_left_when_enough_was_read(outside: Web) -> None:
    is_over = asyncio.Event()
    outside.answer = pouring(b"", is_over)
    assert len(await fetched(outside.fetcher(), outside.url("/a"), outside.port, most=10**6)) > 10**6
    async with asyncio.timeout(GUARD_S):
        await is_over.wait()


async def test_who_falls_silent_is_left_when_the_time_is_over(outside: Web) -> None:
    is_over = asyncio.Event()
    outside.answer = silent_after(b"first", is_over)
    failed = await refused(outside.fetcher(time_limit_s=0.5), outside.url("/a"), outside.port)
    assert (failed.failure, failed.detail) == (Failure.TOO_SLOW, "0.5")
    async with asyncio.timeout(GUARD_S):
        await is_over.wait()


async def test_who_does_not_answer_at_all_is_as_one_that_is_not_asked(outside: Web) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    outside.answer = answer
    failed = await refused(outside.fetcher(time_limit_s=0.5), outside.url("/a"), outside.port)
    assert (failed.failure, failed.detail, failed.note) == (Failure.UNREACHABLE, "", "no answer within 0.5 s")


async def _spoken(outside: Web, tmp_path: Path, raw: bytes) -> bytes:
    """What is fetched of a server that sends these bytes and hangs up."""
    context, outside.trust = server_context(tmp_path)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0, ssl=context)
    async with server:
        port: int = server.sockets[0].getsockname()[1]
        return await fetched(outside.fetcher(), f"https://{NAME}:{port}/", port)


@pytest.mark.parametrize(
    ("raw", "failure"),
    [
        (b"", Failure.UNREACHABLE),
        (b"SSH-2.0-CANARY\r\n\r\n", Failure.UNREACHABLE),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000, Failure.UNREACHABLE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Failure.BROKEN_OFF),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Failure.BROKEN_OFF),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc", Failure.UNREACHABLE),
    ],
    ids=(
        "nothing",
        "no http",
        "a long head",
        "a short body",
        "a short chunked body",
        "a length below zero",
    ),
)
async def test_who_hangs_up_is_told_of_in_our_own_words(
    outside: Web, tmp_path: Path, raw: bytes, failure: Failure
) -> None:
    with pytest.raises(FetchFailed) as raised:
        await _spoken(outside, tmp_path, raw)
    assert raised.value.failure is failure
    assert "CANARY" not in raised.value.note + raised.value.detail


@pytest.mark.parametrize(
    "raw",
    [
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nCANARY\r\n",
        b"Content-Length: 3\r\n\r\nabcCANARY",
        b"Content-Length: 3\r\nContent-Length: 9\r\n\r\nabcCANARY",
    ],
    ids=("no chunk", "more than announced", "two lengths"),
)
async def test_what_is_behind_the_end_is_no_part_of_a_file(outside: Web, tmp_path: Path, raw: bytes) -> None:
    """So a length bounds what can come, and is believed for the room that is kept."""
    found = b""
    with suppress(FetchFailed):
        found = await _spoken(outside, tmp_path, b"HTTP/1.1 200 OK\r\n" + raw)
    assert found in (b"", b"abc")


async def test_proxies_and_credentials_of_the_environment_are_not_used(
    outside: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text(f"machine {NAME} login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert await fetched(outside.fetcher(), outside.url("/a"), outside.port) == b"some bytes"
    assert "Authorization" not in outside.asked[0].headers


async def test_a_bug_of_whoever_reads_is_no_answer_of_the_other_side(outside: Web) -> None:
    fetcher, hosts = outside.fetcher(), (HostPattern(NAME, outside.port),)
    for bug in (ValueError("a bug"), TimeoutError("its own"), ssl.SSLError("its own")):
        with pytest.raises(type(bug)) as raised:
            async with fetcher.fetch(read_address(outside.url("/a"), hosts), hosts):
                raise bug
        assert raised.value is bug
    await fetcher.stop()
