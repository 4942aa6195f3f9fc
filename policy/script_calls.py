"""Which paths the scripts of a pack call, as far as reading them tells: a call that is put together of parts is not seen."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import takewhile
from typing import Final
from urllib.parse import urljoin, urlsplit

from policy.routes import RouteTable

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
ANY_SEGMENT: Final = "x"
"""Stands for what a script puts into a path."""

_CALL: Final = re.compile(r"\b(?:fetchApi|apiURL|fileURL|fetch)\(\s*[`\"']([^`\"'\n]{1,300})[`\"']?")
_IMPORT: Final = re.compile(r"\b(?:from|import)\s*\(?\s*[\"']((?:\.{0,2}/)[^\"'\n]{1,300})[\"']")
_TEXT: Final = re.compile(r"[`\"'](/?[A-Za-z][A-Za-z0-9_.-]{0,60}/[^`\"'\n]{0,300})[`\"']")
_FILLED: Final = re.compile(r"\$\{[^}]*\}?")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_.~-]+)+/?")


def find_calls(text: str, address: str, known: Collection[str] = ()) -> set[str]:
    """Absolute paths. address: the script's own path. known: first segments of packs' routes, which count wherever they stand."""
    found = {found[1] for found in _CALL.finditer(text)}
    found |= {urljoin(address, found[1]) for found in _IMPORT.finditer(text)}
    texts = (each[1] for each in _TEXT.finditer(text))
    found |= {each for each in texts if each.lstrip("/").partition("/")[0] in known}
    return {path for each in found if (path := _path_of(each)) is not None}


def _path_of(text: str) -> str | None:
    """None for what is no path of this server."""
    if "://" in text or text.startswith("//"):
        return None
    path = urlsplit(_FILLED.sub(ANY_SEGMENT, text)).path
    path = path if path.startswith("/") else f"/{path}"
    if not _PATH.fullmatch(path) or path.endswith(".d.ts"):  # types, which no page asks for
        return None
    return f"{path}{ANY_SEGMENT}" if path.endswith("/") else path


def is_open(table: RouteTable, path: str) -> bool:
    """Whether the table has a row for the path, by whatever method and of whatever kind."""
    segments = tuple(path.strip("/").split("/"))
    if any(table.match(method, segments) is not None for method in METHODS):
        return True
    # Of what a script fills in nothing is known: one row that begins so may be the one.
    lead = tuple(takewhile(lambda segment: segment != ANY_SEGMENT, segments))
    is_filled = 0 < len(lead) < len(segments)
    return is_filled and any(pattern[: len(lead)] == lead for route in table.routes for pattern in route.patterns)


def closed_calls(table: RouteTable, calls: Iterable[str]) -> Iterator[str]:
    """Those without a row, sorted."""
    return (path for path in sorted(set(calls)) if not is_open(table, path))
