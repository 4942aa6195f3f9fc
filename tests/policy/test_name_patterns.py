from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.name_patterns import NamePatterns, compile_patterns, is_glob

PRESETS = {"core": frozenset({"KSampler", "VAEDecode"})}


@pytest.mark.parametrize(
    ("entries", "name", "is_listed"),
    [
        (["KSampler"], "KSampler", True),
        (["KSampler"], "ksampler", False),
        (["KSampler"], "KSampler ", False),
        (["KSampler"], " KSampler", False),
        (["KSampler"], "KSampler\n", False),
        (["KSampler"], "KS\u0430mpler", False),
        (["KSampler"], "\uff2bSampler", False),
        (["Café"], "Cafe\u0301", False),
        (["CLIPText*"], "CLIPTextEncode", True),
        (["CLIPText*"], "CLIPText", True),
        (["CLIPText*"], "XCLIPText", False),
        (["CLIPText*"], "CLIPText\nx", True),
        (["*Image"], "SaveImage", True),
        (["*Image"], "SaveImages", False),
        (["*a*b*"], "xxaxxbxx", True),
        (["*a*b*"], "xxbxxaxx", False),
        (["*aab"], "aaab", True),
        (["a*ab*b"], "ab", False),
        (["Save?mage"], "SaveImage", True),
        (["Save?mage"], "Savemage", False),
        (["*"], "", True),
        (["**"], "x", True),
        (["Odd [x]"], "Odd [x]", True),
        (["Odd [x]"], "Odd x", False),
        (["[x]*"], "[x]y", True),
        (["[x]*"], "xy", False),
        (["*[!a-z]"], "q[!a-z]", True),
        (["*[!a-z]"], "q0", False),
        (["[*"], "[a", True),
        (["*]"], "a]", True),
        (["Is It?"], "Is It?", True),
        (["a.b"], "axb", False),
        (["@core"], "KSampler", True),
        (["@core", "X*"], "Xa", True),
        (["@core"], "@core", False),
        ([], "KSampler", False),
    ],
)
def test_names_match_exactly_or_by_glob(entries: list[str], name: str, is_listed: bool) -> None:
    assert compile_patterns(entries, PRESETS).has(name) is is_listed


@pytest.mark.parametrize(("entries", "message"), [(["@nope"], "known are @core"), ([""], "empty")])
def test_entries_without_meaning_are_errors(entries: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_patterns(entries, PRESETS)


def test_an_unknown_preset_is_an_error_when_there_are_none() -> None:
    with pytest.raises(ValueError, match="known are none"):
        compile_patterns(["@core"], {})


def test_a_name_with_an_at_sign_is_a_name_where_there_are_no_presets() -> None:
    assert compile_patterns(["@core"]) == NamePatterns(frozenset({"@core"}))


def test_globs_are_told_from_names() -> None:
    assert [is_glob(text) for text in ("a", "a*", "a?", "[a]")] == [False, True, True, False]


@pytest.mark.parametrize("glob", ["*a*b", "*a*b*c", "x*a?*b*c*"])
def test_globs_never_look_back(glob: str) -> None:
    """Each part between two stars stands in an atomic group of its own."""
    names = compile_patterns([glob])
    assert names.pattern is not None
    assert names.pattern.pattern.count("(?>") == glob.count("*") - 1
    assert names.has(glob.replace("*", "aa").replace("?", "q"))
    assert not names.has("a" * 200 + "d")


@given(st.text("ab*?[]!-", min_size=1, max_size=12), st.text("abc[]!-", max_size=12))
def test_globs_mean_what_they_say(glob: str, name: str) -> None:
    plain = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in glob)
    has = glob == name or (is_glob(glob) and re.fullmatch(plain, name, re.DOTALL) is not None)
    assert compile_patterns([glob]).has(name) == has
