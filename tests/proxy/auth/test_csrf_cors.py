"""Which pages may act with a browser's own credential, and CORS."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from policy.principal import Principal, TenantId
from policy.violation import Reason, Violation
from proxy.auth.csrf_cors import CsrfCors

PUBLIC = "https://gate.example"
APP = "https://app.example"
KEY = Principal("1", TenantId("acme"))
SESSION = Principal("1", TenantId("acme"), is_session=True)
Fields = list[tuple[str, str]]


def headers_of(fields: Fields) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(fields))


def is_let_in(
    rules: CsrfCors,
    fields: Fields,
    *,
    method: str = "POST",
    is_upgrade: bool = False,
    principal: Principal = SESSION,
) -> bool:
    try:
        rules.check(method, is_upgrade, headers_of(fields), principal)
    except Violation as violation:
        return violation.reason is not Reason.ORIGIN_FOREIGN
    return True


KNOWN = CsrfCors(PUBLIC, [APP])
UNKNOWN = CsrfCors(None)
HOST = ("Host", "gate.example")
LOCAL = ("Host", "127.0.0.1:8190")
CHECKS: list[tuple[str, CsrfCors, Fields, bool]] = [
    ("own page", KNOWN, [HOST, ("Origin", PUBLIC)], True),
    ("own page, whatever the tunnel made of Host", KNOWN, [LOCAL, ("Origin", PUBLIC)], True),
    ("welcome app", KNOWN, [HOST, ("Origin", APP)], True),
    ("on the machine itself", KNOWN, [LOCAL, ("Origin", "http://127.0.0.1:8190")], True),
    ("stranger", KNOWN, [HOST, ("Origin", "https://evil.example")], False),
    (
        "stranger's page that says it is ours",
        KNOWN,
        [HOST, ("Origin", "https://evil.example"), ("Sec-Fetch-Site", "same-origin")],
        False,
    ),
    ("sibling", KNOWN, [HOST, ("Origin", "https://x.gate.example")], False),
    ("longer name", KNOWN, [HOST, ("Origin", "https://gate.example.evil.example")], False),
    ("name at the end", KNOWN, [HOST, ("Origin", "https://evilgate.example")], False),
    ("with a user name", KNOWN, [HOST, ("Origin", "https://gate.example@evil.example")], False),
    ("plain HTTP of the same name", KNOWN, [HOST, ("Origin", "http://gate.example")], False),
    ("plain HTTP, port in Host", KNOWN, [("Host", "gate.example:443"), ("Origin", "http://gate.example")], False),
    ("plain HTTP, other port in Host", KNOWN, [("Host", "gate.example:80"), ("Origin", "http://gate.example")], False),
    ("another port of the name", KNOWN, [HOST, ("Origin", "https://gate.example:8443")], False),
    ("another port of the machine", KNOWN, [LOCAL, ("Origin", "http://127.0.0.1:8188")], False),
    ("null", KNOWN, [HOST, ("Origin", "null")], False),
    ("null from elsewhere", KNOWN, [HOST, ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")], False),
    ("null that the user did", KNOWN, [HOST, ("Origin", "null"), ("Sec-Fetch-Site", "none")], False),
    (
        "null from our page without referrers",
        KNOWN,
        [HOST, ("Origin", "null"), ("Sec-Fetch-Site", "same-origin")],
        True,
    ),
    ("empty", KNOWN, [HOST, ("Origin", "")], False),
    ("two origins", KNOWN, [HOST, ("Origin", PUBLIC), ("Origin", "https://evil.example")], False),
    ("a list of origins", KNOWN, [HOST, ("Origin", f"{PUBLIC} https://evil.example")], False),
    ("no scheme", KNOWN, [HOST, ("Origin", "gate.example")], False),
    ("file", KNOWN, [HOST, ("Origin", "file://")], False),
    ("extension", KNOWN, [HOST, ("Origin", "chrome-extension://gate.example")], False),
    ("nothing said", KNOWN, [HOST], False),
    ("no origin, same site", KNOWN, [HOST, ("Sec-Fetch-Site", "same-site")], False),
    ("no origin, cross site", KNOWN, [HOST, ("Sec-Fetch-Site", "cross-site")], False),
    ("no origin, nonsense", KNOWN, [HOST, ("Sec-Fetch-Site", "SAME-ORIGIN")], False),
    ("no origin, own page", KNOWN, [HOST, ("Sec-Fetch-Site", "same-origin")], True),
    ("no origin, the user", KNOWN, [HOST, ("Sec-Fetch-Site", "none")], True),
    ("two sites", KNOWN, [HOST, ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")], False),
    ("unknown address, http", UNKNOWN, [("Host", "gate.lan:8190"), ("Origin", "http://gate.lan:8190")], True),
    ("unknown address, https", UNKNOWN, [("Host", "gate.lan"), ("Origin", "https://gate.lan")], True),
    ("unknown address, upper case", UNKNOWN, [("Host", "Gate.LAN"), ("Origin", "https://gate.lan")], True),
    ("unknown address, port of the scheme", UNKNOWN, [("Host", "gate.lan:443"), ("Origin", "https://gate.lan")], True),
    ("unknown address, port of the other", UNKNOWN, [("Host", "gate.lan:80"), ("Origin", "https://gate.lan")], False),
    ("IPv6", UNKNOWN, [("Host", "[::1]:8190"), ("Origin", "http://[::1]:8190")], True),
    ("unknown address, stranger", UNKNOWN, [("Host", "gate.lan"), ("Origin", "https://evil.example")], False),
    ("unknown address, no host", UNKNOWN, [("Origin", "https://gate.lan")], False),
    ("unknown address, empty host", UNKNOWN, [("Host", ""), ("Origin", "https://")], False),
    ("two hosts", UNKNOWN, [("Host", "a"), ("Host", "gate.lan"), ("Origin", "https://gate.lan")], False),
]


@pytest.mark.parametrize(("rules", "fields", "expected"), [row[1:] for row in CHECKS], ids=[row[0] for row in CHECKS])
def test_a_session_must_come_from_a_known_page(rules: CsrfCors, fields: Fields, expected: bool) -> None:
    assert is_let_in(rules, fields) is expected
    assert is_let_in(rules, fields, method="GET", is_upgrade=True) is expected
    assert is_let_in(rules, fields, method="DELETE") is expected
    assert is_let_in(rules, fields, method="PROPFIND") is expected


FOREIGN: Fields = [HOST, ("Origin", "https://evil.example")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_changes_nothing(method: str) -> None:
    assert is_let_in(KNOWN, FOREIGN, method=method)


@pytest.mark.parametrize("credential", [("Authorization", "Bearer cg_x"), ("X-API-Key", "cg_x")])
def test_a_key_that_a_page_sends_itself_may_come_from_anywhere(credential: tuple[str, str]) -> None:
    assert is_let_in(KNOWN, [*FOREIGN, credential], principal=KEY)
    assert is_let_in(KNOWN, [HOST, credential], principal=KEY)


@pytest.mark.parametrize("credential", [("Cf-Access-Jwt-Assertion", "x"), ("Authorization", "bASIC OmNn")])
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], True),
        ([("Origin", PUBLIC)], True),
        ([("Origin", APP)], True),
        ([("Sec-Fetch-Site", "same-origin")], True),
        ([("Origin", "https://evil.example")], False),
        ([("Origin", "null")], False),
        ([("Sec-Fetch-Site", "cross-site")], False),
        ([("Sec-Fetch-Site", "same-site")], False),
    ],
)
def test_what_browsers_add_by_themselves_must_not_come_from_strangers(
    credential: tuple[str, str], more: Fields, expected: bool
) -> None:
    assert is_let_in(KNOWN, [HOST, credential, *more], principal=KEY) is expected
    assert is_let_in(KNOWN, [HOST, credential, *more], principal=KEY, method="GET", is_upgrade=True) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([HOST], True),
        ([HOST, ("Origin", PUBLIC)], True),
        ([HOST, ("Origin", APP)], False),
        ([HOST, ("Origin", "null")], False),
        ([HOST, ("Origin", "https://evil.example")], False),
        ([HOST, ("Sec-Fetch-Site", "cross-site")], False),
    ],
)
def test_form(fields: Fields, expected: bool) -> None:
    if expected:
        KNOWN.check_form(headers_of(fields))
        return
    with pytest.raises(Violation):
        KNOWN.check_form(headers_of(fields))


@pytest.mark.parametrize(
    ("configured", "sent"),
    [("https://Gate.Example:443", PUBLIC), ("http://gate.lan:80", "http://gate.lan"), ("http://a:81", "http://a:81")],
)
def test_configured_origins_are_read_as_browsers_write_them(configured: str, sent: str) -> None:
    assert is_let_in(CsrfCors(configured), [("Origin", sent)])
    assert is_let_in(CsrfCors(None, [configured]), [("Origin", sent)])


ASK = ("Access-Control-Request-Method", "POST")


def test_a_preflight_of_a_welcome_app_is_answered() -> None:
    reply = KNOWN.preflight("OPTIONS", headers_of([HOST, ("Origin", APP), ASK]))
    assert reply is not None
    answer = dict(reply.headers)
    assert (reply.status, reply.body) == (204, b"")
    assert answer["Access-Control-Allow-Origin"] == APP
    for name in ("Authorization", "X-API-Key", "Content-Type", "Comfy-User"):
        assert name in answer["Access-Control-Allow-Headers"].split(", ")
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert method in answer["Access-Control-Allow-Methods"].split(", ")
    assert answer["Vary"].startswith("Origin")
    assert "Access-Control-Allow-Credentials" not in answer


@pytest.mark.parametrize(
    ("rules", "method", "fields"),
    [
        (KNOWN, "OPTIONS", [("Origin", "https://evil.example"), ASK]),
        (KNOWN, "OPTIONS", [("Origin", "null"), ASK]),
        (KNOWN, "OPTIONS", [("Origin", PUBLIC), ASK]),
        (KNOWN, "OPTIONS", [("Origin", APP), ("Origin", APP), ASK]),
        (KNOWN, "OPTIONS", [("Origin", APP)]),
        (KNOWN, "OPTIONS", [ASK]),
        (KNOWN, "POST", [("Origin", APP), ASK]),
        (UNKNOWN, "OPTIONS", [("Origin", APP), ASK]),
    ],
)
def test_any_other_preflight_needs_a_credential(rules: CsrfCors, method: str, fields: Fields) -> None:
    assert rules.preflight(method, headers_of(fields)) is None


@pytest.mark.parametrize(
    ("rules", "fields", "origin", "varies"),
    [
        (KNOWN, [("Origin", APP)], APP, True),
        (KNOWN, [("Origin", "https://evil.example")], None, True),
        (KNOWN, [], None, True),
        (UNKNOWN, [("Origin", APP)], None, False),
    ],
)
def test_answers_can_be_read_by_welcome_apps_alone(
    rules: CsrfCors, fields: Fields, origin: str | None, varies: bool
) -> None:
    answer = dict(rules.cors_headers(headers_of(fields)))
    assert answer.get("Access-Control-Allow-Origin") == origin
    assert ("Vary" in answer) is varies
    assert "*" not in "".join(answer.values())
    assert "Access-Control-Allow-Credentials" not in answer
