"""Where a browser goes after the login: a path of the gate, or the gate's front page. Pure; trusts nothing in what it is given."""

from __future__ import annotations

import re
from typing import Final

from proxy.auth.credentials import without_tokens

FRONT_PAGE: Final = "/"
MAX_TARGET_CHARACTERS: Final = 2048

# RFC 3986: what stands raw in a path and a query; so no backslash, quote, space, control or non-ASCII character.
_TARGET = re.compile(r"(/[A-Za-z0-9\-._~!$&'()*+,;=:@/%\[\]]*)(?:\?([A-Za-z0-9\-._~!$&'()*+,;=:@/%\[\]?]*))?")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Encoded slash, backslash, dot, control characters: some program on the way may decode them first.
_HIDDEN = re.compile(r"%(?:2f|5c|2e|[01][0-9a-f]|7f)", re.IGNORECASE)


def local_target(text: str | None) -> str:
    """The path and query to go to: text when it can only mean a page of the gate, else the front page.

    SECURITY: no other site can be reached, and no credential of the query goes on. test_targets.py::TARGETS
    """
    found = _TARGET.fullmatch(text) if text and len(text) <= MAX_TARGET_CHARACTERS else None
    if not found or _BAD_PERCENT.search(found[0]):
        return FRONT_PAGE
    path, query = found[1], without_tokens(found[2] or "")
    segments = path[1:].split("/")
    if "//" in path or "." in segments or ".." in segments or _HIDDEN.search(path):
        return FRONT_PAGE
    if segments[:2] in (["gate", "login"], ["gate", "logout"]):
        return FRONT_PAGE
    return f"{path}?{query}" if query else path
