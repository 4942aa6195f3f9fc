"""Path patterns: what an operator may write, and what two patterns have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.path_patterns import Pattern, meet, parse_pattern, spellings
from policy.routes import Prefix, RouteTable
from tests.policy.custom_rows import route_at


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("/pack/list", ("pack", "list")),
        ("/pack/config.js", ("pack", "config.js")),
        ("/pack/{name}", ("pack", "{name}")),
        ("/pack/{name}/info", ("pack", "{name}", "info")),
        ("/pack/files/{file...}", ("pack", "files", "{file...}")),
        ("/api/pack/{id}", ("api", "pack", "{id}")),
        ("/cg-image-filter-message", ("cg-image-filter-message",)),
    ],
)
def test_a_path_is_read(text: str, pattern: Pattern) -> None:
    assert parse_pattern(text) == pattern


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pack/list", "from the root"),
        ("", "from the root"),
        ("/", "empty"),
        ("/pack/", "empty"),
        ("/pack//list", "empty"),
        ("/pack/../list", "'..'"),
        ("/pack/./list", "'.'"),
        ("/pack/.git", "hidden"),
        ("/pack/*", "{name...}"),
        ("/pack/a?", "{name...}"),
        ("/pack/[ab]", "{name...}"),
        ("/pack/a b", "no segment"),
        ("/pack/%2e", "no segment"),
        ("/pack/{Name}", "no segment"),
        ("/pack/{a}{b}", "no segment"),
        ("/pack/{file...}/info", "comes last"),
        ("/pack/{a}/{a}", "one name"),
        ("/{name}", "first segment"),
        ("/{name...}", "first segment"),
        ("/api", "first segment"),
        ("/api/{name}", "first segment"),
    ],
)
def test_what_is_no_path_is_told(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_pattern(text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other", "is_met"),
    [
        ("/pack/a", "/pack/a", True),
        ("/pack/a", "/pack/b", False),
        ("/pack/a", "/pack/a/b", False),
        ("/pack/{x}", "/pack/a", True),
        ("/pack/{x}/b", "/pack/a/{y}", True),
        ("/pack/{x}/b", "/pack/a/c", False),
        ("/pack/{x...}", "/pack/a/b/c", True),
        ("/pack/{x...}", "/pack/{y}", True),
        ("/pack/{x...}", "/pack/a/{y...}", True),
        ("/pack/a/{x...}", "/pack/a", False),
        ("/pack/{x...}", "/other/a", False),
    ],
)
def test_two_patterns_meet_where_some_path_is_of_both(one: str, other: str, is_met: bool) -> None:
    assert meet(parse_pattern(one), parse_pattern(other)) is is_met
    assert meet(parse_pattern(other), parse_pattern(one)) is is_met


def test_comfyui_doubles_a_route_under_api() -> None:
    assert spellings(("pack", "a"), is_doubled=True) == (("pack", "a"), ("api", "pack", "a"))
    assert spellings(("pack", "a"), is_doubled=False) == (("pack", "a"),)


segments = st.sampled_from(["a", "b", "{x}", "{y}"])
patterns = st.builds(
    lambda middle, end: ("pack", *middle, *end), st.lists(segments, max_size=3), st.sampled_from([(), ("{z...}",)])
)
paths = st.lists(st.sampled_from(["a", "b", "c"]), max_size=5).map(lambda parts: ("pack", *parts))


@given(patterns, patterns, paths)
def test_what_the_table_finds_by_two_patterns_they_have_in_common(one: Pattern, other: Pattern, path: Pattern) -> None:
    tables = [RouteTable((route_at("/" + "/".join(each), Prefix.BARE),)) for each in (one, other)]
    if all(table.match("GET", path) for table in tables):
        assert meet(one, other)
