from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest

from policy.catalogue import Catalogue, NodeClass, read_catalogue
from policy.merging import merge, merge_some, shape_of


def entry(required: Any = None, optional: Any = None, **more: Any) -> dict[str, Any]:
    return {"input": {"required": required or {}, "optional": optional or {}}, "output": ["IMAGE"]} | more


def union(*documents: dict[str, Any]) -> Catalogue:
    return merge([read_catalogue(document) for document in documents]).catalogue


def merged(*specs: Any) -> Any:
    """What becomes of an input of one class, described in these ways."""
    node_class = union(*({"X": entry({"a": spec})} for spec in specs)).get("X")
    assert node_class is not None
    return node_class.document["input"]["required"]["a"]


def read(document: Any) -> NodeClass:
    found = read_catalogue({"X": document}).get("X")
    assert found is not None
    return found


def test_all_classes_of_all_are_there_in_the_order_of_the_first() -> None:
    catalogue = union({"B": entry(), "A": entry()}, {"C": entry(), "A": entry()}, {"D": entry()})
    assert list(catalogue.classes) == ["B", "A", "C", "D"]
    assert catalogue.differing == frozenset()
    assert merge([]).catalogue.classes.places == {}


@pytest.mark.parametrize(
    ("specs", "shown"),
    [
        ([[["a", "b"]], [["c", "a"]], [["b", "d"]]], [["a", "b", "c", "d"]]),
        ([[["a"], {"default": "a"}], [["b"], {"default": "b"}]], [["a", "b"], {"default": "a"}]),
        (
            [["COMBO", {"options": ["a", 1], "tooltip": "t"}], [["b", True, 1]]],
            ["COMBO", {"options": ["a", 1, "b", True], "tooltip": "t"}],
        ),
        ([[["a"]], ["COMBO", {"options": ["b"]}]], [["a", "b"]]),
        ([[["a"]], ["COMBO", {}], ["STRING", {}], ["COMBO"]], [["a"]]),
        ([["COMBO", {}], [["b"]]], ["COMBO", {}]),
        ([["INT", {"max": 1}], ["INT", {"max": 2}]], ["INT", {"max": 1}]),
        ([["MODEL"], ["CLIP"]], ["MODEL"]),
    ],
)
def test_choices_are_those_of_all(specs: list[Any], shown: Any) -> None:
    assert merged(*specs) == shown


def dynamic(*options: Any) -> Any:
    return ["COMFY_DYNAMICCOMBO_V3", {"options": list(options)}]


def option(key: Any, *choices: str) -> dict[str, Any]:
    return {"key": key, "inputs": {"required": {"model": [list(choices)]}}}


def test_choices_within_choices_are_those_of_all_too() -> None:
    shown = merged(
        dynamic(option("one", "a"), {"key": "bare"}),
        dynamic(option("two", "c"), option("one", "a", "b"), "nonsense", {"key": 3}),
        ["COMFY_DYNAMICCOMBO_V3", {"options": "nonsense"}],
        ["STRING"],
    )
    assert shown == dynamic(option("one", "a", "b"), {"key": "bare", "inputs": None}, option("two", "c"))
    slot = "COMFY_DYNAMICSLOT_V3"
    found = merged([slot, option("s", "a")], [slot, option("s", "b")])
    assert found == [slot, option("s", "a", "b")]
    odd = dynamic({"key": "odd", "inputs": {"required": {"model": "nonsense", "other": []}}})
    assert merged(odd, dynamic(option("odd", "a"), option("odd", "b"))) == odd
    assert merged(["COMFY_DYNAMICCOMBO_V3", {}], dynamic(option("one"))) == ["COMFY_DYNAMICCOMBO_V3", {}]


def test_an_input_is_found_in_whichever_section_another_has_it() -> None:
    catalogue = union(
        {"X": entry({"a": [["x"]]}) | {"input": {"required": {"a": [["x"]]}, "hidden": {"p": "PROMPT"}}}},
        {"X": entry(optional={"a": [["y"]], "b": [["z"]]})},
    )
    found = catalogue.get("X")
    assert found is not None
    assert found.document["input"] == {"required": {"a": [["x", "y"]]}, "hidden": {"p": "PROMPT"}}
    assert catalogue.differing == {"X"}


def test_what_is_equal_stands_once_in_memory() -> None:
    same, other = {"A": entry({"a": ["INT", {}]})}, {"A": entry({"a": ["INT", {}]}), "B": entry()}
    parts = [read_catalogue(document) for document in (same, other, {"A": entry({"a": ["INT", {"max": 1}]})})]
    found = merge(parts)
    places = [part.classes.places["A"] for part in found.parts]
    assert places[0] is places[1]
    assert places[2] is not places[0]
    assert [dict(part.classes) for part in found.parts] == [dict(part.classes) for part in parts]
    assert found.catalogue.classes.places["B"] is found.parts[1].classes.places["B"]
    again = merge(found.parts)
    assert orjson.dumps([dict(each.document) for each in again.catalogue.classes.values()]) == orjson.dumps(
        [dict(each.document) for each in found.catalogue.classes.values()]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"input": {"required": {"a": ["FLOAT", {"max": 8}], "m": [["x"]]}}},
        {"input": {"required": {"a": ["INT", {"max": 9}], "m": [["x"]]}}},
        {"input": {"required": {"a": ["INT", {"max": 8}], "m": [["x"]], "new": ["INT"]}}},
        {"input": {"required": {"a": ["INT", {"max": 8}]}}},
        {"output": ["IMAGE", "MASK"]},
    ],
)
def test_classes_with_other_inputs_or_outputs_differ(change: Any) -> None:
    one = entry({"a": ["INT", {"max": 8}], "m": [["x"]]}, output=["IMAGE"])
    assert union({"X": one, "Y": one}, {"X": one | change, "Y": one}).differing == {"X"}


