from __future__ import annotations

from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from policy.call import MAX_QUERY_FIELDS, MAX_TARGET_BYTES, ClientCall, Opaque, UpstreamCall, parse_target
from policy.violation import Reason, Violation


def call_to(*segments: str, query: tuple[tuple[str, str], ...] = ()) -> UpstreamCall:
    return UpstreamCall("GET", tuple(map(Opaque, segments)), tuple((key, Opaque(value)) for key, value in query))


@pytest.mark.parametrize(
    ("raw", "segments", "query"),
    [
        ("/", (), ()),
        ("/prompt", ("prompt",), ()),
        ("/api/view?filename=a.png&type=input", ("api", "view"), (("filename", "a.png"), ("type", "input"))),
        ("/%70rompt", ("prompt",), ()),
        ("/userdata/workflows%2Fw%20x.json", ("userdata", "workflows/w x.json"), ()),
        ("/userdata/a%252Fb", ("userdata", "a%2Fb"), ()),
        ("/view?filename=a+b%2Bc", ("view",), (("filename", "a b+c"),)),
        ("/view?a=1&a=2&&b", ("view",), (("a", "1"), ("a", "2"), ("b", ""))),
        ("/view?a=b=c", ("view",), (("a", "b=c"),)),
        ("/view?", ("view",), ()),
        ("/view?x=%E6%97%A5", ("view",), (("x", "\u65e5"),)),
        ("/view?x=..%2F..", ("view",), (("x", "../.."),)),
        ("/view;x", ("view;x",), ()),
    ],
)
def test_targets_are_decoded_once(raw: str, segments: tuple[str, ...], query: tuple[tuple[str, str], ...]) -> None:
    assert parse_target(raw) == (segments, query)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [(raw, Reason.PATH_MALFORMED) for raw in ("", "prompt", "http://x/prompt", "*", "//prompt", "/prompt/", "/a//b", "/a#b", "/a b", "/\u00e9")]
    + [(raw, Reason.PATH_MALFORMED) for raw in ("/.", "/..", "/a/../b", "/a/%2e%2e/b", "/%2E", "/a/./b", "/a\\b", "/a%5Cb", "/a%0Ab", "/a\x00")]
    + [(raw, Reason.PATH_MALFORMED) for raw in ("/a%", "/a%2", "/a%zz", "/a%00", "/%ff", "/%c0%ae", "/%ed%a0%80", "/" + "a" * MAX_TARGET_BYTES)]
    + [(raw, Reason.QUERY_MALFORMED) for raw in ("/a?x=%", "/a?%zz=1", "/a?x=%00", "/a?x=%ff", "/a?" + "&".join("x" * (MAX_QUERY_FIELDS + 1)))],
)  # fmt: skip
def test_what_two_programs_could_read_in_two_ways_is_refused(raw: str, reason: Reason) -> None:
    with pytest.raises(Violation) as refused:
        parse_target(raw)
    assert refused.value.reason is reason


def test_the_first_of_several_fields_counts() -> None:
    call = ClientCall("GET", ("view",), (("type", "input"), ("type", "output")))
    assert call.first("type") == "input"
    assert call.first("none") is None
    assert call.first("none", "x") == "x"


def test_a_slash_in_a_segment_stays_in_it() -> None:
    call = call_to("userdata", "tenants/alice/a b.json", query=(("dir", "a/b&c=d+e#f"),))
    assert call.target == "/userdata/tenants%2Falice%2Fa%20b.json?dir=a/b%26c%3Dd%2Be%23f"


def test_a_percent_sign_is_quoted() -> None:
    assert call_to("a%2Fb", query=(("x", "100%"),)).target == "/a%252Fb?x=100%25"
    assert call_to().target == "/"


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@given(
    st.lists(TEXTS.filter(lambda text: text not in (".", "..") and "\\" not in text), max_size=4),
    st.lists(st.tuples(TEXTS, TEXTS), max_size=4),
)
def test_what_was_judged_is_what_is_sent(segments: list[str], query: list[tuple[str, str]]) -> None:
    target = call_to(*segments, query=tuple(query)).target
    assert target.isascii()
    assert parse_target(target) == (tuple(segments), tuple(query))
    # And what ComfyUI's server (aiohttp) makes of it.
    seen = URL(f"http://comfyui{target}", encoded=True)
    assert tuple(unquote(part) for part in seen.raw_path.split("/")[1:] if part) == tuple(segments)
    assert parse_qsl(seen.raw_query_string, keep_blank_values=True) == query
