from __future__ import annotations

from policy.catalogue import Catalogue, read_catalogue
from policy.comparison import compare
from tests.policy.tenants import node


def catalogue(*models: str, classes: int = 0, **more: object) -> Catalogue:
    document = {"Loader": node({"ckpt_name": [list(models)], "mode": [["fast"]]})}
    return read_catalogue(document | {f"C{number}": node({}) for number in range(classes)} | more)


def test_nothing_is_said_of_what_all_have() -> None:
    assert compare({"one": catalogue("a.pt"), "two": catalogue("a.pt")}) == []
    assert compare({}) == []


def test_what_only_some_have_is_said_once_for_all_that_have_it() -> None:
    found = compare(
        {
            "one": catalogue("a.pt", "b.PT", classes=7),
            "two": catalogue("a.pt", classes=7),
            "three": catalogue("c.safetensors", "x.png"),
        }
    )
    assert found == [
        "Only one and two have 7 classes: C0, C1, C2, C3, C4 and 2 more.",
        "Only one has 1 model: b.PT.",
        "Only one and two have 1 model: a.pt.",
        "Only three has 1 model: c.safetensors.",
    ]


def test_every_name_is_told_where_it_is_asked_for() -> None:
    [words] = compare({"one": catalogue(classes=7), "two": catalogue()}, is_whole=True)
    assert words == "Only one has 7 classes: C0, C1, C2, C3, C4, C5, C6."


def test_classes_of_another_version_are_told() -> None:
    one, two = node({"a": ["INT", {}]}), node({"a": ["FLOAT", {}]})
    [words] = compare({"one": catalogue(X=one), "two": catalogue(X=two)})
    assert words.startswith("1 class is not the same everywhere: X. ")
    [words] = compare({"one": catalogue(X=one, Y=one), "two": catalogue(X=two, Y=two)})
    assert words.startswith("2 classes are not the same everywhere: X, Y. ")
