"""Frames as RFC 6455 has them: what is read, whatever pieces it comes in, what is refused, and what is written."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.websocket_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameReader,
    Payload,
    Pieces,
    close_payload,
    frame_of,
    head_of,
    masked,
    may_be_sent,
    read_close,
    text_of,
)

MASK = b"\x37\xfa\x21\x3d"
LIMIT = 100_000
Read = list[tuple[int, bytes]]


def reader(*, is_masked: bool = False, max_bytes: int = LIMIT) -> FrameReader:
    return FrameReader(is_masked=is_masked, max_bytes=max_bytes)


def fed(of: FrameReader, *pieces: bytes) -> Read:
    found: Read = []
    for piece in pieces:
        of.feed(piece, lambda opcode, payload, frame: found.append((opcode, bytes(payload))))
    return found


def read(*pieces: bytes, is_masked: bool = False, max_bytes: int = LIMIT) -> Read:
    return fed(reader(is_masked=is_masked, max_bytes=max_bytes), *pieces)


def refused(data: bytes, *, is_masked: bool = False) -> tuple[int, str, Read]:
    """Code and reason, and what was read before."""
    before: Read = []
    with pytest.raises(FrameError) as caught:
        reader(is_masked=is_masked).feed(data, lambda opcode, payload, frame: before.append((opcode, bytes(payload))))
    return caught.value.code, caught.value.reason, before


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f" + (65536).to_bytes(8, "big")),
    ],
)
def test_heads_are_as_short_as_they_may_be(size: int, head: bytes) -> None:
    """RFC 6455, 5.2."""
    assert head_of(TEXT, size) == head
    assert read(head + b"x" * size) == [(TEXT, b"x" * size)]


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (b"\x81\x05Hello", (TEXT, b"Hello")),
        (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", (TEXT, b"Hello")),
        (b"\x01\x03Hel\x80\x02lo", (TEXT, b"Hello")),
        (b"\x89\x05Hello", (PING, b"Hello")),
        (b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", (PONG, b"Hello")),
        (b"\x82\x7e\x01\x00" + bytes(256), (BINARY, bytes(256))),
        (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65536), (BINARY, bytes(65536))),
    ],
)
def test_the_examples_of_the_rfc(frame: bytes, found: tuple[int, bytes]) -> None:
    """RFC 6455, 5.7."""
    assert read(frame, is_masked=b"\x37\xfa" in frame)[-1] == found


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 126, 127, 1023, 65535, 65536, 65537])
@pytest.mark.parametrize("is_masked", [True, False])
def test_what_is_written_is_read(size: int, is_masked: bool) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    payload = payload[:size]
    assert read(frame_of(BINARY, payload, MASK if is_masked else None), is_masked=is_masked) == [(BINARY, payload)]
    assert masked(masked(payload, MASK), MASK) == payload


def test_a_length_may_be_longer_than_it_need() -> None:
    """5.2 asks the sender for the shortest, and no receiver to refuse another."""
    assert read(b"\x81\x7e\x00\x01x", b"\x81\x7f" + bytes(7) + b"\x01y") == [(TEXT, b"x"), (TEXT, b"y")]


WRONG = [
    (b"\xc1\x00", "a reserved bit is set"),
    (b"\xa1\x00", "a reserved bit is set"),
    (b"\x91\x00", "a reserved bit is set"),
    *(
        (bytes((0x80 | opcode, 0)), f"the opcode {opcode} is reserved")
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ),
    (b"\x03\x00", "the opcode 3 is reserved"),
    (b"\x81\x80" + MASK, "a client masks its frames"),
    (b"\x89\x80" + MASK, "a client masks its frames"),
    (b"\x09\x00", "a control frame has at most"),
    (b"\x08\x00", "a control frame has at most"),
    (b"\x0a\x00", "a control frame has at most"),
    (b"\x89\x7e\x00\x7e" + b"x" * 126, "a control frame has at most"),
    (b"\x88\x7f" + bytes(8), "a control frame has at most"),
    (b"\x82\x7f\x80" + bytes(7), "highest bit"),
    (b"\x80\x01x", "continues nothing"),
    (b"\x00\x01x", "continues nothing"),
    (b"\x01\x01x\x81\x01y", "a message inside of another"),
    (b"\x01\x01x\x02\x01y", "a message inside of another"),
    (b"\x81\x00\x80\x00", "continues nothing"),
]


@pytest.mark.parametrize(("frame", "reason"), WRONG)
def test_what_breaks_the_protocol_is_a_1002(frame: bytes, reason: str) -> None:
    code, told, _ = refused(b"\x81\x01a" + frame)
    assert (code, reason in told) == (1002, True), told
    assert refused(b"\x81\x01a" + frame)[2][0] == (TEXT, b"a"), "what came before it counts"


def test_a_client_masks() -> None:
    assert refused(b"\x81\x01x", is_masked=True)[0] == 1002
    assert refused(b"\x8a\x00", is_masked=True)[0] == 1002


@pytest.mark.parametrize("is_masked", [True, False])
def test_a_message_is_bounded_over_all_its_fragments(is_masked: bool) -> None:
    def frames(*sizes: int) -> bytes:
        mask = MASK if is_masked else None
        parts = [frame_of(CONTINUATION if at else BINARY, b"x" * size, mask) for at, size in enumerate(sizes)]
        ends = len(parts) - 1
        return b"".join(part if at == ends else bytes((part[0] & 0x7F,)) + part[1:] for at, part in enumerate(parts))

    assert len(read(frames(60, 40), is_masked=is_masked, max_bytes=100)[-1][1]) == 100
    assert read(frames(100), is_masked=is_masked, max_bytes=100) == [(BINARY, b"x" * 100)]
    for sizes in ((101,), (60, 41), (100, 1), (50, 50, 1)):
        with pytest.raises(FrameError) as caught:
            read(frames(*sizes), is_masked=is_masked, max_bytes=100)
        assert caught.value.code == 1009


def test_a_length_over_the_bound_is_refused_before_its_bytes_come() -> None:
    assert refused(head_of(BINARY, LIMIT + 1))[0] == 1009


def test_control_frames_come_between_fragments() -> None:
    parts = (b"\x01\x01a", b"\x89\x01p", b"\x00\x01b", b"\x8a\x00", b"\x80\x01c", b"\x81\x01d")
    expected = [
        (CONTINUATION, b""),
        (PING, b"p"),
        (CONTINUATION, b""),
        (PONG, b""),
        (TEXT, b"abc"),
        (TEXT, b"d"),
    ]
    assert read(*parts) == read(b"".join(parts)) == expected
    full = FrameReader(is_masked=False, max_bytes=2)
    assert fed(full, b"\x01\x02ab\x89\x02pp\x80\x00")[-1] == (TEXT, b"ab"), "a ping is no part of the message"


messages = st.lists(
    st.tuples(
        st.sampled_from((TEXT, BINARY, PING, PONG, CLOSE)), st.one_of(st.binary(max_size=125), st.binary(max_size=3000))
    ).map(lambda pair: (pair[0], pair[1] if pair[0] < CLOSE else pair[1][:125])),
    max_size=8,
)


@given(messages=messages, cuts=st.lists(st.integers(0, 30_000), max_size=40), is_masked=st.booleans())
def test_it_is_the_same_whatever_pieces_it_comes_in(messages: Read, cuts: list[int], is_masked: bool) -> None:
    data = b"".join(frame_of(opcode, payload, MASK if is_masked else None) for opcode, payload in messages)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(places)]
    of = reader(is_masked=is_masked)
    assert fed(of, *pieces) == messages
    assert of.is_idle


@given(data=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=20), is_masked=st.booleans())
def test_any_bytes_are_read_or_refused_alike_in_any_pieces(data: bytes, cuts: list[int], is_masked: bool) -> None:
    def outcome(pieces: list[bytes]) -> tuple[Read, int | None]:
        of = reader(is_masked=is_masked, max_bytes=1000)
        found: Read = []
        try:
            for piece in pieces:
                of.feed(piece, lambda opcode, payload, frame: found.append((opcode, bytes(payload))))
        except FrameError as error:
            return found, error.code
        return found, None

    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    assert outcome([data[begin:end] for begin, end in pairwise(places)]) == outcome([data])


@pytest.mark.parametrize("is_masked", [True, False])
def test_byte_by_byte(is_masked: bool) -> None:
    payload = bytes(range(256)) * 20
    data = frame_of(BINARY, payload, MASK if is_masked else None) * 2
    of = reader(is_masked=is_masked)
    assert fed(of, *(data[at : at + 1] for at in range(len(data)))) == [(BINARY, payload)] * 2


def test_small_pieces_are_kept_together() -> None:
    """SECURITY: a client that sends two bytes at a time makes the gate hold its bytes, not an object for each two."""
    pieces = Pieces()
    for _ in range(5000):
        pieces.add(b"ab")
        pieces.add(b"")
    assert pieces.join() == b"ab" * 5000
    assert pieces.size == 10_000
    assert len(pieces._parts) <= 10


def test_a_small_end_of_a_large_read_does_not_keep_it_alive() -> None:
    of = reader()
    large = frame_of(BINARY, b"x" * 50_000)
    assert fed(of, large + b"\x82\x7dy") == [(BINARY, b"x" * 50_000)]
    assert of._partial is not None
    assert [type(part) for part in of._partial._parts] == [bytes]
    assert fed(of, b"y" * 124) == [(BINARY, b"y" * 125)]


@pytest.mark.parametrize("data", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"abc\xe2\x82"])
def test_a_text_is_utf8(data: bytes) -> None:
    """RFC 6455, 8.1, with RFC 3629: overlong forms, surrogates, more than U+10FFFF, a cut end."""
    with pytest.raises(FrameError) as caught:
        text_of(data)
    assert caught.value.code == 1007
    with pytest.raises(FrameError) as caught:
        read_close(b"\x03\xe8" + data)
    assert caught.value.code == 1007
    assert text_of("é\U0001f600".encode()) == "é\U0001f600"


MAY = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
MAY_NOT = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)


@pytest.mark.parametrize("code", MAY + MAY_NOT)
def test_codes_of_a_close(code: int) -> None:
    """RFC 6455, 7.4."""
    assert may_be_sent(code) is (code in MAY)
    if code in MAY:
        assert read_close(close_payload(code, "bye")) == (code, "bye")
    else:
        with pytest.raises(FrameError) as caught:
            read_close(code.to_bytes(2, "big"))
        assert caught.value.code == 1002


def test_a_close_may_have_no_code_but_no_half_of_one() -> None:
    assert read_close(b"") == (None, "")
    with pytest.raises(FrameError) as caught:
        read_close(b"\x03")
    assert caught.value.code == 1002


def test_a_reason_is_cut_to_what_a_frame_holds_and_stays_text() -> None:
    payload = close_payload(1000, "é" * 100)
    assert len(payload) <= 125
    assert read_close(payload) == (1000, "é" * 61)


@pytest.mark.parametrize("size", [10, 50_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_a_message_that_came_at_once_goes_on_as_it_came(opcode: int, size: int, count: int, kind: type) -> None:
    """And is no copy of a view."""
    of, frame = reader(), frame_of(opcode, b"x" * size)
    seen: list[tuple[Payload | None, type]] = []

    def take(opcode: int, payload: Payload, frame: Payload | None) -> None:
        seen.append((frame, type(payload)))

    of.feed(kind(frame * count), take)
    assert seen == [(frame, kind)] * count


def test_no_other_message_goes_on_as_it_came() -> None:
    """What comes in fragments, in pieces, masked; a control frame."""
    frame = frame_of(BINARY, b"x" * 50_000)
    of_client = frame_of(BINARY, b"x" * 50_000, MASK)
    for of, pieces in (
        (reader(), [frame[:1000], frame[1000:]]),
        (reader(), [b"\x01\x01a\x80\x01b"]),
        (reader(), [frame_of(PING, b"p")]),
        (reader(is_masked=True), [of_client]),
    ):
        seen: list[Payload | None] = []
        for piece in pieces:
            of.feed(piece, lambda opcode, payload, frame, seen=seen: seen.append(frame))  # type: ignore[misc]
        assert seen
        assert set(seen) == {None}
