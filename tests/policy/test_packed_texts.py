"""Texts that stand packed are what they were."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policy.packed_texts import BLOCK_BYTES, TextReader, pack

TEXTS = st.lists(
    st.tuples(st.text("abc", max_size=2), st.binary(max_size=40).map(lambda some: some * 400)), max_size=40
)


@given(TEXTS)
def test_each_is_read_as_it_was(texts: list[tuple[str, bytes]]) -> None:
    places, read = pack(iter(texts)), TextReader().read
    assert {name: place.text() for name, place in places.items()} == dict(texts)
    assert {name: read(places[name]) for name in reversed(list(places))} == dict(texts)
    assert list(places) == list(dict(texts))


def test_small_ones_share_a_block_and_a_large_one_closes_it() -> None:
    small = [(str(number), b"%d" % number) for number in range(100)]
    places = pack([*small, ("large", b"x" * BLOCK_BYTES), ("next", b"y")])
    assert len({place.block for name, place in places.items() if name != "next"}) == 1
    assert places["next"].block is not places["0"].block
    assert places["next"].text() == b"y"


def test_nothing_packs_to_nothing() -> None:
    assert pack([]) == {}
