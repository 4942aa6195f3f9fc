"""What an answer of a custom node says in words: without the server's paths, and without whatever names a neighbour's files."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from policy.call import ClientReply, UpstreamReply
from policy.namespace import ROOT, Namespace
from policy.rules.results import MAX_DEPTH, MAX_MESSAGE_LENGTH, scrub_text

MAX_BYTES: Final = 16 * 1024**2
"""Of an answer that is read: lists of many thousand models."""

_BARE: Final = ("image/", "audio/", "video/", "font/")
_FOREIGN: Final = re.compile(rf"(?i)(?<![\w.-]){ROOT}[\\/]+[^\\/\s]")
# In an address: `subfolder=tenants%2Fbob`.
_FOREIGN_ENCODED: Final = re.compile(rf"(?i)(?:(?<![\w.-])|(?<=2f)|(?<=5c)){ROOT}(?:[\\/]|%(?:25)*(?:2f|5c))+([\w.-]+)")
# Where packs serve files: a text that begins so is an address of the web UI's, and no path on a disk.
_WEB_ROOTS: Final = frozenset({"api", "view", "extensions"})


def is_read(content_type: str) -> bool:
    """Whether an answer of this type may hold paths. Pictures, sound, video and fonts pass as they come."""
    return not content_type.strip().lower().startswith(_BARE)


def clean_reply(reply: UpstreamReply, names: Namespace, first: str) -> ClientReply:
    """first: the first segment of the route's own paths, which its answers name in addresses."""
    if reply.value is not None:
        shown = _Cleaning(names, _WEB_ROOTS | {first}).value(reply.value, MAX_DEPTH)
        return ClientReply(reply.status, orjson.dumps(None if shown is _LEFT_OUT else shown))
    try:
        text = reply.body.decode("utf-8")
    except UnicodeDecodeError:
        return ClientReply(reply.status, reply.body, reply.content_type)
    cleaning = _Cleaning(names, _WEB_ROOTS | {first})
    lines = (cleaning.value(line, 1) for line in text.split("\n"))
    kept = "\n".join(line for line in lines if isinstance(line, str))
    return ClientReply(reply.status, kept.encode(), reply.content_type)


_LEFT_OUT: Final = object()


class _Cleaning:
    def __init__(self, names: Namespace, web_roots: frozenset[str]) -> None:
        self._names = names
        self._address = re.compile(rf"/(?:{'|'.join(sorted(map(re.escape, web_roots)))})(?:[/?].*)?", re.DOTALL)

    def value(self, value: Any, depth: int) -> Any:
        """`_LEFT_OUT` for what is not the tenant's to see, or too deep to be looked at."""
        if isinstance(value, str):
            return self._text(value)
        if not isinstance(value, dict | list):
            return value
        if depth == 0:
            return _LEFT_OUT
        if isinstance(value, list):
            return [shown for item in value if (shown := self.value(item, depth - 1)) is not _LEFT_OUT]
        pairs = ((self._text(key), self.value(item, depth - 1)) for key, item in value.items())
        shown = [(key, item, value[name]) for (key, item), name in zip(pairs, value, strict=True)]
        # SECURITY: what names a neighbour's folder has the name of its file beside it
        # (test_reply_texts.py::test_what_stands_beside_a_neighbours_folder_is_left_out).
        is_foreign = any(item is _LEFT_OUT and isinstance(told, str) for _, item, told in shown)
        return {
            key: item
            for key, item, told in shown
            if key is not _LEFT_OUT and item is not _LEFT_OUT and not (is_foreign and isinstance(told, str))
        }

    def _text(self, text: str) -> Any:
        """SECURITY: what is left of a neighbour's path without its folders is still the name of its file
        (test_reply_texts.py::test_what_names_a_neighbours_file_is_left_out)."""
        if ROOT in text.casefold():
            text = self._names.clean_text(text)
            if _FOREIGN.search(text) or any(
                found[1] != self._names.tenant for found in _FOREIGN_ENCODED.finditer(text)
            ):
                return _LEFT_OUT
        if self._address.fullmatch(text):
            return text
        if len(text) > MAX_MESSAGE_LENGTH:  # looking for paths in it would take everybody's time
            short = (line for line in text.split("\n") if len(line) <= MAX_MESSAGE_LENGTH)
            lines = (self._text(line) for line in short)
            return "\n".join(line for line in lines if isinstance(line, str))
        return scrub_text(text, self._names)
