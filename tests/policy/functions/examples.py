"""Functions as tests of their rules have them."""

from __future__ import annotations

from typing import Any

from policy.functions.function import Function, make_function
from policy.functions.settings import FunctionSettings

GRAPH: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "own.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    "3": {"class_type": "Empty", "inputs": {"width": 64, "height": 64, "scale": 1.0, "flip": False, "kind": "a"}},
}
PARAMETERS: dict[str, Any] = {
    "picture": {"type": "image", "fills": ["1.image"]},
    "prefix": {"type": "text", "fills": ["2.filename_prefix"], "default": "x", "max_length": 8},
    "size": {
        "type": "integer",
        "fills": ["3.width", "3.height"],
        "default": 64,
        "min": 8,
        "max": 512,
        "multiple_of": 8,
    },
    "scale": {"type": "number", "fills": ["3.scale"], "default": 1.0, "multiple_of": 0.1},
    "flip": {"type": "boolean", "fills": ["3.flip"], "default": False},
    "kind": {"type": "choice", "fills": ["3.kind"], "default": "a", "choices": ["a", "b", 3, True]},
}


def settings(**more: Any) -> FunctionSettings:
    return FunctionSettings.model_validate({"parameters": PARAMETERS, "outputs": {"result": {"node": "2"}}} | more)


def function(name: str = "wear", graph: Any = GRAPH, **more: Any) -> Function:
    return make_function(name, settings(**more), graph)
