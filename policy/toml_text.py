"""Texts as TOML writes them."""

from __future__ import annotations

import re
from typing import Final

_ORDINARY: Final = re.compile(r"[^\x00-\x1f\x7f\"\\]*")


def quote(text: str) -> str:
    """A basic string (TOML 1.0)."""
    return f'"{text}"' if _ORDINARY.fullmatch(text) else f'"{"".join(map(_escape, text))}"'


def _escape(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if ord(character) < 0x20 or ord(character) == 0x7F:
        return f"\\u{ord(character):04x}"
    return character
