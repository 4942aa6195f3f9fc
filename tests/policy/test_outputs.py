from __future__ import annotations

from policy.graph import measure_depth
from policy.outputs import MAX_NAMED, BrokenLink, find_runnable, reach

LINK = BrokenLink("x", ["gone", 0], "leads nowhere")


def classes(sources: dict[str, list[str]]) -> dict[str, str]:
    return dict.fromkeys(sources, "C")


def test_two_cycles_are_both_named() -> None:
    sources = {"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c"], "o": ["a"], "p": ["c"], "q": []}
    _, tangled = measure_depth(sources)
    found = find_runnable(sources, ["o", "p", "q"], {}, tangled, classes(sources))
    assert found.left_out == {*"abcdop"}
    assert found.has_outputs
    assert {key: entry["dependent_outputs"] for key, entry in found.node_errors.items()} == {
        "a": ["o"],
        "b": ["o"],
        "c": ["p"],
        "d": ["p"],
    }


def test_a_cycle_that_no_output_needs_is_not_named() -> None:
    sources = {"a": ["a"], "o": []}
    found = find_runnable(sources, ["o"], {}, frozenset("a"), classes(sources))
    assert (found.left_out, found.node_errors, found.has_outputs) == ({"a"}, {}, True)


def test_a_node_with_two_broken_links_has_two_errors() -> None:
    found = find_runnable({"o": []}, ["o"], {"o": [LINK, LINK]}, frozenset(), {"o": "Save"})
    assert len(found.node_errors["o"]["errors"]) == 2
    assert not found.has_outputs


def test_what_is_named_is_bounded() -> None:
    """Thousands of broken nodes cost a walk for each that is named."""
    sources = {f"n{number}": [f"n{number}"] for number in range(MAX_NAMED + 50)}
    found = find_runnable(sources, list(sources), {}, frozenset(sources), classes(sources))
    assert len(found.node_errors) == MAX_NAMED
    assert len(found.left_out) == MAX_NAMED + 50
    broken = {f"n{number}": [LINK] for number in range(MAX_NAMED + 50)}
    found = find_runnable({}, list(sources), broken, frozenset(), classes(sources))
    assert len(found.node_errors) == MAX_NAMED
    assert not found.has_outputs


def test_reach_ends_on_cycles() -> None:
    assert reach(["a"], {"a": ["b"], "b": ["a", "c"]}) == {"a", "b", "c"}
