"""Every `type` that the gate can answer with, found in the code itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from policy.violation import Reason
from policy.workflow import NodeReason

ROOT: Final = Path(__file__).resolve().parent.parent.parent
_CODE = re.compile(r"[a-z]+(?:-[a-z0-9]+)+")
# Which positional argument of these says the reason; all of them, and their kin, also take it by keyword.
_PLACES: Final = {"Refusal": 1, "_full": 2, "_FileRefused": 0}


def node_codes() -> frozenset[str]:
    """What stands in `node_errors`, or first in `details`."""
    return frozenset(NodeReason) | {code for code, function in _calls() if function == "_FileRefused"}


@cache
def reasons_in_code() -> frozenset[str]:
    """What stands in the log, the metric and, with underscores, as the answer's `type`."""
    return frozenset(Reason) | {code for code, function in _calls() if function != "_FileRefused"}


@cache
def _calls() -> tuple[tuple[str, str], ...]:
    found = []
    for folder in ("proxy", "policy"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if "standin" not in file.parts:
                found += list(_codes_of(ast.parse(file.read_text(encoding="utf-8"))))
    return tuple(found)


def _codes_of(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            place = _PLACES.get(function)
            said = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            said += [node.args[place]] if place is not None and len(node.args) > place else []
            yield from ((code, function) for value in said for code in _texts_of(value))
        elif isinstance(node, ast.FunctionDef):
            arguments = node.args.kwonlyargs
            for argument, default in zip(arguments, node.args.kw_defaults, strict=True):
                if argument.arg == "reason" and default is not None:
                    yield from ((code, node.name) for code in _texts_of(default))


def _texts_of(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and _CODE.fullmatch(value.value):
        yield value.value
