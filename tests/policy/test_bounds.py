"""What bounds the policy itself: long paths, long messages, JSON that no strict parser reads."""

from __future__ import annotations

from typing import Any

import pytest

from policy.document import read_upstream_json
from policy.namespace import MAX_SEGMENTS, Namespace, is_path
from policy.passed_calls import unchanged
from policy.principal import TenantId
from policy.rules.results import MAX_MESSAGE_LENGTH, scrub_text
from tests.policy.tenants import request_of


def test_paths_have_so_many_segments_at_most() -> None:
    assert is_path("/".join("a" * MAX_SEGMENTS))
    assert not is_path("/".join("a" * (MAX_SEGMENTS + 1)))


def test_messages_have_so_many_characters_at_most() -> None:
    names = Namespace(TenantId("alice"))
    assert scrub_text("a" * MAX_MESSAGE_LENGTH, names) == "a" * MAX_MESSAGE_LENGTH
    assert scrub_text("a" * (MAX_MESSAGE_LENGTH + 1), names) == "a" * MAX_MESSAGE_LENGTH + "…"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'{"a": NaN, "b": 123456789012345678901, "c": 1.5, "d": 1e999, "e": 7}', {"a": None, "b": 123456789012345678901.0, "c": 1.5, "d": None, "e": 7}),
        (b'{"a": "x\\ud800y"}', {"a": "x?y"}),
        (b"oops", None),
    ],
)  # fmt: skip
def test_what_no_strict_parser_reads_is_read_all_the_same(text: bytes, value: Any) -> None:
    assert read_upstream_json(text) == value


def test_a_call_that_passes_unchanged_keeps_path_and_query() -> None:
    call = unchanged(request_of(segments=("models", "a b"), query={"x": "1 2"}))
    assert (call.method, call.segments, call.query) == ("GET", ("models", "a b"), (("x", "1 2"),))
