"""Which fields cross the gate: a list of the permitted upstream, everything but the hop-by-hop and the revealing to clients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http.headers import HOP_BY_HOP, _named_by, connection_named, merge_vary, to_client, to_upstream
from tests.proxy.auth.test_credentials import CREDENTIAL_HEADERS

NAMES = st.sampled_from(
    [
        *sorted(HOP_BY_HOP),
        *sorted(CREDENTIAL_HEADERS),
        "Accept",
        "RANGE",
        "Content-Type",
        "content-length",
        "X-Forwarded-For",
        "X_Forwarded_For",
        "Cf-Connecting-IP",
        "Cf-Access-Client-Secret",
        "comfy-user",
        "Origin",
        "Referer",
        "Sec-Fetch-Site",
        "Sec-Fetch-Dest",
        "Host",
        "Set-Cookie",
        "ETag",
        "Vary",
    ]
)
FIELDS = st.lists(st.tuples(NAMES, st.text("abc,: =", max_size=12)), max_size=12)
NEVER = (
    "Authorization",
    "X-API-Key",
    "Cookie",
    "Cf-Access-Jwt-Assertion",
    "Cf-Connecting-IP",
    "Cf-Ray",
    "X-Forwarded-For",
    "X_Forwarded_For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Uri",
    "X-Original-URL",
    "X-HTTP-Method-Override",
    "Forwarded",
    "Via",
    "X-Real-IP",
    "Comfy-User",
    "Origin",
    "Referer",
    "Sec-Fetch-Site",
    "Sec-Fetch-Mode",
    "Host",
    "Expect",
    *sorted(HOP_BY_HOP),
)


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
def test_never_reaches_the_upstream(name: str, spelling: object) -> None:
    fields = CIMultiDict({spelling(name): "x", "Accept": "*/*"})  # type: ignore[operator]
    assert dict(to_upstream(fields, with_body=True)) == {"Accept": "*/*"}


def test_keeps_what_a_request_means() -> None:
    fields = CIMultiDict(
        {
            "Accept": "image/*",
            "Accept-Encoding": "br",
            "Range": "bytes=0-1",
            "If-None-Match": '"a"',
            "If-Range": '"a"',
            "Sec-Fetch-Dest": "image",
            "User-Agent": "curl",
        }
    )
    assert to_upstream(fields, with_body=False) == fields


def test_describes_a_body_only_where_one_goes_on() -> None:
    fields = CIMultiDict({"Content-Type": "image/png", "Content-Length": "3", "Content-Encoding": "gzip"})
    assert to_upstream(fields, with_body=True) == fields
    assert not to_upstream(fields, with_body=False)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["close"], {"close"}),
        (["keep-alive, X-Secret", " x-other ,"], {"keep-alive", "x-secret", "x-other"}),
        ([], set()),
        (["", ","], set()),
    ],
)
def test_connection_names_fields(values: list[str], expected: set[str]) -> None:
    fields = CIMultiDict([("Connection", value) for value in values])
    assert connection_named(CIMultiDictProxy(fields)) == expected


def test_of_long_fields_nothing_is_kept() -> None:
    names = [f"name-{number}" for number in range(2000)]
    fields = CIMultiDict([("Connection", ",".join(names)), ("Name-7", "x"), ("Accept", "*/*")])
    before = _named_by.cache_info()
    assert connection_named(fields) == frozenset(names)
    assert list(to_upstream(fields, with_body=False)) == ["Accept"]
    assert _named_by.cache_info() == before
    assert before.maxsize is not None


def test_fields_that_connection_names_stay_behind_both_ways() -> None:
    fields = CIMultiDict([("Connection", "Range, etag"), ("Range", "bytes=0-1"), ("ETag", '"a"'), ("Accept", "*/*")])
    assert dict(to_upstream(fields, with_body=True)) == {"Accept": "*/*"}
    assert dict(to_client(fields)) == {"Accept": "*/*"}


@pytest.mark.parametrize("name", ["Range", "Content-Type", "If-Range", "User-Agent", "Sec-Fetch-Dest"])
@pytest.mark.parametrize("count", [2, 3])
def test_a_repeated_field_is_dropped_whole(name: str, count: int) -> None:
    fields = CIMultiDict([(name, f"value {index}") for index in range(count)])
    assert not to_upstream(fields, with_body=True)


@pytest.mark.parametrize("name", ["Accept", "Accept-Encoding", "If-None-Match"])
def test_a_repeated_list_is_joined_in_order(name: str) -> None:
    fields = CIMultiDict([(name, "a"), ("Range", "bytes=1-"), (name.lower(), "b"), (name.upper(), "c")])
    kept = to_upstream(fields, with_body=False)
    assert kept.getall(name) == ["a, b, c"]
    assert kept["Range"] == "bytes=1-"


@pytest.mark.parametrize(
    "name",
    [
        *sorted(HOP_BY_HOP),
        "Server",
        "Date",
        "Set-Cookie",
        "Alt-Svc",
        "Strict-Transport-Security",
        "Access-Control-Allow-Origin",
        "Access-Control-Allow-Credentials",
    ],
)
def test_never_reaches_the_client(name: str) -> None:
    fields = CIMultiDict([(name, "x"), ("ETag", '"a"'), (name.upper(), "y")])
    assert dict(to_client(fields)) == {"ETag": '"a"'}


def test_repeated_fields_of_an_answer_are_kept() -> None:
    assert to_client(CIMultiDict([("Link", "a"), ("Link", "b")])).getall("Link") == ["a", "b"]


@given(FIELDS, st.booleans())
def test_forwarding_twice_changes_nothing_more(fields: list[tuple[str, str]], with_body: bool) -> None:
    once = to_upstream(CIMultiDict(fields), with_body=with_body)
    assert to_upstream(once, with_body=with_body) == once
    answer = to_client(CIMultiDict(fields))
    assert to_client(answer) == answer


@given(FIELDS)
def test_every_field_goes_up_once_at_most(fields: list[tuple[str, str]]) -> None:
    kept = to_upstream(CIMultiDict(fields), with_body=True)
    assert len(kept) == len({name.lower() for name in kept})
    assert not {name.lower() for name in kept} & (HOP_BY_HOP | CREDENTIAL_HEADERS)


@pytest.mark.parametrize(
    ("before", "names", "after"),
    [
        ([], ("Cookie",), "Cookie"),
        (["Accept-Encoding"], ("Cookie", "accept-encoding"), "Accept-Encoding, Cookie"),
        (["Origin, Cookie", "Accept"], ("cookie",), "Origin, Cookie, Accept"),
    ],
)
def test_vary_is_merged(before: list[str], names: tuple[str, ...], after: str) -> None:
    fields = CIMultiDict([("Vary", value) for value in before])
    merge_vary(fields, names)
    assert fields.getall("Vary") == [after]
