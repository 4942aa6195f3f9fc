"""What a request presents: each place, each way to write it badly."""

from __future__ import annotations

import base64

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.auth.credentials import (
    MAX_CREDENTIAL_BYTES,
    AccessAssertion,
    ApiKey,
    Credential,
    SessionCookie,
    Token,
    read_credentials,
    session_cookie,
    without_tokens,
)
from proxy.http.errors import Unauthenticated

# None of them may reach ComfyUI or a log.
CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key", "cf-access-jwt-assertion", "cookie"})

KEY = "cg_0123abcd_" + "A" * 43
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"
COOKIE = "comfygate_session"
Fields = list[tuple[str, str]]
Query = tuple[tuple[str, str], ...]


def headers_of(fields: Fields) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(fields))


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


GOOD: list[tuple[str, Fields, Query, tuple[Credential, ...]]] = [
    ("nothing", [], (), ()),
    ("bearer key", [("Authorization", f"Bearer {KEY}")], (), (ApiKey(KEY),)),
    ("scheme in any case", [("authorization", f"bEARER {KEY}")], (), (ApiKey(KEY),)),
    ("basic with the key as user", [("Authorization", basic(f"{KEY}:"))], (), (ApiKey(KEY),)),
    ("basic with a key as user and a password", [("Authorization", basic(f"{KEY}:x"))], (), (ApiKey("x"),)),
    ("several spaces", [("Authorization", f"Bearer   {KEY}")], (), (ApiKey(KEY),)),
    ("bearer token", [("Authorization", f"Bearer {JWT}")], (), (Token(JWT),)),
    ("basic", [("Authorization", basic(f"me:{KEY}"))], (), (ApiKey(KEY),)),
    ("basic without a user", [("Authorization", basic(f":{KEY}"))], (), (ApiKey(KEY),)),
    ("basic in any case", [("Authorization", basic(f":{KEY}").replace("Basic", "basic"))], (), (ApiKey(KEY),)),
    ("the first colon counts", [("Authorization", basic("a:b:c"))], (), (ApiKey("b:c"),)),
    ("key header", [("X-API-Key", KEY)], (), (ApiKey(KEY),)),
    ("a token in the key header is no token", [("x-api-key", JWT)], (), (ApiKey(JWT),)),
    ("assertion", [("Cf-Access-Jwt-Assertion", JWT)], (), (AccessAssertion(JWT),)),
    ("token parameter with a key", [], (("token", KEY),), (ApiKey(KEY),)),
    ("token parameter with a token", [], (("x", "1"), ("token", JWT)), (Token(JWT),)),
    ("another parameter", [], (("Token", KEY), ("tokens", KEY)), ()),
    ("session", [("Cookie", f"a=b; {COOKIE}=1.ab; c=d")], (), (SessionCookie("1.ab"),)),
    ("session in a second field", [("Cookie", "a=b"), ("Cookie", f"{COOKIE}=1.ab")], (), (SessionCookie("1.ab"),)),
    ("the same session twice", [("Cookie", f"{COOKIE}=1.ab; {COOKIE}=1.ab")], (), (SessionCookie("1.ab"),)),
    ("two sessions", [("Cookie", f"{COOKIE}=1.ab; {COOKIE}=1.cd")], (), (SessionCookie(None),)),
    ("empty session", [("Cookie", f"{COOKIE}=")], (), (SessionCookie(None),)),
    ("huge session", [("Cookie", f"{COOKIE}={'a' * (MAX_CREDENTIAL_BYTES + 1)}")], (), (SessionCookie(None),)),
    ("non-ASCII session", [("Cookie", f"{COOKIE}=é")], (), (SessionCookie(None),)),
    ("other cookies", [("Cookie", f"CF_Authorization={JWT}; __Host-{COOKIE}=1.ab; {COOKIE}")], (), ()),
    (
        "all at once",
        [("Cookie", f"{COOKIE}=1.ab"), ("Authorization", f"Bearer {JWT}"), ("X-API-Key", KEY)],
        (("token", JWT),),
        (SessionCookie("1.ab"), Token(JWT), ApiKey(KEY), Token(JWT)),
    ),
]

ABSENT: list[tuple[str, Fields, Query]] = [
    ("empty field", [("Authorization", "")], ()),
    ("scheme alone", [("Authorization", "Bearer")], ()),
    ("empty bearer", [("Authorization", "Bearer ")], ()),
    ("empty basic", [("Authorization", "Basic ")], ()),
    ("basic of nobody", [("Authorization", basic(":"))], ()),
    ("empty key header", [("X-API-Key", "")], ()),
    ("empty token parameter", [], (("token", ""),)),
    ("two empty token parameters", [], (("token", ""), ("token", ""))),
]

