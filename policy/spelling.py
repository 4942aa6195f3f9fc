"""One spelling upstream for every name that a disk can hold, and the client's own on the way back: a segment at a time, exactly reversible.

Most names are plain and stay as they are. A name that a disk, a second decoding or Windows could read as another path is carried as
`~=` and its text, in which `=XX` stands for the bytes (UTF-8) of whatever is not a plain letter or digit.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

MARK: Final = "~="
MAX_LENGTH: Final = 255
MAX_READINGS: Final = 64

# Windows opens a device for these names, whatever the extension or the case.
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*([.:].*)?")
_DRIVE = re.compile(r"(?s).:.*")
# SECURITY: ComfyUI takes such a name for an asset of anybody's, wherever it lies (server.py, view_image;
# test_spelling.py::test_names_that_mean_something_else_are_not_plain).
_HASH = re.compile(r"(?is)\s*(?:blake3:|[a-z0-9_-]+:[0-9a-f]{16}).*")
_SEPARATOR = re.compile(r"[\x00/\\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DOTS = re.compile(r"[. ]*")
_LITERAL = re.compile(r"[A-Za-z0-9 _.,;!@#$&'()\[\]{}+^~-]")
_CODE = re.compile(r"(?:=[0-9A-F]{2})+")
# What no spelling reads or writes in another way: nearly all names.
_SIMPLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ ()-]{3,}(?:\.[A-Za-z0-9_()-]+)*")


def is_plain(segment: str) -> bool:
    """Whether a segment stays one name in its folder however it is decoded (twice), normalised or compared."""
    if _SIMPLE.fullmatch(segment) and not _DEVICE.fullmatch(segment):
        return True
    readings = readings_of(segment)
    return len(readings) <= MAX_READINGS and all(map(_is_harmless, readings))


def readings_of(text: str) -> frozenset[str]:
    """The texts that decodings and normalisations make of this one, itself among them; too many when it is built to have many."""
    found = {text}
    waiting = [text]
    for reading in waiting:
        for other in _other_readings(reading):
            if other not in found:
                found.add(other)
                waiting.append(other)
        if len(found) > MAX_READINGS:
            break
    return frozenset(found)


def _other_readings(text: str) -> tuple[str, ...]:
    others = (unquote(text),) if "%" in text else ()
    if text.isascii():
        return others
    # Some file systems ignore invisible characters when they compare names, and some keep names normalised.
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return (*others, visible, unicodedata.normalize("NFKC", text), unicodedata.normalize("NFD", text))


def _is_harmless(text: str) -> bool:
    is_special = _DOTS.fullmatch(text) or _DEVICE.fullmatch(text) or _DRIVE.fullmatch(text) or _HASH.fullmatch(text)
    return not is_special and not _SEPARATOR.search(text) and not _CONTROL.search(text)


def is_name(segment: str) -> bool:
    """Whether a disk can hold a file of this name: one segment of Unicode text."""
    return segment not in ("", ".", "..") and not _SEPARATOR.search(segment) and not has_surrogates(segment)


def has_surrogates(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def spell(segment: str) -> str:
    """The upstream spelling of a name. Names that could be taken for a spelling are spelled too, so each has one alone."""
    if is_plain(segment) and _unspell(segment) is None:
        return segment
    return encode(segment)


def unspell(segment: str) -> str:
    """The client's name of an upstream one; what is no spelling of the gate's is a name of its own."""
    found = _unspell(segment)
    return segment if found is None else found


@lru_cache(maxsize=4096)
def _unspell(segment: str) -> str | None:
    if not segment.startswith(MARK) or len(segment) > MAX_LENGTH:
        return None
    text = decode(segment)
    if text is None or not is_name(text) or encode(text) != segment:
        return None
    return None if is_plain(text) and _unspell(text) is None else text


def encode(text: str) -> str:
    """Any text without lone surrogates, in the safe characters of a file name."""
    return MARK + escape(text)


def escape(text: str) -> str:
    """Windows drops dots and spaces at the end of a name, and ComfyUI shows no file with two dots in a row (server.py, view_image)."""
    return "".join(
        _code(character) if character in ". " and text[index + 1 : index + 2] in ("", ".") else _escape(character)
        for index, character in enumerate(text)
    )


def decode(spelling: str) -> str | None:
    """What `encode` made this of; None when the codes are no text."""
    try:
        return _CODE.sub(_decode_run, spelling.removeprefix(MARK))
    except UnicodeDecodeError:
        return None


def _escape(character: str) -> str:
    if _LITERAL.fullmatch(character):
        return character
    is_letter = character.isalnum() and not character.isascii() and len(readings_of(character)) == 1
    return character if is_letter else _code(character)


def _code(character: str) -> str:
    return "".join(f"={byte:02X}" for byte in character.encode())


def _decode_run(found: re.Match[str]) -> str:
    return bytes.fromhex(found[0].replace("=", "")).decode()
