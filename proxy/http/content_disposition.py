"""The Content-Disposition of a part of an upload (RFC 7578, 4.2; parameters as in RFC 2231 and RFC 5987).

SECURITY: read as aiohttp reads it, with which ComfyUI reads uploads: what is judged is what it would see. tests/proxy/http/test_content_disposition.py
reads the same texts with both.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

_TOKEN: Final = re.compile(r"[\t!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, 5.6.2, and a tab, as there."""
_QUOTED: Final = re.compile(r'".*"', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\([\x00-\x7f])")
_OF_SDK: Final = re.compile(r'form-data; name="file"; filename="(.*)"', re.DOTALL)
_CONTINUED: Final = re.compile(r"[^*]*\*[0-9]+\*?")
"""The name of a parameter that comes in pieces: `filename*0`, `filename*1*`."""


def read_disposition(text: str) -> tuple[str, dict[str, str]]:
    """The kind, and the parameters by name; those that cannot be read are left out. Raises ValueError for what is no such header."""
    kind, *items = text.split(";")
    if not _TOKEN.fullmatch(kind.strip()):
        raise ValueError("it has no kind")
    found: dict[str, str] = {}
    items.reverse()
    while items:
        item = items.pop()
        if not item:
            continue
        name, mark, value = item.partition("=")
        name = name.strip().lower()
        if not mark or name in found:
            raise ValueError("a parameter has no value, or comes twice")
        read = _read(name, value.lstrip(), items) if _TOKEN.fullmatch(name) else None
        if read is not None:
            found[name] = read
    return kind.strip().lower(), found


def read_raw_filename(text: str) -> str | None:
    """The file name of a part `file` as Comfy-Org's SDK for Python writes it: with whatever stands in it, quotes and semicolons too.

    For parts of Comfy API v2 alone, whose names ComfyUI never sees. None for any other spelling.
    """
    found = _OF_SDK.fullmatch(text)
    return None if found is None else found[1]


def _read(name: str, value: str, rest: list[str]) -> str | None:
    """rest: what follows, the next item last; one that belongs to this one is taken from it. None: it is left out."""
    if _CONTINUED.fullmatch(name):
        if _QUOTED.fullmatch(value):
            return _ESCAPED.sub(r"\1", value[1:-1])
        return value if _TOKEN.fullmatch(value) else None
    if name.endswith("*"):
        is_extended = _TOKEN.fullmatch(value) is not None and value.count("'") == 2
        return _decode(value) if is_extended else None
    if _QUOTED.fullmatch(value.rstrip()):
        return _unquote(value.rstrip())
    if _TOKEN.fullmatch(value):
        return value
    if rest and _QUOTED.fullmatch(f"{value};{rest[-1]}"):
        return _unquote(f"{value};{rest.pop()}")  # one semicolon in a name, as browsers send it
    raise ValueError("a parameter cannot be read")


def _unquote(value: str) -> str:
    return _ESCAPED.sub(r"\1", value[1:-1].lstrip("\\/"))


def _decode(value: str) -> str | None:
    """RFC 5987, 3.2: charset, language and percent-encoded text; UTF-8 where no charset is named."""
    charset, _, text = value.split("'", 2)
    try:
        return unquote(text, charset or "utf-8", "strict")
    except (LookupError, UnicodeDecodeError):
        return None


def filename_of(parameters: dict[str, str]) -> str | None:
    """The extended form counts more than the plain one, and that more than pieces. None where there is none that can be read."""
    for name in ("filename*", "filename"):
        if name in parameters:
            return parameters[name]
    pieces = sorted((name, value) for name, value in parameters.items() if name.startswith("filename*"))
    whole = ""
    for number, (name, value) in enumerate(pieces):
        if name.removeprefix("filename*").removesuffix("*") != str(number):
            pieces = pieces[:number]
            break
        whole += value
    if not pieces:
        return None
    if "'" not in whole:
        return whole
    return _decode(whole) if whole.count("'") >= 2 else None