@pytest.mark.parametrize("change", [{"display_name": "Other"}, {"output": [["a", "b"]]}])
def test_words_and_choices_make_no_difference(change: Any) -> None:
    one = entry({"m": [["x"], {"tooltip": "t"}]}, output=["COMBO"])
    other = entry({"m": ["COMBO", {"options": ["y"]}]}, output=["COMBO"]) | change
    assert union({"X": one}, {"X": other}).differing == frozenset()


def test_only_inputs_that_a_node_has_and_lacks_are_looked_at() -> None:
    old = entry({"a": ["INT"], "b": ["INT"]}, {"mode": dynamic(option("one", "x"))})
    new = copy.deepcopy(old)
    new["input"]["optional"]["c"] = ["INT"]
    assert shape_of(read(old)) != shape_of(read(new))
    assert shape_of(read(old), ("a", "b")) == shape_of(read(new), ("a", "b"))
    assert shape_of(read(old), ("a", "b", "c")) != shape_of(read(new), ("a", "b", "c"))
    new["input"]["required"]["d"] = ["INT"]
    assert shape_of(read(old), ("a", "b")) != shape_of(read(new), ("a", "b"))
    given = ("a", "b", "mode", "mode.model")
    assert shape_of(read(old), given) != shape_of(read(entry({"a": ["INT"], "b": ["INT"]})), given)


PLAIN = {"python_module": "custom_nodes.pack", "output_node": True}
FILES: dict[str, dict[str, Any]] = {
    "an upload": entry({"a": [["x"], {"image_upload": True}]}, **PLAIN),
    "a list of files": entry(
        {"a": ["COMBO", {"options": ["x"], "remote": {"route": "/internal/files/input"}}]}, **PLAIN
    ),
    "a folder beside": entry({"a": [["x"]]}, {"output_path": ["STRING"]}, **PLAIN),
    "of ComfyUI itself": entry({"a": [["x"]]}) | {"python_module": "nodes", "output_node": True},
    "no output": entry({"a": [["x"]]}, python_module="custom_nodes.pack"),
    "shows": entry({"a": [["x"]]}, **PLAIN, has_intermediate_output=True),
}


@pytest.mark.parametrize("what", FILES)
def test_what_names_a_file_in_one_of_them_alone_differs(what: str) -> None:
    plain = entry({"a": [["x"]]}, **PLAIN)
    assert union({"X": plain}, {"X": FILES[what]}).differing == {"X"}


def test_a_prefix_with_a_folder_beside_it_is_another_one() -> None:
    one = entry({"filename_prefix": ["STRING"]}, **PLAIN)
    other = entry({"filename_prefix": ["STRING"]}, {"output_path": ["STRING"]}, **PLAIN)
    assert shape_of(read(one), ("filename_prefix",)) != shape_of(read(other), ("filename_prefix",))


def test_a_list_that_has_files_here_and_none_there_is_the_same() -> None:
    """The union is judged by all of them, so as a list of files."""
    one, other = entry({"a": [["fast"]]}, **PLAIN), entry({"a": [["fast", "x.png"]]}, **PLAIN)
    assert union({"X": one}, {"X": other}).differing == frozenset()


LOADS_A, LOADS_B = entry({"m": [["a"]]}), entry({"m": [["b"]]})


def test_the_union_of_some_is_theirs_alone() -> None:
    documents = ({"L": LOADS_A, "One": entry()}, {"L": LOADS_B, "Two": entry()}, {"L": LOADS_A, "Three": entry()})
    whole, parts = merge([read_catalogue(document) for document in documents])
    some = merge_some([parts[1], parts[2]], whole)
    assert list(some.classes) == ["L", "Two", "Three"]
    assert some.classes.choices_of("L") == {"m": {"a", "b"}}
    assert merge_some([parts[1]], whole).classes.choices_of("L") == {"m": {"b"}}
    assert merge_some([parts[0], parts[2]], whole).classes.choices_of("L") == {"m": {"a"}}
    assert merge_some([], whole).classes.places == {}


def test_texts_are_shared_by_the_union_of_some() -> None:
    whole, parts = merge([read_catalogue({"X": entry(), "Y": entry({"a": ["INT"]})}) for _ in range(3)])
    some = merge_some(parts[:2], whole)
    assert [some.classes.places[name][0] for name in "XY"] == [parts[0].classes.places["X"][0]] * 2
    assert some.classes.places["X"][0] is parts[0].classes.places["X"][0]


@pytest.mark.parametrize("is_whole", [True, False])
def test_what_differs_elsewhere_differs_among_some(is_whole: bool) -> None:
    alike, other = entry({"a": ["INT"]}), entry({"a": ["FLOAT"]})
    documents = ({"X": alike, "Y": alike}, {"X": alike, "Y": alike}, {"X": other, "Y": alike})
    whole, parts = merge([read_catalogue(document) for document in documents], is_whole=is_whole)
    some = merge_some(parts[:2], whole)
    assert (set(some.differing), some.is_whole) == ({"X"}, is_whole)
    later = merge([read_catalogue({"X": alike}), read_catalogue({"X": other})]).parts
    assert merge_some(later, Catalogue()).differing == {"X"}, "where the whole is older than its parts"
