"""Multipart bodies: parts, delimiters, preambles and padding, however the body is cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.violation import Reason, Violation
from proxy.http import multipart_upload
from proxy.http.multipart_part import MAX_PART_HEADER_BYTES, Part
from proxy.http.multipart_reader import MAX_PADDING_BYTES, MAX_PART_HEADERS, MAX_PREAMBLE_BYTES, MultipartReader
from tests.harness import Running
from tests.proxy.http.requests import made_request

PART = b'Content-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n'
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
PLAIN = b"--b\r\n" + PART + PNG + b"\r\n--b--\r\n"
BODIES = {
    "plain": PLAIN,
    "with a preamble": b"This is a message in several parts.\r\n" + PLAIN,
    "with an empty line": b"\r\n" + PLAIN,
    "padded": b"--b  \t\r\n" + PART + PNG + b"\r\n--b--\r\n",
    "padded, with a preamble": b"x\r\n--b \r\n" + PART + PNG + b"\r\n--b--\r\n",
    "with an epilogue": PLAIN + b"the end",
}


class Parts:
    """What a reader told: (name, file's name, content) of each part that ended."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str | None, bytes]] = []
        self._begun: list[Part] = []
        self._data = b""

    def part_begun(self, part: Part) -> None:
        self._begun.append(part)
        self._data = b""

    def part_data(self, data: bytes) -> None:
        assert data
        self._data += data

    def part_ended(self) -> None:
        part = self._begun[-1]
        self.ended.append((part.name, part.filename, self._data))


def read(
    body: bytes, sizes: Sequence[int] = (), boundary: bytes = b"b"
) -> tuple[list[tuple[str, str | None, bytes]], bool]:
    """The parts, and whether the closing delimiter came. sizes: of the pieces that the body comes in."""
    parts, at = Parts(), 0
    reader = MultipartReader(boundary, parts)
    for size in [*sizes, len(body)]:
        reader.feed(body[at : at + size])
        at += size
    return parts.ended, reader.is_ended


ONE = [("image", "x.png", PNG)]


@given(st.sampled_from(sorted(BODIES)), st.lists(st.integers(0, 9), max_size=60))
def test_cuts_change_nothing(name: str, sizes: list[int]) -> None:
    assert read(BODIES[name], sizes) == (ONE, True)


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=20))
def test_contents_pass_as_they_are(content: bytes, sizes: list[int]) -> None:
    content = content.replace(b"--b", b"__b")
    assert read(b"--b\r\n" + PART + content + b"\r\n--b--\r\n", sizes) == ([("image", "x.png", content)], True)


@given(
    st.lists(
        st.sampled_from([b"\r", b"\n", b"-", b"--", b"b", b"\r\n--b", b"\r\n--bb", b"--b--", b" ", b"x", b"\r\n"]),
        max_size=30,
    ),
    st.lists(st.integers(1, 9), max_size=60),
)
def test_what_looks_like_a_delimiter_is_read_alike_however_it_is_cut(pieces: list[bytes], sizes: list[int]) -> None:
    body = b"--b\r\n" + PART + b"".join(pieces)

    def told(sizes: Sequence[int]) -> object:
        try:
            return read(body, sizes)
        except Violation as violation:
            return violation.reason

    assert told(sizes) == told(())


def test_a_longer_text_is_no_delimiter() -> None:
    for text in (b"x\r\n--b y", b"x\r\n--b-", b"\r\n--b -- ", b"\r\n--bb--", b"--b--"):
        assert read(b"--b\r\n" + PART + text + b"\r\n--b--\r\n") == ([("image", "x.png", text)], True)


