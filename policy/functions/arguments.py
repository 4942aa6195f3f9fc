"""The arguments of a call: judged by the parameters, and put into the workflow."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from policy.functions.settings import FILES, MAX_TEXT, ParameterSettings
from policy.values import value
from policy.violation import Reason, Violation

MAX_SEED: Final = 2**64 - 1
"""As ComfyUI's own samplers take."""
LEAST_INTEGER: Final = -(2**63)
"""SECURITY: no JSON is written with a smaller one (test_arguments.py::test_the_greatest_numbers_are_written_as_json)."""
MAX_DRAWN: Final = 2**53 - 1
"""Of a seed that is drawn: every JSON reader has it whole."""

MAX_NUMBER: Final = 1e300
"""No infinity, no NaN, and no whole number that is no float."""
_WRITTEN_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}")
_WRITTEN_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,3})?")
_WRITTEN_BOOLEANS: Final = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
"""A checkbox of an HTML form sends "on"."""


@value
class Arguments:
    """What a call gives. values: by parameter, as they go into the workflow. files: parameters of files, with what the client said of each.

    to_draw: seeds that nobody gave. kept: files that nobody gave, which stay as the workflow has them.
    """

    values: Mapping[str, Any]
    files: Mapping[str, Any]
    to_draw: tuple[str, ...]


def read_arguments(parameters: Mapping[str, ParameterSettings], given: Mapping[str, Any]) -> Arguments:
    """Raises Violation(argument-refused) for one that is missing, not known, or not as its parameter says."""
    for name in given:
        if name not in parameters:
            known = ", ".join(parameters) or "none at all"
            raise _refused(name, f"there is no such parameter: there are {known}")
    values: dict[str, Any] = {}
    files: dict[str, Any] = {}
    to_draw: list[str] = []
    for name, parameter in parameters.items():
        argument = given.get(name)
        if parameter.type in FILES:
            if argument is not None:
                files[name] = argument
            elif not parameter.optional:
                raise _refused(name, "it must be given")
        elif argument is not None:
            values[name] = read_argument(name, parameter, argument)
        elif parameter.default is not None:
            values[name] = read_argument(name, parameter, parameter.default)
        elif parameter.type == "seed":
            to_draw.append(name)
        else:
            raise _refused(name, "it must be given")
    return Arguments(values, files, tuple(to_draw))


def read_written(name: str, parameter: ParameterSettings, text: str) -> Any:
    """A field of a form as its parameter means it. Raises Violation(argument-refused) for what is no spelling of its type."""
    match parameter.type:
        case "boolean":
            if text.lower() not in _WRITTEN_BOOLEANS:
                raise _refused(name, "write true or false")
            return _WRITTEN_BOOLEANS[text.lower()]
        case "choice":
            return next((choice for choice in parameter.choices if written(choice) == text), text)
        case "integer" | "seed":
            if not _WRITTEN_INTEGER.fullmatch(text):
                raise _refused(name, "it is a whole number")
            return int(text)
        case "number":
            if not _WRITTEN_NUMBER.fullmatch(text):
                raise _refused(name, "it is a number")
            return float(text)
    return text


def written(choice: Any) -> str:
    """A value as it stands in a field of a form."""
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


def bounds_of(parameter: ParameterSettings) -> tuple[int, int]:
    """Between which a seed is drawn."""
    low = 0 if parameter.min is None else max(0, math.ceil(parameter.min))
    high = MAX_DRAWN if parameter.max is None else min(MAX_DRAWN, math.floor(parameter.max))
    return low, max(low, high)


def read_argument(name: str, parameter: ParameterSettings, argument: Any) -> Any:
    """One that is no file. Raises Violation(argument-refused)."""
    match parameter.type:
        case "text":
            return _read_text(name, parameter, argument)
        case "boolean":
            if not isinstance(argument, bool):
                raise _refused(name, "it is true or false")
            return argument
        case "choice":
            return _read_choice(name, parameter, argument)
        case "integer" | "seed":
            return _read_integer(name, parameter, argument)
    return _read_number(name, parameter, argument)


def _read_text(name: str, parameter: ParameterSettings, argument: Any) -> str:
    if not isinstance(argument, str):
        raise _refused(name, "it is a text")
    limit = MAX_TEXT if parameter.max_length is None else parameter.max_length
    if len(argument) > limit:
        raise _refused(name, f"it has at most {limit} characters")
    return argument


def _read_choice(name: str, parameter: ParameterSettings, argument: Any) -> Any:
    for choice in parameter.choices:
        if type(choice) is type(argument) and choice == argument:
            return choice
    raise _refused(name, f"it is one of {', '.join(map(str, parameter.choices))}")


def _read_integer(name: str, parameter: ParameterSettings, argument: Any) -> int:
    if isinstance(argument, float) and argument.is_integer():
        argument = int(argument)
    if not isinstance(argument, int) or isinstance(argument, bool):
        raise _refused(name, "it is a whole number")
    low = 0 if parameter.type == "seed" else LEAST_INTEGER
    if not low <= argument <= MAX_SEED:
        raise _refused(name, f"it is from {low} to {MAX_SEED}")
    _check_bounds(name, parameter, argument)
    return argument


def _read_number(name: str, parameter: ParameterSettings, argument: Any) -> int | float:
    if not isinstance(argument, int | float) or isinstance(argument, bool) or not abs(argument) <= MAX_NUMBER:
        raise _refused(name, "it is a number")
    _check_bounds(name, parameter, argument)
    return argument


def _check_bounds(name: str, parameter: ParameterSettings, number: float) -> None:
    if parameter.min is not None and number < parameter.min:
        raise _refused(name, f"it is at least {parameter.min}")
    if parameter.max is not None and number > parameter.max:
        raise _refused(name, f"it is at most {parameter.max}")
    if parameter.multiple_of is not None and not _is_multiple(number, parameter.multiple_of):
        raise _refused(name, f"it is a multiple of {parameter.multiple_of}")


def _is_multiple(number: float, of: float) -> bool:
    """0.3 is a multiple of 0.1, although no float of it is."""
    quotient = number / of
    return math.isfinite(quotient) and abs(quotient - round(quotient)) < 1e-9 * max(1.0, abs(quotient))


def _refused(name: str, rule: str) -> Violation:
    return Violation(Reason.ARGUMENT_REFUSED, f"The argument `{name[:64]}` is not accepted: {rule}."[:500], name[:64])
