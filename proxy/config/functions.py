"""Reads the functions that lie in `functions/` beside the configuration file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import ValidationError

from policy.functions.function import Function, make_function
from policy.functions.settings import FunctionSettings

FOLDER: Final = "functions"
MAX_BYTES: Final = 8 * 1024**2


def read_functions(folder: Path) -> tuple[dict[str, Function], list[tuple[str, str]]]:
    """By name; and the mistakes, each with the file that it is in. A folder that is not there holds none."""
    functions: dict[str, Function] = {}
    mistakes: list[tuple[str, str]] = []
    for file in sorted(folder.glob("*.toml")):
        try:
            functions[file.stem] = read_function(file)
        except ValueError as error:
            mistakes += [(f"{FOLDER}/{file.name}", line) for line in str(error).splitlines()]
    return functions, mistakes


def read_function(file: Path) -> Function:
    """Raises ValueError, with one line for each mistake."""
    try:
        document = tomllib.loads(_read(file).decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"it is not TOML: {error}") from None
    try:
        settings = FunctionSettings.model_validate(document)
    except ValidationError as error:
        raise ValueError("\n".join(map(_words, error.errors()))) from None
    workflow = file.parent / (settings.workflow or f"{file.stem}.json")
    try:
        graph = orjson.loads(_read(workflow))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{workflow.name} is not JSON: {error}") from None
    if isinstance(graph, dict) and isinstance(graph.get("prompt"), dict):
        graph = graph["prompt"]
    return make_function(file.stem, settings, graph)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            found = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{file.name} cannot be read: {error.strerror or error}") from None
    if len(found) > MAX_BYTES:
        raise ValueError(f"{file.name} is larger than {MAX_BYTES // 1024**2} MiB")
    return found


def _words(part: Any) -> str:
    place = ".".join(map(str, part["loc"]))
    message = "unknown key" if part["type"] == "extra_forbidden" else str(part["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
