"""Texts that are known before a job runs: what a chain of ComfyUI's own constants and text nodes makes, and the dates in a prefix."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from policy.catalogue import Catalogue
from policy.workflow import is_link

MAX_TEXT_LENGTH: Final = 1024
"""Of each text on the way; longer ones are no file names, and a chain of them takes time."""

_DATE = re.compile(r"%date:([^%]*)%")
_DATE_PART = re.compile(r"dd?|MM?|hh?|mm?|ss?|yyy?y?")

_STRINGS: Final = "comfy_extras.nodes_string"
_PRIMITIVES: Final = "comfy_extras.nodes_primitive"
_TRIMS: Final[Mapping[Any, Callable[[str], str]]] = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}


def _trim(text: str, mode: str) -> str:
    return _TRIMS[mode](text)


def _concatenate(first: str, second: str, delimiter: str) -> str:
    return delimiter.join((first, second))


def _replace(text: str, find: str, replace: str) -> str | None:
    is_long = len(text) + text.count(find) * (len(replace) - len(find)) > MAX_TEXT_LENGTH
    return None if is_long else text.replace(find, replace)


def _same(text: str) -> str:
    return text


# What each class makes of these inputs, all of them texts (comfy_extras/nodes_primitive.py, nodes_string.py).
_CLASSES: Final[Mapping[str, tuple[str, tuple[str, ...], Callable[..., str | None]]]] = {
    "PrimitiveString": (_PRIMITIVES, ("value",), _same),
    "PrimitiveStringMultiline": (_PRIMITIVES, ("value",), _same),
    "StringConcatenate": (_STRINGS, ("string_a", "string_b", "delimiter"), _concatenate),
    "StringTrim": (_STRINGS, ("string", "mode"), _trim),
    "StringReplace": (_STRINGS, ("string", "find", "replace"), _replace),
}

_UNKNOWN: Final[tuple[str, tuple[str, ...], Callable[..., str | None]]] = ("", (), _same)


class Texts:
    """The texts that links of one workflow bring. nodes: a judged workflow, so links lead somewhere and not in circles.

    SECURITY: each node is looked at once, however many links lead to it (test_texts.py::test_a_node_that_many_need_is_followed_once).
    """

    def __init__(self, nodes: Mapping[str, Mapping[str, Any]], catalogue: Catalogue) -> None:
        self._nodes = nodes
        self._catalogue = catalogue
        self._known: dict[str, str | None] = {}

    def follow(self, link: list[Any]) -> str | None:
        """The text that a link brings, None when only the job will know."""
        waiting = [link[0]]
        while waiting:
            node_id = waiting[-1]
            parts = self._parts_of(node_id)
            missing = [part[0] for part in parts if is_link(part) and part[0] not in self._known]
            if missing and node_id not in self._known:
                waiting += missing
                continue
            self._known.setdefault(node_id, self._make(node_id, [self._text_of(part) for part in parts]))
            waiting.pop()
        return self._known[link[0]]

    def _parts_of(self, node_id: str) -> list[Any]:
        """The values of which a node makes a text; none for any other node."""
        node = self._nodes.get(node_id)
        if node is None:
            return []
        module, names, _ = _CLASSES.get(node["class_type"], _UNKNOWN)
        node_class = self._catalogue.get(node["class_type"])
        # A class of that name from outside may make something else.
        is_known = node_class is not None and node_class.python_module == module
        return [node["inputs"].get(name) for name in names] if is_known else []

    def _text_of(self, part: Any) -> str | None:
        if is_link(part):
            return self._known[part[0]]
        return part if isinstance(part, str) and len(part) <= MAX_TEXT_LENGTH else None

    def _make(self, node_id: str, texts: list[str | None]) -> str | None:
        if not texts or None in texts:
            return None
        make = _CLASSES[self._nodes[node_id]["class_type"]][2]
        try:
            result = make(*texts)
        except KeyError:
            return None
        return result if result is not None and len(result) <= MAX_TEXT_LENGTH else None


def fill_dates(text: str, now: datetime) -> str:
    """`%date:yyyy-MM-dd%` as the web UI fills it in before it sends a workflow; clients without a page send it as it stands."""
    if "%date:" not in text:
        return text
    return _DATE.sub(lambda found: _DATE_PART.sub(lambda part: _show_part(part[0], now), found[1]), text)


def _show_part(part: str, now: datetime) -> str:
    if part == "yyyy":
        return str(now.year)
    if part == "yy":
        return str(now.year)[2:]
    values = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}
    return str(values[part[0]]).zfill(len(part)) if part[0] in values else part
