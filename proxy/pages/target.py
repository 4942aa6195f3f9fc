"""Where a browser goes after the login: a path of the gate, or the gate's front page. Pure; trusts nothing in what it is given."""

from __future__ import annotations

import re
from typing import Final

from proxy.auth.credentials import without_tokens

FRONT_PAGE: Final = "/"
MAX_TARGET_CHARACTERS: Final = 2048
_MAX_DEPTH: Final = 64
"""No path of the gate is deeper, and what leads back from one stands in a header."""

# RFC 3986: what stands raw in a path and a query; so no backslash, quote, space, control or non-ASCII character.
_TARGET = re.compile(r"(/[A-Za-z0-9\-._~!$&'()*+,;=:@/%\[\]]*)(?:\?([A-Za-z0-9\-._~!$&'()*+,;=:@/%\[\]?]*))?")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Encoded slash, backslash, dot, control characters: some program on the way may decode them first.
_HIDDEN = re.compile(r"%(?:2f|5c|2e|[01][0-9a-f]|7f)", re.IGNORECASE)


def root_of(raw_path: str, public_path: str = "") -> str:
    """What leads from a request's path to the gate's front page: "/prefix/" where the prefix is known, else "../" as often as it takes.

    A proxy in front may serve the gate below a prefix of its own (RFC 3986, 5.2.4: a browser goes no further up than to its host).
    """
    if public_path:
        return f"{public_path}/"
    depth = raw_path.partition("?")[0].count("/") - 1
    return "../" * min(depth, _MAX_DEPTH) or "./"


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
