"""Texts that are known before a job runs: what a chain of ComfyUI's own constants and text nodes makes, and the dates in a prefix."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from policy.catalogue import Catalogue
from policy.workflow import is_link

MAX_STEPS: Final = 256
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


def _same(text: str) -> str:
    return text


# What each class makes of these inputs, all of them texts (comfy_extras/nodes_primitive.py, nodes_string.py).
_CLASSES: Final[Mapping[str, tuple[str, tuple[str, ...], Callable[..., str]]]] = {
    "PrimitiveString": (_PRIMITIVES, ("value",), _same),
    "PrimitiveStringMultiline": (_PRIMITIVES, ("value",), _same),
    "StringConcatenate": (_STRINGS, ("string_a", "string_b", "delimiter"), _concatenate),
    "StringTrim": (_STRINGS, ("string", "mode"), _trim),
    "StringReplace": (_STRINGS, ("string", "find", "replace"), str.replace),
}


def follow_text(link: Any, nodes: Mapping[str, Mapping[str, Any]], catalogue: Catalogue) -> str | None:
    """The text that a link brings, None when only the job will know. nodes: a judged workflow, so links lead somewhere and not in circles."""
    return _Following(nodes, catalogue).text_of(link)


class _Following:
    def __init__(self, nodes: Mapping[str, Mapping[str, Any]], catalogue: Catalogue) -> None:
        self._nodes = nodes
        self._catalogue = catalogue
        self._steps_left = MAX_STEPS

    def text_of(self, value: Any) -> str | None:
        self._steps_left -= 1
        if self._steps_left < 0:
            return None
        if isinstance(value, str):
            return value if len(value) <= MAX_TEXT_LENGTH else None
        node = self._nodes.get(value[0]) if is_link(value) else None
        return None if node is None else self._result_of(node)

    def _result_of(self, node: Mapping[str, Any]) -> str | None:
        node_class = self._catalogue.get(node["class_type"])
        module, names, make = _CLASSES.get(node["class_type"], ("", (), _same))
        # A class of that name from outside may make something else.
        if node_class is None or node_class.python_module != module:
            return None
        texts = []
        for name in names:
            text = self.text_of(node["inputs"].get(name))
            if text is None:
                return None
            texts.append(text)
        try:
            result = make(*texts)
        except KeyError:
            return None
        return result if len(result) <= MAX_TEXT_LENGTH else None


def fill_dates(text: str, now: datetime) -> str:
    """`%date:yyyy-MM-dd%` as the web UI fills it in before it sends a workflow; clients without a page send it as it stands."""
    return _DATE.sub(lambda found: _DATE_PART.sub(lambda part: _show_part(part[0], now), found[1]), text)


def _show_part(part: str, now: datetime) -> str:
    if part == "yyyy":
        return str(now.year)
    if part == "yy":
        return str(now.year)[2:]
    values = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}
    return str(values[part[0]]).zfill(len(part)) if part[0] in values else part
