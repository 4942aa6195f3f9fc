"""Reads the plain part of YAML that the files of deploy/ keep to, and raises on everything else: no anchors, no tags, no folded text, no nested flows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_KEY = re.compile(r"([A-Za-z0-9_.-]+):(?:\s+(.*))?")
_WORD = re.compile(r"[^\[\]{}#&*!|>%@`\"',\s][^#\[\]{}]*")
_INT = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOW = re.compile(r"\[(.*)\]")
_ITEM = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[A-Za-z0-9_./:-]+)\s*(?:,|$)')
_LITERAL = "|"


def read_yaml(file: Path) -> Any:
    """Raises ValueError, with the line, for what is not in the subset."""
    reader = _Reader(file.read_text(encoding="utf-8"))
    value = reader.block(0)
    if reader.lines:
        raise ValueError(f"{file.name}: unexpected {reader.lines[0][1]!r}")
    return value


class _Reader:
    def __init__(self, text: str) -> None:
        if "\t" in text:
            raise ValueError("a tab is no indentation in YAML")
        self.lines: list[tuple[int, str]] = []
        literal_at: int | None = None
        for raw in text.splitlines():
            indent = len(raw) - len(raw.lstrip(" "))
            if literal_at is not None and raw.strip() and indent > literal_at:
                self.lines.append((indent, raw.strip()))
                continue
            literal_at = None
            content = _without_comment(raw.strip())
            if content:
                self.lines.append((indent, content))
                literal_at = indent if content.endswith(f": {_LITERAL}") else None

    def block(self, indent: int) -> Any:
        if self.lines[0][1].startswith("- "):
            return self._list(indent)
        return self._map(indent)

    def _list(self, indent: int) -> list[Any]:
        found: list[Any] = []
        while self.lines and self.lines[0][0] == indent and self.lines[0][1].startswith("- "):
            rest = self.lines[0][1][2:].lstrip()
            if _KEY.fullmatch(rest):
                self.lines[0] = (indent + 2, rest)
                found.append(self._map(indent + 2))
            else:
                self.lines.pop(0)
                found.append(_scalar(rest))
        return found

    def _map(self, indent: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.lines and self.lines[0][0] == indent and not self.lines[0][1].startswith("- "):
            key = _KEY.fullmatch(self.lines.pop(0)[1])
            if key is None or key[1] in found:
                raise ValueError(f"not a new key: {key}")
            found[key[1]] = self._value(key[2], indent)
        return found

    def _value(self, rest: str | None, indent: int) -> Any:
        if rest == _LITERAL:
            text = ""
            while self.lines and self.lines[0][0] > indent:
                text += self.lines.pop(0)[1] + "\n"
            return text
        if rest:
            return _scalar(rest)
        if self.lines and (self.lines[0][0] > indent or self.lines[0][1].startswith("- ")):
            return self.block(self.lines[0][0]) if self.lines[0][0] >= indent else None
        return None


def _without_comment(line: str) -> str:
    if line.startswith("#"):
        return ""
    if " #" in line and not re.search(r"""["'].* #.*["']""", line):
        return line[: line.index(" #")].rstrip()
    return line


def _scalar(text: str) -> Any:
    flow = _FLOW.fullmatch(text)
    if flow is not None:
        inside = flow[1]
        items = [_scalar(item) for item in _ITEM.findall(inside)]
        if _ITEM.sub("", inside).strip():
            raise ValueError(f"not a plain flow list: {text}")
        return items
    if text.startswith('"'):
        return json.loads(text)
    if text in ("true", "false"):
        return text == "true"
    if _INT.fullmatch(text):
        return int(text)
    if text in ("null", "~", "yes", "no", "on", "off") or re.search(r":(\s|$)", text) or not _is_plain(text):
        raise ValueError(f"write this with quotes: {text}")
    return text


def _is_plain(text: str) -> bool:
    return _WORD.fullmatch(text) is not None or re.fullmatch(r"\$\{[^{}]*\}", text) is not None or _is_expression(text)


def _is_expression(text: str) -> bool:
    """PromQL and templates, which YAML reads as plain text as long as they begin with a letter and have no ": " and no " #" in them."""
    return text[0].isalpha() and ": " not in text and " #" not in text
