"""The lines of TOML text that hold API keys: adding, removing and changing one leaves every other byte as it is. Pure; trusts that the text is valid.

Lines, and not tomlkit's document of the whole file: that moves a table that stands between two keys behind them, and counts the comment
above the next table to the key before it, so that it goes with that key (test_toml_keys.py::test_no_edit_changes_another_line).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import tomlkit
from tomlkit.items import Array

# TOML 1.0: what may hold a newline, a bracket or a number sign without meaning one. Closing quotes of multi-line strings may be up to five.
_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[^\"'\#\[\]{}\n]+"
    r"|.",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Lines:
    """Where keys stand, as indices of logical lines. blocks: first and behind-last line of each `[[keys]]`; array: of `keys = [...]`."""

    lines: list[str]
    blocks: list[tuple[int, int]]
    array: int | None


def append_key(text: str, table: dict[str, Any]) -> str:
    """Adds a key behind the last one, or at the end of the text."""
    found = _find(text)
    newline = _newline(text)
    if found.array is not None:
        return _change_array(found, newline, lambda array: array.append(_inline(table)), table)
    block = tomlkit.dumps({"keys": [table]}).replace("\n", newline)
    return _insert_block(found, block, newline)


def remove_key(text: str, index: int) -> str:
    """Removes the key of that place, with the comments inside its table and one empty line behind it."""
    found = _find(text)
    if found.array is not None:
        return _change_array(found, _newline(text), lambda array: array.pop(index))
    first, behind = found.blocks[index]
    lines = list(found.lines)
    if behind < len(lines) and not lines[behind].strip():
        behind += 1
    elif behind == len(lines) and first and not lines[first - 1].strip():
        first -= 1
    del lines[first:behind]
    return "".join(lines)


def change_expiry(text: str, index: int, expires: datetime) -> str:
    """Sets when the key of that place expires."""
    found = _find(text)
    newline = _newline(text)
    if found.array is not None:
        return _change_array(found, newline, lambda array: cast(Any, array[index]).update({"expires": expires}))
    first, behind = found.blocks[index]
    document = tomlkit.parse(_ended("".join(found.lines[first:behind]), newline))
    cast(Any, document["keys"])[0]["expires"] = expires
    return "".join([*found.lines[:first], _with_newlines(document.as_string(), newline), *found.lines[behind:]])


def _change_array(found: _Lines, newline: str, change: Any, table: dict[str, Any] | None = None) -> str:
    at = cast(int, found.array)
    document = tomlkit.parse(found.lines[at])
    array = document["keys"]
    if isinstance(array, Array) and not array and table is not None:
        # `keys = []` says that there are none: a static array cannot be extended by a [[keys]] table, so it goes.
        rest = _find("".join(found.lines[:at] + found.lines[at + 1 :]))
        return _insert_block(rest, tomlkit.dumps({"keys": [table]}).replace("\n", newline), newline)
    change(array)
    return "".join([*found.lines[:at], _with_newlines(document.as_string(), newline), *found.lines[at + 1 :]])


def _insert_block(found: _Lines, block: str, newline: str) -> str:
    at = found.blocks[-1][1] if found.blocks else len(found.lines)
    before, after = found.lines[:at], found.lines[at:]
    if before:
        before[-1] = _ended(before[-1], newline)
        if before[-1].strip():
            block = newline + block
    if after and after[0].strip():
        block += newline
    return "".join([*before, block, *after])


def _find(text: str) -> _Lines:
    lines = _logical_lines(text)
    blocks: list[tuple[int, int]] = []
    array: int | None = None
    is_root, first, behind = True, -1, -1
    for number, line in enumerate([*lines, "[end]"]):
        bare = line.strip()
        if bare.startswith("["):
            if first >= 0:
                blocks.append((first, _with_comments(lines, behind)))
            is_keys = number < len(lines) and tomllib.loads(bare) == {"keys": [{}]}
            is_root, first, behind = False, number if is_keys else -1, number + 1
        elif bare and not bare.startswith("#"):
            behind = number + 1
            if is_root and "keys" in tomllib.loads(bare):
                array = number
    return _Lines(lines, blocks, array)


def _with_comments(lines: list[str], behind: int) -> int:
    """Comments directly below a table's last value belong to it, unless they stand directly above what follows."""
    end = behind
    while end < len(lines) and lines[end].strip().startswith("#"):
        end += 1
    return end if end == len(lines) or not lines[end].strip() else behind


def _logical_lines(text: str) -> list[str]:
    """Lines with their ends; a value that spans several lines is one."""
    lines: list[str] = []
    start = depth = 0
    for token in _TOKEN.finditer(text):
        match token[0]:
            case "[" | "{":
                depth += 1
            case "]" | "}":
                depth -= 1
            case "\n" if not depth:
                lines.append(text[start : token.end()])
                start = token.end()
    if start < len(text):
        lines.append(text[start:])
    return lines


def _inline(table: dict[str, Any]) -> Any:
    inline = tomlkit.inline_table()
    inline.update(table)
    return inline


def _newline(text: str) -> str:
    return "\r\n" if text.partition("\n")[0].endswith("\r") else "\n"


def _ended(line: str, newline: str) -> str:
    return line if line.endswith("\n") else line + newline


def _with_newlines(text: str, newline: str) -> str:
    return text if newline == "\n" else re.sub(r"(?<!\r)\n", newline, text)
