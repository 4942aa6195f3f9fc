from __future__ import annotations

import pytest

from policy.call import ClientCall
from policy.idempotency import fingerprint, is_decided, is_decision, parse_key
from policy.violation import Reason, Violation

CALL = ClientCall("POST", ("prompt",))


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('"a"', "a"),
        ("a", "a"),
        ('  "a b" ', "a b"),
        (r'"say \"a\\b\""', r'say "a\b"'),
        ('"a";v=1', "a"),
        ('"a" ; v', "a"),
        ("a;v=1", "a;v=1"),
        ('a"b"', 'a"b"'),
        ("x" * 255, "x" * 255),
        ('"' + "x" * 255 + '"', "x" * 255),
        ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
    ],
)
def test_a_key_is_a_quoted_string_or_the_same_text_bare(line: str, key: str) -> None:
    assert parse_key([line]) == key


@pytest.mark.parametrize(
    "lines",
    [
        *([""], ["  "], ['""'], ["x" * 256], ['"' + "x" * 256 + '"'], ["é"], ['"é"'], ["a\tb"], ["a\x7f"], ["\udce9"]),
        *(['"a'], ['"a"b'], ['"a", "b"'], [r'"\a"'], ["a", "a"], []),
    ],
)
def test_what_is_no_key_is_refused_with_a_sentence(lines: list[str]) -> None:
    with pytest.raises(Violation, match="1 to 255 printable ASCII") as refused:
        parse_key(lines)
    assert refused.value.reason is Reason.HEADER_MALFORMED


def test_whatever_differs_is_another_request() -> None:
    marks = {
        fingerprint(CALL, b"{}"),
        fingerprint(CALL, b"{ }"),
        fingerprint(CALL, b""),
        fingerprint(ClientCall("POST", ("prompt",), (("a", "b"),)), b"{}"),
        fingerprint(ClientCall("POST", ("prompt", "x")), b"{}"),
    }
    assert len(marks) == 5
    assert {len(mark) for mark in marks} == {32}
    assert fingerprint(ClientCall("POST", ("prompt",)), b"{}") in marks


def test_only_what_the_document_says_is_decided_for_good() -> None:
    assert is_decision(Violation(Reason.POLICY_VIOLATION, "No."))
    assert is_decision(Violation(Reason.WORKFLOW_MALFORMED, "No.", general=(("ui-format", "No."),)))
    assert not is_decision(Violation(Reason.POLICY_VIOLATION, "Not yet.", general=(("catalogue-unknown", "Not yet."),)))
    passing = (Reason.PROMPT_ID_TAKEN, Reason.STORAGE_FULL, Reason.CREDENTIAL_MISPLACED, Reason.BODY_TOO_LARGE)
    assert not any(is_decision(Violation(reason, "No.")) for reason in passing)
    assert [status for status in (200, 400, 401, 403, 413, 422, 429, 500, 503) if is_decided(status)] == [200, 400, 422]
