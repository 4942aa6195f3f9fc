"""At which origin a client sees the gate: a trusted proxy is believed the scheme, and nobody a host that is none."""

from __future__ import annotations

import pytest

from proxy.http.origin import origin_of
from tests.proxy.http.requests import made_request


def origin(host: str | None, *said: str, is_proxied: bool = True) -> str:
    request = made_request()
    request.headers.extend([("X-Forwarded-Proto", value) for value in said])
    if host is not None:
        request.headers["Host"] = host
    return origin_of(request, is_proxied)


@pytest.mark.parametrize(
    ("said", "scheme"),
    [
        ((), "http"),
        (("https",), "https"),
        (("http",), "http"),
        (("HTTPS",), "https"),
        *(((value,), "http") for value in ("", "wss", "ftp", "javascript", "https, http", " https", "https://evil")),
        (("https", "https"), "http"),
        (("https", "http"), "http"),
    ],
)
def test_a_trusted_proxy_says_the_scheme_in_one_value(said: tuple[str, ...], scheme: str) -> None:
    assert origin("gate.example", *said) == f"{scheme}://gate.example"


def test_nobody_else_says_it() -> None:
    assert origin("gate.example", "https", is_proxied=False) == "http://gate.example"


@pytest.mark.parametrize(
    "host", ["gate.example", "gate.example:8190", "127.0.0.1", "[::1]", "[::1]:8190", "localhost:1", "a_b-c.d"]
)
def test_a_host_stands_as_it_was_sent(host: str) -> None:
    assert origin(host) == f"http://{host}"
    assert origin(host.upper()) == f"http://{host}", "in lower case (RFC 3986, 3.2.2)"


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example/x", "evil.example?x", "evil.example#x", "user@evil.example", "user:pw@evil.example"),
        *("evil.example:x", "evil.example:123456", "evil example", 'evil"', "evil<script>", "evil\\x", "[::1", "::1"),
        *("[evil]", "a" * 254, "evil.example,gate.example", "\u0435vil.example", "evil.example:", "evil%2f"),
    ],
)
def test_what_is_no_host_leads_nowhere(host: str) -> None:
    assert origin(host) == "http://localhost"


def test_a_request_without_a_host() -> None:
    assert origin(None, "https") == "https://localhost"