@pytest.mark.parametrize(
    "lookalike", [b"\r\n--bX", b"\r\n--b-", b"\r\n--b \t--", b"\r\n--b" + b" " * MAX_PADDING_BYTES + b"X"]
)
def test_what_looks_like_delimiters_passes_in_one_piece(lookalike: bytes) -> None:
    """Else a body of nothing but that costs a step, and a copy of the rest, for each."""

    class Counted(Parts):
        pieces = 0

        def part_data(self, data: bytes) -> None:
            super().part_data(data)
            self.pieces += 1

    parts, content = Counted(), b"x" + lookalike * (256 * 1024 // len(lookalike))
    MultipartReader(b"b", parts).feed(b"--b\r\n" + PART + content + b"\r\n--b--")
    assert parts.ended == [("image", "x.png", content)]
    assert parts.pieces == 1


def test_several_parts_and_an_empty_one() -> None:
    field = b'Content-Disposition: form-data; name="type"\r\n\r\n'
    body = b"--b\r\n" + field + b"input\r\n--b\r\n" + PART + b"\r\n--b\r\n" + field + b"\r\n--b--"
    assert read(body) == ([("type", None, b"input"), ("image", "x.png", b""), ("type", None, b"")], True)


def test_a_body_that_breaks_off_has_no_end() -> None:
    for cut in range(len(PLAIN) - 2):
        assert not read(PLAIN[:cut])[1]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"x" * (MAX_PREAMBLE_BYTES + 100), "before the first"),
        (b"--b" + b" " * (MAX_PADDING_BYTES + 1), "padding"),
        (b"--b\r\nX: " + b"x" * (MAX_PART_HEADER_BYTES + 1), "at most"),
        (b"--b\r\nX: " + b"x" * (MAX_PART_HEADER_BYTES + 1) + b"\r\n\r\n", "at most"),
        (b"--b\r\n" + b"X: 1\r\n" * (MAX_PART_HEADERS + 1) + b"\r\n", "at most"),
        (b"--b\r\n\r\nx\r\n--b--", "one Content-Disposition"),
        (b"--b\r\n" + PART.replace(b": ", b" : "), "header"),
        (b"--b\r\n" + b"X\r\n" + PART, "header"),
        (b"--b\r\n" + b": x\r\n" + PART, "header"),
        (b"--b\r\n" + b"X: a\rb\r\n" + PART, "header"),
        (b"--b\r\n" + b"X: a\nb\r\n" + PART, "header"),
        (b"--b\r\n" + b"X: a\x00b\r\n" + PART, "header"),
        (b"--b\r\n" + b"X: \xff\r\n" + PART, "UTF-8"),
    ],
)
def test_what_is_no_part_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(Violation) as refused:
        read(body)
    assert refused.value.reason is Reason.BODY_MALFORMED
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("multipart/form-data; boundary=b", b"b"),
        ('Multipart/Form-Data;charset=utf-8; Boundary="a b"', b"a b"),
        ("multipart/form-data; boundary=----x1 ; charset=utf-8", b"----x1"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ('multipart/form-data; boundary=""', None),
        ("multipart/form-data; boundary=a; boundary=b", None),
        ("multipart/form-data; boundary=a b", None),
        ("multipart/form-data; boundary=" + "a" * 201, None),
        ("multipart/mixed; boundary=b", None),
        ("", None),
    ],
)
def test_the_boundary_is_named_once(kind: str, expected: bytes | None) -> None:
    asked = made_request("POST", "/upload/image", Content_Type=kind)
    if expected is not None:
        assert multipart_upload.boundary_of(asked) == expected
        return
    with pytest.raises(Violation):
        multipart_upload.boundary_of(asked)


@pytest.mark.parametrize("name", BODIES)
async def test_uploads_are_taken(gate: Running, name: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await gate.json("POST", "/upload/image", "alice", data=BODIES[name], headers=headers)
    assert answer["type"] == "input", answer
    async with gate.call("GET", f"/view?type=input&filename={answer['name']}", "alice") as picture:
        assert await picture.read() == PNG


async def test_parts_may_have_many_headers(gate: Running) -> None:
    more = b"".join(b"X-%d: 1\r\n" % index for index in range(20))
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    body = PLAIN.replace(b"--b\r\n", b"--b\r\n" + more, 1)
    assert await gate.status("POST", "/upload/image", "alice", data=body, headers=headers) == 200
