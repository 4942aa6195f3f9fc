"""The head of an answer: one line for each field, whatever its value is."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http import response_head
from proxy.http.response_head import has_body, head_bytes, length_line


def lines_of(head: bytes) -> list[bytes]:
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (200, "", b"HTTP/1.1 200 OK"),
        (404, "", b"HTTP/1.1 404 Not Found"),
        (400, "This name is too long.", b"HTTP/1.1 400 This name is too long."),
        (299, "", b"HTTP/1.1 299 "),
        (599, "", b"HTTP/1.1 599 "),
        (101, "", b"HTTP/1.1 101 Switching Protocols"),
    ],
)
def test_the_status_line(status: int, reason: str, expected: bytes) -> None:
    """RFC 9112, 4: the space stands there without a reason too."""
    assert lines_of(head_bytes(status, reason, ()))[0] == expected


def test_the_fields_stand_in_their_order_and_then_the_date() -> None:
    fields = (("X-A", "1"), ("Set-Cookie", "a"), ("Set-Cookie", "b"), ("X-Empty", ""))
    *told, date, length = lines_of(head_bytes(200, "", fields, length_line(12)))
    assert told == [b"HTTP/1.1 200 OK", b"X-A: 1", b"Set-Cookie: a", b"Set-Cookie: b", b"X-Empty: "]
    assert length == b"Content-Length: 12"
    assert date.startswith(b"Date: ")
    assert date.endswith(b" GMT")


def test_the_date_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    for now_s in (1_000_000.2, 1_000_000.9, 1_000_001.0):
        monkeypatch.setattr(response_head, "time", SimpleNamespace(time=lambda now_s=now_s: now_s))
        date = lines_of(head_bytes(200, "", ()))[1].removeprefix(b"Date: ").decode()
        assert parsedate_to_datetime(date).timestamp() == int(now_s)
    monkeypatch.undo()
    date = lines_of(head_bytes(200, "", ()))[1].removeprefix(b"Date: ").decode()
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 60


@pytest.mark.parametrize("value", ["é", "\udcff", "a\tb", "日本"])
def test_values_leave_as_the_bytes_they_came_as(value: str) -> None:
    expected = b"X-A: " + value.encode("utf-8", "surrogateescape")
    assert expected in lines_of(head_bytes(200, "", (("X-A", value),)))


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\n\r\n", "\n\r"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_field_never_ends_its_line(end: str, at: int) -> None:
    value = "ab"[:at] + end + "ab"[at:]
    for field in (("X-A", value), (value, "a")):
        with pytest.raises(ValueError, match="end of a line"):
            head_bytes(200, "", (("X-First", "1"), field))


@given(st.lists(st.tuples(st.text(min_size=1), st.text())))
def test_there_are_as_many_lines_as_fields_or_none(fields: list[tuple[str, str]]) -> None:
    try:
        head = head_bytes(200, "", fields)
    except ValueError:
        assert any(end in part for field in fields for part in field for end in "\r\n")
        return
    assert head.count(b"\n") == head.count(b"\r") == len(fields) + 3


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        ("GET", 200, True),
        ("GET", 206, True),
        ("GET", 404, True),
        ("POST", 500, True),
        ("HEAD", 200, False),
        ("HEAD", 404, False),
        ("GET", 100, False),
        ("GET", 101, False),
        ("GET", 204, False),
        ("GET", 304, False),
    ],
)
def test_which_answers_have_a_body(method: str, status: int, expected: bool) -> None:
    assert has_body(method, status) is expected
