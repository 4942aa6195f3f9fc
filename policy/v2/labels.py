"""Labels of jobs: `metadata` in the API. The bounds are those of the hosted service."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from policy.violation import Reason, Violation

MAX_LABELS: Final = 16
MAX_VALUE_BYTES: Final = 256
MAX_FILTERS: Final = 3
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")
# Control characters, those that turn the direction of a text, and halves of characters, which no database takes.
_UNSHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FILTER: Final = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def read_labels(document: Any) -> dict[str, str]:
    """Raises Violation(metadata-invalid)."""
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise _invalid("`metadata` is an object of texts")
    if len(document) > MAX_LABELS:
        raise _invalid(f"at most {MAX_LABELS} labels")
    for name, text in document.items():
        if not _NAME.fullmatch(name):
            raise _invalid("a label's name has 1 to 40 letters, digits, '_', '.' and '-'")
        if not isinstance(text, str) or _is_unfit(text):
            raise _invalid(
                f"a label's value is a text of at most {MAX_VALUE_BYTES} bytes in UTF-8, without control characters"
            )
    return dict(document)


def read_filters(query: Iterable[tuple[str, str]]) -> dict[str, str]:
    """`metadata[name]=value` of a list's query; one name twice with two values finds nothing. Raises Violation(metadata-filter-invalid)."""
    found: dict[str, str] = {}
    for key, text in query:
        named = _FILTER.fullmatch(key)
        if named is None:
            continue
        name = named[1]
        if not _NAME.fullmatch(name) or _is_unfit(text) or found.get(name, text) != text:
            raise _bad_filter("write metadata[NAME]=VALUE, each name once")
        found[name] = text
        if len(found) > MAX_FILTERS:
            raise _bad_filter(f"at most {MAX_FILTERS} labels")
    return found


def _is_unfit(text: str) -> bool:
    return len(text.encode("utf-8", "surrogatepass")) > MAX_VALUE_BYTES or _UNSHOWN.search(text) is not None


def _invalid(rule: str) -> Violation:
    return Violation(Reason.METADATA_INVALID, f"These labels are not accepted: {rule}.", "metadata")


def _bad_filter(rule: str) -> Violation:
    return Violation(Reason.METADATA_FILTER_INVALID, f"This filter is not accepted: {rule}.", "metadata")
