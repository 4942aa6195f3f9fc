"""Parameters as a JSON schema (2020-12), for documents, forms and programs that check before they call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policy.functions.arguments import LEAST_INTEGER, MAX_NUMBER, MAX_SEED
from policy.functions.function import Function
from policy.functions.settings import FILES, MAX_TEXT, ParameterSettings

_FILE_WORDS: Final = "A file of the multipart form; or the id of an asset, a data URL (RFC 2397), or an https address of a host that the operator permits."


def arguments_schema(function: Function) -> dict[str, Any]:
    """Of the object that a call sends."""
    needed = [name for name, parameter in function.parameters.items() if _is_needed(parameter)]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _schema_of(parameter) for name, parameter in function.parameters.items()},
        "additionalProperties": False,
    }
    return schema | ({"required": needed} if needed else {})


def _is_needed(parameter: ParameterSettings) -> bool:
    return parameter.default is None and parameter.type != "seed" and not parameter.optional


def _schema_of(parameter: ParameterSettings) -> dict[str, Any]:
    words = " ".join(filter(None, (parameter.description, _FILE_WORDS if parameter.type in FILES else "")))
    about: Mapping[str, Any] = {"title": parameter.title, "description": words, "default": parameter.default}
    return _type_of(parameter) | {key: text for key, text in about.items() if text not in (None, "")}


def _type_of(parameter: ParameterSettings) -> dict[str, Any]:
    match parameter.type:
        case "text":
            return {"type": "string", "maxLength": parameter.max_length or MAX_TEXT}
        case "boolean":
            return {"type": "boolean"}
        case "choice":
            return {"enum": list(parameter.choices)}
        case "integer":
            return {"type": "integer", **_bounds(parameter, LEAST_INTEGER, MAX_SEED)}
        case "number":
            return {"type": "number", **_bounds(parameter, -MAX_NUMBER, MAX_NUMBER)}
        case "seed":
            return {"type": "integer", **_bounds(parameter, 0, MAX_SEED)}
    return {"type": "string"}


def _bounds(parameter: ParameterSettings, low: float, high: float) -> dict[str, Any]:
    """low, high: what every parameter of its type is held to."""
    bounds = {
        "minimum": low if parameter.min is None else max(low, parameter.min),
        "maximum": high if parameter.max is None else min(high, parameter.max),
    }
    return bounds if parameter.multiple_of is None else {**bounds, "multipleOf": parameter.multiple_of}
