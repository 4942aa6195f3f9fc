"""No file breaks a reader, however it was cut or changed: no exception, nothing beyond the file, nothing read without a bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policy.media.editing import MAX_PARTS, MAX_SPAN_BYTES, apply, size_after
from policy.media.formats import HEAD_BYTES, MediaEdits, own_workflow, without_workflow
from policy.media.streaming import EditedStream
from tests.policy.media.files import ALICE, REAL
from tests.policy.media.test_places import ROWS

# Where the heads are: a change there is more often one of the structure.
_PLACES = st.one_of(st.integers(0, 200), st.integers(0, 13_000))
_COUNTS = st.sampled_from([bytes(4), b"\xff" * 4, b"\0\0\0\x08", b"\x08\0\0\0", b"\0\0\0\x0c"])
_CHANGES = st.lists(st.tuples(_PLACES, st.integers(-9, 9), st.binary(min_size=1, max_size=9) | _COUNTS), max_size=6)
_FILES = {**REAL, **{name: data for name, data, _ in ROWS}}


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Bytes are others, or so many more or fewer than there were."""
    data = bytearray(_FILES[draw(st.sampled_from(sorted(_FILES)))])
    for place, fewer, new in draw(_CHANGES):
        data[place : place + max(0, len(new) + fewer)] = new
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def check(data: bytes, media: MediaEdits, *, in_order: bool) -> None:
    kept_from = reads = 0
    while (asked := media.asked) is not None:
        assert asked.offset >= 0
        assert 0 <= asked.size <= MAX_SPAN_BYTES
        assert asked.kept_from <= asked.offset
        if in_order:
            assert asked.kept_from >= kept_from
        before, kept_from, reads = len(media.edits), asked.kept_from, reads + 1
        media.give(data[asked.offset : asked.offset + asked.size])
        assert not in_order or all(edit.offset >= kept_from for edit in media.edits[before:])
    assert reads <= 3 * MAX_PARTS
    place = 0
    for edit in media.edits:
        assert edit.offset >= place
        place = edit.offset + edit.length
    assert place <= len(data)
    assert len(apply(data, media.edits)) == size_after(len(data), media.edits)


@given(damaged())
def test_damage_breaks_nothing_of_ones_own_workflow(data: bytes) -> None:
    media = own_workflow(len(data), ALICE)
    check(data, media, in_order=True)
    assert all(len(edit.replacement) == edit.length for edit in media.edits)


@given(damaged())
def test_damage_breaks_nothing_of_a_workflow_that_goes(data: bytes) -> None:
    check(data, without_workflow(len(data)), in_order=False)


@given(st.sampled_from(sorted({data[:HEAD_BYTES] for data in REAL.values()})), st.binary(max_size=400))
def test_anything_after_a_known_beginning(head: bytes, rest: bytes) -> None:
    data = head + rest
    check(data, own_workflow(len(data), ALICE), in_order=True)
    check(data, without_workflow(len(data)), in_order=False)


@given(damaged(), st.lists(st.integers(1, 5000), min_size=1, max_size=4))
def test_damage_in_pieces_is_the_same_as_whole(data: bytes, sizes: list[int]) -> None:
    whole = own_workflow(len(data), ALICE)
    check(data, whole, in_order=True)
    stream, made, place = EditedStream(own_workflow(len(data), ALICE)), b"", 0
    while place < len(data):
        size = sizes[place % len(sizes)]
        made += stream.feed(data[place : place + size])
        while stream.work_bytes:
            made += stream.work()
        place += size
    made += stream.end()
    while stream.work_bytes:
        made += stream.work()
    assert made == apply(data, whole.edits)
