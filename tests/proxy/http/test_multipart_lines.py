"""Preambles and padded delimiters, however the body is cut into chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.multipart_lines import MAX_PADDING_BYTES, MAX_PREAMBLE_BYTES, LineTidier
from tests.harness import Running

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


def tidied(body: bytes, sizes: list[int]) -> bytes:
    tidier, out, at = LineTidier(b"b"), b"", 0
    for size in [*sizes, len(body)]:
        out += tidier.feed(body[at : at + size])
        at += size
    return out + tidier.finish()


@given(st.sampled_from(sorted(BODIES)), st.lists(st.integers(0, 9), max_size=60))
def test_cuts_change_nothing(name: str, sizes: list[int]) -> None:
    assert tidied(BODIES[name], sizes).removesuffix(b"the end") == PLAIN


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=20))
def test_contents_pass_as_they_are(content: bytes, sizes: list[int]) -> None:
    body = b"--b\r\n" + PART + content.replace(b"--b", b"__b") + b"\r\n--b--\r\n"
    assert tidied(body, sizes) == body


def test_a_longer_text_is_no_padded_boundary() -> None:
    body = b"--b\r\n" + PART + b"x\r\n--b y\r\n--b--\r\n"
    assert tidied(body, []) == body


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="before the first"):
        LineTidier(b"b").feed(b"x" * (MAX_PREAMBLE_BYTES + 100))
    with pytest.raises(ValueError, match="padding"):
        LineTidier(b"b").feed(b"--b" + b" " * (MAX_PADDING_BYTES + 1))
    assert LineTidier(b"b").finish() == b""


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
