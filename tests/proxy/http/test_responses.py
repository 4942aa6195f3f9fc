"""What every answer looks like: refusals in ComfyUI's shape, forwarded heads with the gate's own word on caching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from multidict import CIMultiDict

from policy.call import ClientReply
from policy.routes import Caching
from proxy.http.errors import CHALLENGE_FOR_PAGES, Refusal, Unauthenticated, refusal_for
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.http.responses import (
    cache_control,
    forwarded_head,
    is_navigation,
    is_upgrade,
    own_answer,
    reason_phrase,
)
from proxy.pages import refusals
from tests.proxy.http.requests import made_request as request

BROWSER = {"Accept": "text/html,*/*", "Sec-Fetch-Mode": "navigate"}
REFUSED = Refusal(
    401, "credential-missing", "Send a key.", "details", headers=(("WWW-Authenticate", "Bearer"), ("Set-Cookie", "s=; x"))
)  # fmt: skip


def record(status: int = 200, **more: Any) -> RequestRecord:
    return RequestRecord("GET", "abc123", "127.0.0.1", status=status, **more)


@dataclass(frozen=True)
class Answer:
    status: int
    reason: str
    headers: CIMultiDict[str]
    body: bytes


def answered(told: RequestRecord, reply: ClientReply) -> Answer:
    fields, body, reason, shared = own_answer(told, reply)
    return Answer(reply.status, reason, CIMultiDict([*(shared.fields if shared else ()), *fields]), body)


def forwarded(told: RequestRecord, *of_answer: Any, **more: Any) -> dict[str, str]:
    own, shared = forwarded_head(told, *of_answer, **more)
    fields = [*shared.fields, *own]
    assert len(fields) == len(dict(fields)), "a field is there twice"
    return dict(fields)


def refuse(asked: Request, told: RequestRecord, refusal: Refusal) -> Answer:
    return answered(told, refusals.refuse(asked, told, refusal))


def test_a_refusal_has_comfyuis_shape() -> None:
    told = record(response_headers=[("RateLimit", "r=1"), ("Vary", "Origin")])
    answer = refuse(request(), told, Refusal(403, "name-refused", "No.", "why", {"7": {"errors": []}}, (("A", "1"),)))
    assert orjson.loads(answer.body) == {
        "error": {
            "type": "name_refused",
            "message": "No.",
            "details": "why",
            "extra_info": {"request_id": "abc123"},
        },
        "node_errors": {"7": {"errors": []}},
    }
    assert answer.status == 403
    assert told.reason == "name-refused"
    expected = {
        "Content-Type": "application/json",
        "Cache-Control": "private, no-store",
        "Server": "comfygate",
        "X-Request-Id": "abc123",
        "RateLimit": "r=1",
        "Vary": "Origin",
        "A": "1",
    }
    assert expected.items() <= dict(answer.headers).items()


def test_a_browser_without_a_credential_is_led_to_the_login() -> None:
    told = record()
    answer = refuse(request(path="/?token=secret&a=1", **BROWSER), told, REFUSED)
    assert 300 <= answer.status < 400
    assert answer.headers["Location"].startswith("/gate/login")
    assert "secret" not in answer.headers["Location"]
    assert answer.headers["Set-Cookie"] == "s=; x"
    assert "WWW-Authenticate" not in answer.headers
    assert told.reason == "credential-missing"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {}),
        ("GET", {"Accept": "*/*"}),
        ("POST", BROWSER),
        ("HEAD", BROWSER),
        ("GET", {**BROWSER, "Sec-Fetch-Mode": "cors"}),
        ("GET", {**BROWSER, "Upgrade": "WebSocket"}),
    ],
)
def test_a_program_without_a_credential_is_told_so(method: str, headers: dict[str, str]) -> None:
    assert not is_navigation(request(method, **headers))
    answer = refuse(request(method, **headers), record(), REFUSED)
    assert answer.status == 401
    expected = CHALLENGE_FOR_PAGES if "Sec-Fetch-Mode" in headers else "Bearer"
    assert answer.headers["WWW-Authenticate"] == expected


def test_programs_may_choose_basic_and_browsers_may_not() -> None:
    refusal = refusal_for(Unauthenticated())
    assert refusal is not None
    told = refuse(request(), record(), refusal).headers.getall("WWW-Authenticate")
    assert told == ['Bearer realm="comfygate", Basic realm="comfygate"']
    for mark in ({"Sec-Fetch-Mode": "cors"}, {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:150.0)"}):
        told = refuse(request(**mark), record(), refusal).headers.getall("WWW-Authenticate")
        assert told == ['Bearer realm="comfygate"']


def test_a_browser_that_may_not_is_told_so_in_words() -> None:
    told = record()
    answer = refuse(
        request(**BROWSER), told, Refusal(429, "rate-limited", "Slow <down>.", "1/s", headers=(("Retry-After", "7"),))
    )
    assert answer.status == 429
    assert told.reason == "rate-limited"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert (answer.headers["Retry-After"], answer.headers["Vary"]) == ("7", "Accept")
    page = answer.body.decode()
    for text in ("<h1>Too many requests</h1>", "Slow &lt;down&gt;.", "1/s", "abc123"):
        assert text in page
    other = refuse(request(**BROWSER), told, Refusal(500, "x", "No.")).body
    assert b"<h1>This did not work</h1>" in other


def test_a_manifest_is_fetched_without_cookies_and_is_a_name_alone_then() -> None:
    asked = request(**{"Sec-Fetch-Dest": "manifest", "Sec-Fetch-Mode": "cors"})
    answer = refuse(asked, record(), REFUSED)
    assert (answer.status, answer.body) == (200, b'{"name":"ComfyUI"}')
    assert "Set-Cookie" not in answer.headers
    assert refuse(asked, record(), Refusal(403, "admins-only", "No.")).status == 403


def test_old_browsers_navigate_without_saying_so() -> None:
    assert is_navigation(request(Accept="text/html"))


def test_upgrade_is_told_by_its_field() -> None:
    assert is_upgrade(request(Upgrade="WebSocket"))
    assert not is_upgrade(request(Upgrade="h2c"))
    assert not is_upgrade(request())


@pytest.mark.parametrize(
    ("reply", "body", "kind", "caching"),
    [
        (ClientReply(200, {"a": 1}), b'{"a":1}', "application/json", "private, no-store"),
        (ClientReply(201, b"raw", "text/plain"), b"raw", "text/plain", "private, no-store"),
        (ClientReply(200, None), b"null", "application/json", "private, no-store"),
        (ClientReply(200, b"", headers=(("Cache-Control", "no-cache"),)), b"", "application/json", "no-cache"),
    ],
)
def test_a_reply_of_the_gates_own(reply: ClientReply, body: bytes, kind: str, caching: str) -> None:
    told = record()
    answer = answered(told, reply)
    assert (answer.body, answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (body, kind, caching)
    assert answer.headers["X-Request-Id"] == "abc123"


def test_repeated_fields_of_a_reply_are_kept() -> None:
    cookies = (("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"))
    assert answered(record(), ClientReply(headers=cookies)).headers.getall("Set-Cookie") == ["a=1", "b=2"]


UPSTREAMS = [
    (name.encode(), value.encode())
    for name, value in {
        "Server": "Python/3.11 aiohttp/3.14",
        "Set-Cookie": "comfy=1",
        "Cache-Control": "public, max-age=86400",
        "ETag": '"a"',
        "Content-Length": "3",
        "Access-Control-Allow-Origin": "*",
        "Vary": "Accept-Encoding",
    }.items()
]


def test_a_forwarded_head_says_the_gates_word_on_caching() -> None:
    head = forwarded(record(), UPSTREAMS, Caching.PRIVATE, "view")
    assert head == {
        "Cache-Control": "private, no-store",
        "ETag": '"a"',
        "Content-Length": "3",
        "Vary": "Accept-Encoding, Authorization, Cookie, X-API-Key",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
        "Server": "comfygate",
        "X-Request-Id": "abc123",
    }


@pytest.mark.parametrize(
    ("caching", "name", "expected"),
    [
        (Caching.PRIVATE, "index-a1b2c3d4.js", "private, no-store"),
        (Caching.REVALIDATE, "index-a1b2c3d4.js", "private, no-cache"),
        (Caching.HASHED, "index-a1b2c3d4.js", "private, max-age=31536000, immutable"),
        (Caching.HASHED, "vendor-three-BxQ_9z-k.js", "private, max-age=31536000, immutable"),
        (Caching.HASHED, "vendor-three-BxQ_9z-k.js.map", "private, max-age=31536000, immutable"),
        (Caching.HASHED, "custom-nodes-manager.js", "private, no-cache"),
        (Caching.WEB_UI, "index-a1b2c3d4.js", "private, no-cache"),
        (Caching.WEB_UI, "index.html", "private, no-cache"),
        (Caching.HASHED, "user.css", "private, no-cache"),
        (Caching.HASHED, "a-b.js", "private, no-cache"),
        (Caching.HASHED, "-a1b2c3d4.js", "private, no-cache"),
        (Caching.HASHED, "", "private, no-cache"),
    ],
)
def test_only_hashed_names_are_kept_for_long(caching: Caching, name: str, expected: str) -> None:
    assert cache_control(caching, name) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, "public"), (206, "public"), (304, "public"), (301, "private"), (404, "private"), (500, "private")],
)
def test_an_error_is_never_public(status: int, expected: str) -> None:
    head = forwarded(record(status), UPSTREAMS, Caching.HASHED, "index-a1b2c3d4.js", is_shared=True)
    assert head["Cache-Control"].startswith(expected)
    assert ("Cookie" in head["Vary"]) is (expected == "private")


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("This name is too long.", "This name is too long."),
        ("one\r\nSet-Cookie: a=b", "one Set-Cookie: a=b"),
        ("a\x00b\x7fc\u2028d\u00e9", "a?b?c d?"),
        ("x" * 500, "x" * 197 + "..."),
        ("", ""),
    ],
)
def test_the_reason_phrase(sentence: str, expected: str) -> None:
    assert reason_phrase(sentence) == expected


def test_a_refusal_says_its_sentence_in_the_status_line() -> None:
    answer = refuse(request(path="/api/upload/image"), record(), Refusal(403, "x", "The name ends\nin .exe."))
    assert answer.reason == "The name ends in .exe."


def test_an_edge_keeps_hashed_files_alone_and_only_where_the_operator_says_so() -> None:
    assert cache_control(Caching.HASHED, "index-a1b2c3d4.js", is_shared=True).startswith("public, ")
    assert cache_control(Caching.HASHED, "CREDIT.txt", is_shared=True) == "private, no-cache"
    assert cache_control(Caching.WEB_UI, "index-a1b2c3d4.js", is_shared=True) == "private, no-cache"


def test_a_person_over_a_limit_gets_a_page_that_waits_and_tries_again() -> None:
    refusal = Refusal(429, "rate-limited", "The limit is reached.", headers=(("Retry-After", "7"),))
    page = refuse(request(path="/", **BROWSER), record(), refusal)
    assert (page.status, page.headers["Refresh"], page.headers["Retry-After"]) == (429, "7", "7")
    assert "Refresh" not in refuse(request(path="/queue"), record(), refusal).headers
