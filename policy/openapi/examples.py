"""Arguments that a function takes, as an example of a call of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from policy.functions.function import Function
from policy.functions.settings import FILES, ParameterSettings
from policy.values import value

_WORDS: Final = "a lighthouse in the morning"
_EXTENSIONS: Final = {"image": "png", "mask": "png", "audio": "flac", "video": "mp4"}


@value
class ExampleCall:
    """texts: arguments that are no files, by name. files: names of files, by parameter."""

    texts: Mapping[str, Any]
    files: Mapping[str, str]


def example_call(function: Function) -> ExampleCall:
    """What must be given, and what else is not drawn; of files those alone that must be given."""
    texts: dict[str, Any] = {}
    files: dict[str, str] = {}
    for name, parameter in function.parameters.items():
        if parameter.type in FILES:
            if not parameter.optional:
                files[name] = f"{name}.{_EXTENSIONS[parameter.type]}"
        elif parameter.default is not None:
            texts[name] = parameter.default
        elif parameter.type != "seed":
            texts[name] = _sample(parameter)
    return ExampleCall(texts, files)


def _sample(parameter: ParameterSettings) -> Any:
    match parameter.type:
        case "text":
            return _WORDS[: parameter.max_length]
        case "boolean":
            return True
        case "choice":
            return parameter.choices[0]
    number = _number(parameter)
    return int(number) if parameter.type == "integer" else number


def _number(parameter: ParameterSettings) -> float:
    """The least that is permitted, or zero where there is no least; a multiple of what it has to be."""
    low, high, step = parameter.min, parameter.max, parameter.multiple_of
    number: float = low if low is not None else min(0, high if high is not None else 0)
    if parameter.type == "integer":
        step = step or 1
    if not step:
        return number
    return float((math.ceil if low is not None else math.floor)(number / step) * step)
