"""Which coding a client gets, and what validates it."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from proxy.http.codecs import CODINGS
from proxy.http.content_coding import IDENTITY, CodedDocument, _liked, choose


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, br", "br"),
        ("gzip", "gzip"),
        ("GZIP;Q=0.5", "gzip"),
        ("zstd;q=0.1, br;q=0.5, gzip;q=0.9", "gzip"),
        ("*", "zstd"),
        ("*;q=0.5, zstd;q=0", "br"),
        ("br; q=1.0", "br"),
        ("", IDENTITY),
        ("deflate", IDENTITY),
        ("xgzip", IDENTITY),
        ("gzip;q=0, br;q=0.0, zstd;q=0.000", IDENTITY),
        ("*;q=0", IDENTITY),
        ("gzip;q=none", IDENTITY),
        (";;=,,", IDENTITY),
    ],
)
def test_the_coding_that_the_client_likes_best(accepted: str, coding: str) -> None:
    assert choose(accepted, CODINGS) == coding


def test_only_usual_fields_are_remembered() -> None:
    known = _liked.cache_info().currsize
    assert [choose("gzip," * 100 + f"x{number}", CODINGS) for number in range(3)] == ["gzip"] * 3
    assert _liked.cache_info().currsize == known
    assert _liked.cache_info().maxsize is not None


def test_only_what_is_there_is_chosen() -> None:
    assert choose("zstd, br, gzip", {"gzip"}) == "gzip"
    assert choose("zstd", {"gzip"}) == IDENTITY


def select(document: CodedDocument, accepted: str, tags: str = "") -> tuple[bytes, str, bool] | None:
    selected = document.select(CIMultiDict({"Accept-Encoding": accepted, "If-None-Match": tags}))
    return None if selected is None else (selected.body, selected.etag, selected.is_unchanged)


def test_each_form_has_a_strong_validator_of_its_own() -> None:
    document = CodedDocument("1", {"gzip": b"zipped", "br": b"short"})
    zipped, short = select(document, "gzip"), select(document, "br")
    assert zipped is not None
    assert short is not None
    assert zipped[1] != short[1]
    assert not zipped[1].startswith("W/")
    assert select(document, "gzip", zipped[1]) == (b"", zipped[1], True)
    assert select(document, "gzip", f'"x", W/{short[1]}') == (b"", short[1], True), "the content is the same"
    assert select(document, "gzip", '"x"') == zipped


def test_a_smaller_form_leaves_the_validators_that_were_given_out() -> None:
    document = CodedDocument("1", {"gzip": b"zipped"})
    before = select(document, "gzip")
    document.add("gzip", b"zip")
    after = select(document, "gzip")
    assert before is not None
    assert after is not None
    assert (after[0], after[1] == before[1]) == (b"zip", False)
    assert select(document, "gzip", before[1]) == (b"", before[1], True)


def test_what_the_client_does_not_take_is_not_sent() -> None:
    document = CodedDocument("1", {"gzip": b"zipped"})
    assert select(document, "") is None
    assert select(document, "identity", "*") is None
    assert select(document, "gzip", "*") is not None
