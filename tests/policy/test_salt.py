"""Nodes of classes from outside never get the salt: they are kept apart by their files, or by what they are made from."""

from __future__ import annotations

from typing import Any

from policy.catalogue import NodeClass, read_catalogue
from policy.salt import SALT, list_ancestors, needs_salt, salt_nodes
from tests.policy.tenants import node

PACK: dict[str, Any] = {"python_module": "custom_nodes.pack"}
CLASSES = read_catalogue(
    {
        "Loader": node({"name": ["STRING", {}]}, ["MODEL"]),
        "Empty": node({"width": ["INT", {}]}, ["IMAGE"]),
        "Show": node({"any": ["*"]}, [], output_node=True, **PACK),
        "Change": node({"any": ["*"]}, ["*"], **PACK),
        "CustomCombo": node({"choice": ["COMBO", {"options": []}]}, ["STRING"]),
    }
).classes
Graph = dict[str, tuple[str, dict[str, Any]]]


def salted(graph: Graph, own: tuple[str, ...] = ()) -> set[str]:
    """Ids of the nodes that get the salt."""
    nodes: dict[str, dict[str, Any]] = {
        key: {"class_type": name, "inputs": dict(inputs)} for key, (name, inputs) in graph.items()
    }
    needing = [key for key, (name, _) in graph.items() if needs_salt(CLASSES[name], key in own)]
    salt_nodes(nodes, needing, own, lambda key: CLASSES[graph[key][0]], "alice")
    found = {key for key, found in nodes.items() if SALT in found["inputs"]}
    assert all(nodes[key]["inputs"][SALT] == "alice" for key in found)
    return found


def test_what_a_class_from_outside_makes_of_a_salted_node_is_apart() -> None:
    assert salted({"1": ("Empty", {}), "2": ("Change", {"any": ["1", 0]}), "3": ("Show", {"x": ["2", 0]})}) == {"1"}


def test_a_loader_is_salted_where_nothing_else_keeps_a_shown_node_apart() -> None:
    graph: Graph = {"1": ("Loader", {}), "2": ("Change", {"any": ["1", 0]}), "3": ("Show", {"any": ["2", 0]})}
    assert salted(graph) == {"1"}
    assert salted({"1": ("Loader", {}), "2": ("Change", {"any": ["1", 0]})}) == set(), "nothing is shown"


def test_a_node_with_a_file_of_its_own_is_apart() -> None:
    graph: Graph = {"1": ("Loader", {}), "2": ("Show", {"any": ["1", 0], "file": "tenants/alice/x"})}
    assert salted(graph, own=("2",)) == set()
    later: Graph = {"1": ("Change", {"file": "tenants/alice/x"}), "2": ("Show", {"any": ["1", 0]})}
    assert salted(later, own=("1",)) == set()


def test_a_class_that_takes_every_input_is_never_salted() -> None:
    assert salted({"1": ("CustomCombo", {}), "2": ("Show", {"any": ["1", 0]}), "3": ("Show", {})}) == set()


def test_one_salted_ancestor_keeps_two_apart() -> None:
    graph: Graph = {"1": ("Loader", {}), "2": ("Show", {"any": ["1", 0]}), "3": ("Show", {"other": ["1", 0]})}
    assert salted(graph) == {"1"}


def test_ancestors_are_found_nearest_first_and_once() -> None:
    sources = {"0": (), "1": ("0",), "2": ("1",), "3": ("2", "1")}
    assert list_ancestors(sources, "3", frozenset()) == ["2", "1", "0"]
    assert list_ancestors(sources, "3", {"1"}) == ["2"]


def test_many_links_and_long_chains_take_little_time() -> None:
    asked = 0

    def class_of(node_id: str) -> NodeClass:
        nonlocal asked
        asked += 1
        return CLASSES["Show"]

    nodes: dict[str, dict[str, Any]] = {"0": {"inputs": {}}}
    for number in range(1, 200):
        nodes[str(number)] = {"inputs": {f"x{index}": [str(number - 1), 0] for index in range(3)}}
    salt_nodes(nodes, list(nodes), (), class_of, "alice")
    assert asked < 3 * len(nodes), "each ancestor is looked at once"