BAD: list[tuple[str, Fields, Query]] = [
    ("two Authorization fields", [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")], ()),
    ("two in one field", [("Authorization", f"Bearer {KEY}, Bearer {KEY}")], ()),
    ("two words", [("Authorization", f"Bearer {KEY} {KEY}")], ()),
    ("no scheme", [("Authorization", KEY)], ()),
    ("unknown scheme", [("Authorization", f"Digest {KEY}")], ()),
    ("token scheme", [("Authorization", f"Token {KEY}")], ()),
    ("non-ASCII token", [("Authorization", "Bearer cg_é")], ()),
    ("surrogates as aiohttp decodes them", [("Authorization", "Bearer cg_\udcff")], ()),
    ("control character", [("Authorization", f"Bearer {KEY}\x00")], ()),
    ("tab", [("Authorization", f"Bearer\t{KEY}")], ()),
    ("quotes", [("Authorization", f'Bearer "{KEY}"')], ()),
    ("equals sign inside", [("Authorization", "Bearer a=b")], ()),
    ("over the size", [("Authorization", "Bearer " + "a" * (MAX_CREDENTIAL_BYTES + 1))], ()),
    ("basic without a colon", [("Authorization", basic(KEY))], ()),
    ("basic without a password", [("Authorization", basic("me:"))], ()),
    ("basic that is no base64", [("Authorization", "Basic !!!!")], ()),
    ("basic with spaces inside", [("Authorization", "Basic YTpi YTpi")], ()),
    ("basic with wrong padding", [("Authorization", "Basic YTp")], ()),
    ("basic that is not ASCII inside", [("Authorization", basic(":cg_é"))], ()),
    ("basic that is not ASCII outside", [("Authorization", "Basic é")], ()),
    ("basic with a space in the password", [("Authorization", basic(":a b"))], ()),
    ("basic over the size", [("Authorization", basic(":" + "a" * MAX_CREDENTIAL_BYTES))], ()),
    ("two key headers", [("X-API-Key", KEY), ("X-API-Key", KEY)], ()),
    ("non-ASCII key header", [("X-API-Key", "cg_é")], ()),
    ("huge key header", [("X-API-Key", "a" * (MAX_CREDENTIAL_BYTES + 1))], ()),
    ("empty assertion", [("Cf-Access-Jwt-Assertion", "")], ()),
    ("two assertions", [("Cf-Access-Jwt-Assertion", JWT), ("Cf-Access-Jwt-Assertion", JWT)], ()),
    ("two token parameters", [], (("token", KEY), ("token", KEY))),
    ("non-ASCII token parameter", [], (("token", "é"),)),
    ("token parameter with a space", [], (("token", "a b"),)),
    ("a bad one beside a good one", [("X-API-Key", KEY)], (("token", "a b"),)),
    ("an empty field and a full one", [("Authorization", ""), ("Authorization", f"Bearer {KEY}")], ()),
    ("unknown scheme alone", [("Authorization", "Negotiate")], ()),
    ("basic with a user that is no key", [("Authorization", basic("alice:"))], ()),
    ("basic with a key as user and a bad password", [("Authorization", basic(f"{KEY}:a b"))], ()),
    ("a path behind the key", [], (("token", f"{KEY}/prompt"),)),
    ("a path and a query behind the key", [], (("token", f"{KEY}/ws?clientId=x"),)),
    ("a bad field beside a good parameter", [("Authorization", "Negotiate abc")], (("token", KEY),)),
]


@pytest.mark.parametrize(("fields", "query", "expected"), [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_reads_every_credential(fields: Fields, query: Query, expected: tuple[Credential, ...]) -> None:
    assert read_credentials(headers_of(fields), query, COOKIE) == expected


@pytest.mark.parametrize(("fields", "query"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_refuses_what_is_malformed(fields: Fields, query: Query) -> None:
    with pytest.raises(Unauthenticated) as caught:
        read_credentials(headers_of(fields), query, COOKIE)
    assert caught.value.reason == "credential-malformed"
    for secret in (KEY, JWT, "é", "!!!!", "Negotiate"):
        assert secret not in caught.value.message


@pytest.mark.parametrize(("fields", "query"), [case[1:] for case in ABSENT], ids=[case[0] for case in ABSENT])
def test_empty_is_absent(fields: Fields, query: Query) -> None:
    assert read_credentials(headers_of(fields), query, COOKIE) == ()
    if fields != [("X-API-Key", "")]:
        assert read_credentials(headers_of([*fields, ("X-API-Key", KEY)]), query, COOKIE) == (ApiKey(KEY),)
    assert read_credentials(headers_of(fields), (*query, ("token", KEY)), COOKIE) == (ApiKey(KEY),)


def test_a_path_behind_the_key_is_told_apart() -> None:
    with pytest.raises(Unauthenticated, match="comfygate connect"):
        read_credentials(headers_of([]), (("token", f"{KEY}/prompt"),), COOKIE)


def test_credentials_do_not_show_in_logs() -> None:
    for credential in (ApiKey(KEY), Token(JWT), AccessAssertion(JWT), SessionCookie("1.ab")):
        assert KEY not in repr(credential)
        assert JWT not in repr(credential)
        assert "1.ab" not in repr(credential)


def test_session_cookie_is_found_alone() -> None:
    assert session_cookie(headers_of([]), COOKIE) is None
    assert session_cookie(headers_of([("Cookie", f"{COOKIE}=x")]), COOKIE) == SessionCookie("x")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ""),
        ("token=x", ""),
        ("a=1&token=x&b=2", "a=1&b=2"),
        ("token", ""),
        ("Token=x&%74oken=y&to%6Ben=z", ""),
        ("tokens=x&a=token", "tokens=x&a=token"),
        ("a=%20&b", "a=%20&b"),
    ],
)
def test_without_tokens_keeps_the_rest(query: str, expected: str) -> None:
    assert without_tokens(query) == expected


def test_names_every_header_that_is_read() -> None:
    for _, fields, _, expected in GOOD:
        if expected and fields:
            assert {name.lower() for name, _ in fields} <= CREDENTIAL_HEADERS
