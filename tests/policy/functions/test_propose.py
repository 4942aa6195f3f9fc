"""What is proposed for a workflow: names by titles, types and bounds by the catalogue."""

from __future__ import annotations

import tomllib
from typing import Any

from policy.catalogue import read_catalogue
from policy.functions.function import make_function
from policy.functions.propose import propose
from policy.functions.settings import FunctionSettings

INFO: dict[str, Any] = {
    "Text": {
        "input": {
            "required": {"text": ["STRING", {"multiline": True}], "clip": ["CLIP"]},
            "optional": {"note": ["STRING", {}]},
        },
        "display_name": "CLIP Text Encode",
    },
    "Load": {"input": {"required": {"image": [["a.png"], {"image_upload": True}]}}, "display_name": "Load Image"},
    "Sampler": {
        "input": {
            "required": {
                "seed": ["INT", {"min": 0, "max": 2**64 - 1}],
                "steps": ["INT", {"min": 1, "max": 100}],
                "cfg": ["FLOAT", {"min": float("-inf"), "max": True}],
                "sampler": [["euler", "ddim", 3]],
                "stale": [["euler"]],
                "many": [[str(number) for number in range(60)]],
                "on": ["BOOLEAN", {}],
                "model": ["MODEL"],
                "odd": ["INT", {}],
            }
        },
        "display_name": "Sampler!",
    },
    "Save": {"input": {"required": {"images": ["IMAGE"]}}, "display_name": "Save Image", "output_node": True},
}
CATALOGUE = read_catalogue(
    {name: {"output": [], "python_module": "nodes", "output_node": False} | entry for name, entry in INFO.items()}
)
GRAPH: dict[str, Any] = {
    "1": {
        "class_type": "Text",
        "inputs": {"text": 'a "cat"\n', "clip": ["9", 0], "note": "n"},
        "_meta": {"title": "Positive"},
    },
    "2": {"class_type": "Text", "inputs": {"text": "dog", "clip": ["9", 0]}, "_meta": {"title": "Positive"}},
    "3": {"class_type": "Load", "inputs": {"image": "a.png"}, "_meta": "none"},
    "4": {
        "class_type": "Sampler",
        "inputs": {
            "seed": 5,
            "steps": 20,
            "cfg": 7.5,
            "sampler": "euler",
            "stale": "gone",
            "many": "1",
            "on": True,
            "model": "x",
            "odd": "1",
            "undeclared": 1,
        },
        "_meta": {"title": "!!!"},
    },
    "5": {"class_type": "Save", "inputs": {"images": ["4", 0]}, "_meta": {"title": 3}},
    "6": {"class_type": "Unknown", "inputs": {"text": "x"}},
}


def uncommented(text: str) -> str:
    lines = text.splitlines()[1:]
    return "\n".join(line[2:] if line.startswith("# ") else "" if line == "#" else line for line in lines)


def test_what_a_person_says_is_a_parameter() -> None:
    found = FunctionSettings.model_validate(tomllib.loads(propose("my_cat", GRAPH, CATALOGUE)))
    assert found.title == "My cat"
    assert {name: (each.type, each.fills) for name, each in found.parameters.items()} == {
        "positive": ("text", ("1.text",)),
        "positive_2": ("text", ("2.text",)),
        "load_image": ("image", ("3.image",)),
        "seed": ("seed", ("4.seed",)),
    }
    assert found.parameters["positive"].default == 'a "cat"\n'
    assert found.parameters["load_image"].optional
    assert {name: each.node for name, each in found.outputs.items()} == {"save_image": "5"}


def test_all_of_it_is_a_function_when_the_comments_are_taken_in() -> None:
    text = uncommented(propose("my_cat", GRAPH, CATALOGUE))
    settings = FunctionSettings.model_validate(tomllib.loads(text))
    made = make_function("my_cat", settings, GRAPH)
    fills = {place: each for each in made.parameters.values() for place in each.fills}
    assert set(fills) == {
        *("1.text", "1.note", "2.text", "3.image"),
        *("4.seed", "4.steps", "4.cfg", "4.sampler", "4.on"),
    }
    assert (fills["4.steps"].min, fills["4.steps"].max, fills["4.steps"].default) == (1, 100, 20)
    assert (fills["4.cfg"].min, fills["4.cfg"].max) == (None, None)
    assert fills["4.sampler"].choices == ("euler", "ddim")
    assert fills["4.on"].default is True
    assert [each.title for each in fills.values() if each.type == "seed"] == ["Seed"]
