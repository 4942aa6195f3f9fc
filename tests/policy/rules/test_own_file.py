"""Previews that packs make of a tenant's own files."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.rule_context import RuleContext
from policy.rules.own_file import OwnFile
from policy.violation import Reason, Violation
from tests.policy.tenants import Jobs, caller_of, is_refused, request_of

RULE = OwnFile({"format": ("folder",)})


def target(context: RuleContext | None = None, **query: Any) -> str:
    return RULE(request_of(context, segments=("vhs", "viewvideo"), query=query)).target


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ({"filename": "a.mp4"}, "filename=a.mp4&subfolder=tenants/alice&type=output"),
        ({"filename": "a.mp4", "type": "input"}, "filename=a.mp4&subfolder=tenants/alice&type=input"),
        ({"filename": "a.mp4 [temp]"}, "filename=a.mp4&subfolder=tenants/alice&type=temp"),
        ({"filename": "a.mp4", "subfolder": "x/"}, "filename=a.mp4&subfolder=tenants/alice/x&type=output"),
        ({"filename": "x/a.mp4", "type": "input"}, "filename=a.mp4&subfolder=tenants/alice/x&type=input"),
        ({"filename": "example.png", "type": "input"}, "filename=example.png&subfolder=&type=input"),
        (
            {"filename": "a.mp4", "subfolder": "tenants/bob"},
            "filename=a.mp4&subfolder=tenants/alice/tenants/bob&type=output",
        ),
        ({"filename": "a.mp4", "subfolder": "tenants/alice"}, "filename=a.mp4&subfolder=tenants/alice&type=output"),
        ({}, ""),
        ({"filename": "", "type": "path"}, ""),
    ],
)
def test_a_file_is_the_tenants_own(query: dict[str, Any], sent: str) -> None:
    assert target(**query) == "/vhs/viewvideo" + (f"?{sent}" if sent else "")


def test_a_call_says_which_file_it_reads() -> None:
    """Where there are several ComfyUIs it goes to the one that has it."""
    path = "tenants/alice/@gpu-2/a.mp4"
    assert RULE(request_of(query={"filename": "a.mp4", "subfolder": "@gpu-2"})).file == ("output", path)
    assert RULE(request_of()).file is None


def test_a_file_that_a_job_made_is_found() -> None:
    context = caller_of(jobs=Jobs(temp={"p_00001_.webm"}))
    assert target(context, filename="p_00001_.webm", type="temp").endswith(
        "filename=p_00001_.webm&subfolder=&type=temp"
    )


@pytest.mark.parametrize(
    ("query", "shared"),
    [
        ({"filename": "p_00001_.webm", "type": "temp"}, "p_00001_.webm"),
        ({"filename": "other.webm", "type": "temp"}, None),
        ({"type": "temp"}, None),
    ],
)
def test_a_temp_file_among_everybodys_is_told(query: dict[str, Any], shared: str | None) -> None:
    context = caller_of(jobs=Jobs(temp={"p_00001_.webm"}))
    assert RULE.shared(request_of(context, segments=("vhs", "viewvideo"), query=query)) == shared


@pytest.mark.parametrize(
    "query",
    [
        {"filename": "a.mp4", "type": "path"},
        {"filename": "http://host/a.mp4"},
        {"filename": "a://b"},
        {"filename": "//host/a.mp4"},
        {"filename": "/etc/a.mp4"},
        {"filename": "C:\\a.mp4"},
        {"filename": "../a.mp4"},
        {"filename": "a.mp4", "subfolder": "../bob"},
        {"filename": "a.mp4[output]"},
        {"filename": "a.mp4 [output]/"},
        {"filename": "x/a.mp4 [output]/./"},
    ],
)
def test_nothing_else_is_named(query: dict[str, Any]) -> None:
    assert is_refused(lambda: target(**query), reason=Reason.NAME_REFUSED)


@pytest.mark.parametrize("value", ["tenants/bob/a.mp4", "x/Tenants/bob", "tenants", "tenants//bob"])
def test_no_other_field_names_a_file_of_a_neighbour(value: str) -> None:
    """Packs may read a second file, by a field of their own."""
    assert is_refused(lambda: target(filename="a.mp4", audio=value), reason=Reason.QUERY_MALFORMED)


@pytest.mark.parametrize(
    "value", ["8", "-1", "0.5", "24.000", "Disabled", "?x512", "512x512", "video/h264-mp4", "good", "", "true", "-1.5"]
)
def test_numbers_and_words_go_on(value: str) -> None:
    assert f"rate={value}".replace("?", "%3F") in target(filename="a.mp4", rate=value)


@pytest.mark.parametrize(
    "value",
    [
        "a=b",
        "a,b",
        "a:b",
        "a'b",
        "a b",
        "a\\b",
        "[a]",
        "a;b",
        "-i",
        "/etc/x",
        "../x",
        "a..b",
        "x" * 65,
        "1e400000000000=",
        "é",
    ],
)
def test_a_field_that_could_be_more_than_a_number_or_a_word_is_refused(value: str) -> None:
    assert is_refused(lambda: target(filename="a.mp4", rate=value), reason=Reason.QUERY_MALFORMED)
    named: dict[str, Any] = {value: "1"}
    assert is_refused(lambda: target(filename="a.mp4", **named), reason=Reason.QUERY_MALFORMED)


def test_what_the_row_does_not_take_is_refused() -> None:
    assert is_refused(lambda: target(filename="a.mp4", format="folder"), reason=Reason.QUERY_MALFORMED)
    assert target(filename="a.mp4", format="video")


def test_of_a_field_that_comes_twice_the_first_counts() -> None:
    request = request_of(segments=("vhs", "viewvideo"))
    twice = (("filename", "a.mp4"), ("filename", "b.mp4"), ("rate", "1"), ("rate", "x=y"))
    call = type(request.call)(request.call.method, request.call.segments, twice)
    sent = RULE(type(request)(call, request.context)).target
    assert sent.endswith("?filename=a.mp4&subfolder=tenants/alice&type=output&rate=1")


@given(st.dictionaries(st.sampled_from(["filename", "subfolder", "type", "rate"]), st.text(max_size=12)))
def test_whatever_is_sent_stays_in_the_tenants_folder(query: dict[str, Any]) -> None:
    request = request_of(segments=("vhs", "viewvideo"), query=query)
    try:
        call = RULE(request)
    except Violation:
        return
    sent = dict(call.query)
    if "filename" in sent:
        assert (
            sent["subfolder"] == "tenants/alice"
            or sent["subfolder"].startswith("tenants/alice/")
            or sent["type"] == "input"
        )
        assert "/" not in sent["filename"]
