from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.graph import find_cycle, measure_depth


def test_chains_are_measured() -> None:
    assert measure_depth({}) == (0, frozenset())
    assert measure_depth({"a": []}) == (1, frozenset())
    assert measure_depth({"c": ["b", "a"], "b": ["a"], "a": []}) == (3, frozenset())
    assert measure_depth({"a": ["x", "x"]}) == (1, frozenset())
    assert measure_depth({"d": ["b", "c"], "b": ["a"], "c": ["b", "b"], "a": []}) == (4, frozenset())


def test_long_chains_need_no_stack() -> None:
    chain = {str(index): [str(index + 1)] for index in range(50_000)}
    assert measure_depth(chain)[0] == 50_000


def test_cycles_are_found() -> None:
    assert measure_depth({"a": ["a"]}) == (0, frozenset("a"))
    sources = {"z": [], "u": ["a"], "a": ["z", "b"], "b": ["c"], "c": ["a"]}
    assert measure_depth(sources) == (1, frozenset("uabc"))
    assert find_cycle(sources, {"u", "a", "b", "c"}) == ["a", "b", "c"]
    assert find_cycle({"c": ["a"], "b": ["c"], "a": ["b"]}, {"a", "b", "c"}) == ["c", "a", "b"]
    with pytest.raises(ValueError, match="in a cycle"):
        find_cycle({"a": ["b"], "b": []}, {"a", "b"})


def test_long_cycles_need_no_stack() -> None:
    ring = {str(index): [str((index + 1) % 50_000)] for index in range(50_000)}
    assert measure_depth(ring) == (0, frozenset(ring))
    assert find_cycle(ring, set(ring)) == list(ring)


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefx"), max_size=4)))
def test_a_cycle_is_one_and_an_order_exists_without(sources: dict[str, list[str]]) -> None:
    depth, tangled = measure_depth(sources)
    if tangled:
        cycle = find_cycle(sources, tangled)
        for index, node in enumerate(cycle):
            assert cycle[(index + 1) % len(cycle)] in sources[node]
        return

    def measure(node: str) -> int:
        return 1 + max((measure(target) for target in sources[node] if target in sources), default=0)

    assert depth == max((measure(node) for node in sources), default=0)
